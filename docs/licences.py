"""Write docs/licences.md from the metadata of the installed distributions: `make docs`."""

import functools
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).with_suffix(".md")
PROJECT = tomllib.loads((PAGE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
# Those that an environment for development holds, smaller ones before those that include them
EXTRAS = ("plots", "notebook", "tables", "train", "tune", "tensorboard")
# CUDA and its compiler come with PyTorch for GPUs only
FOR_GPUS = ("cuda-", "nvidia-", "triton")

# What distributions without an SPDX expression call their licence. "BSD" alone does not say which
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}

PROSE = """# Licences

Foveola is under [Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0). What it needs may be used in closed and in
commercial programs: no package is under GPL, LGPL or AGPL. `make docs` writes this page from the metadata of the
installed packages, and a test refuses a licence that is not on its list. Exact versions, and the extras that are not
below, are in the CycloneDX documents that `make sbom` writes.

- **certifi and parts of tqdm are under MPL-2.0.** Whoever changes these files publishes the changes to them; nothing is
  asked of programs that use them.
- **Wheels contain libraries.** Those of NumPy and SciPy for Linux hold GCC's runtime libraries: under GPL-3.0 with the
  exception for what GCC compiles, and libquadmath under LGPL-2.1, each as a file that can be replaced. Their licence
  files have the details.
- **PyTorch for GPUs** also brings NVIDIA's CUDA libraries, under NVIDIA's own terms, and Triton (MIT). PyTorch for
  processors, and the base install, bring neither.
- **Data sets and pretrained weights** have licences of their own: see `foveola datasets` and
  [photographs](photographs.md).
- **The digits in the package** are the test images of Alpaydin and Kaynak's *Optical Recognition of Handwritten Digits*
  (UCI, doi:10.24432/C50P49), under CC BY 4.0, as scikit-learn distributes them.
"""


def dependencies(extra: str = "") -> set[str]:
    """Names of all distributions that Foveola needs with an extra, or without one; those for GPUs left out."""
    waiting, seen = [(Requirement(f"foveola[{extra}]" if extra else "foveola"), "")], set()
    while waiting:
        requirement, parents_extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": parents_extra})
        if not wanted or name.startswith(FOR_GPUS):
            continue
        for asked in ("", *requirement.extras):
            if (name, asked) not in seen:
                seen.add((name, asked))
                waiting += [(requirement, asked) for requirement in _requirements(name, asked)]
    return {name for name, _ in seen} - {"foveola"}


@functools.cache
def _requirements(name: str, extra: str) -> list[Requirement]:
    """Foveola's own from pyproject.toml, which may be newer than the installed metadata."""
    if name != "foveola":
        lines = metadata.requires(name) or []
    else:
        lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return list(map(Requirement, lines))


@functools.cache
def licence(name: str) -> str:
    """The licence of an installed distribution: an SPDX expression, or what comes nearest to one."""
    return licence_of(metadata.metadata(name))


def licence_of(document: Any) -> str:
    """The licence that a distribution's metadata name."""
    if expression := document.get("License-Expression"):
        return expression
    text = re.split(r"\s{2,}|\n", document.get("License") or "")[0]
    if text in SPDX or re.fullmatch(r"[A-Za-z]+(-[A-Z0-9.a-z]+)+( (AND|OR) [A-Za-z0-9.-]+)*|MIT", text):
        return SPDX.get(text, text)
    classifiers = [line.rpartition(" :: ")[2] for line in document.get_all("Classifier") or [] if line[:7] == "License"]
    return " OR ".join(SPDX.get(classifier, classifier) for classifier in classifiers) or text or "unknown"


def page() -> str:
    """The whole page as Markdown."""
    base = dependencies()
    extras = {extra: dependencies(extra) - base for extra in EXTRAS}
    rest = sorted(set().union(*extras.values()))
    parts = [
        PROSE,
        f"## The base install: {len(base)} packages\n",
        _table(("package", "licence"), [(name, licence(name)) for name in sorted(base)]),
        f"## Extras: {len(rest)} more\n",
        _table(("package", "licence", "extras"), [(name, licence(name), _needed_by(name, extras)) for name in rest]),
    ]
    return "\n".join(parts)


def _needed_by(name: str, extras: dict[str, set[str]]) -> str:
    """Names of extras; only the smaller one where one includes another."""
    for small in ("plots", "train"):
        if name in extras[small]:
            return small
    return ", ".join(extra for extra in extras if name in extras[extra])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
