"""What the documentation site needs besides its pages: files of the repository's root as pages (a hook of MkDocs).

CHANGELOG.md and its like stay where everyone looks for them; on the site they are pages under the names of `PAGES`.
Links lead to these pages wherever they are written.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
FILES = ("CITATION.cff", "LICENSE")  # linked as they are
LINK = re.compile(r"\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages and files of the root."""
    for name, page in PAGES.items():
        text = relink((ROOT / name).read_text("utf-8"), "", page)
        files.append(File.generated(config, page, content=text))
    for name in FILES:
        files.append(File.generated(config, name, content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links to files of the root lead to their pages."""
    path = page.file.src_uri
    if path in PAGES.values():
        return markdown
    return relink(markdown, posixpath.join("docs", posixpath.dirname(path)), path)


def relink(text: str, folder: str, page: str) -> str:
    """Links of a text in a folder of the repository, as links of a page of the site.

    >>> relink("[design](docs/design.md#layers), [changes](CHANGELOG.md)", "", "contributing.md")
    '[design](design.md#layers), [changes](changes.md)'
    >>> relink("[how](../../CONTRIBUTING.md) [other](data.md)", "docs/lab", "lab/a.md")
    '[how](../contributing.md) [other](data.md)'
    """

    def replaced(match: re.Match[str]) -> str:
        target, anchor = match.groups()
        if "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        there = PAGES.get(path, path.removeprefix("docs/"))
        return f"]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(replaced, text)
