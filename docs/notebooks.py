"""Write docs/notebooks/*.ipynb from the pages of docs/tutorials: `make docs`.

Text becomes Markdown cells, Python blocks become code cells, recipes become files (`%%writefile`), and commands become
calls of the Python functions of the same names. Output is not copied: it appears when a notebook is run.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent / "tutorials"
NOTEBOOKS = Path(__file__).parent / "notebooks"

# Options of commands: the keyword of the Python function, and its value
OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "--class": ("classes", lambda name: [name]),
    "--diagram": ("diagram", str),
    "--image": ("image_shape", lambda shape: tuple(map(int, shape.split("x")))),
    "--init": ("init", str),
    "--kernel": ("kernel", str),
    "--out": ("out", str),
    "--padding": ("padding", str),
    "--pool": ("pool", str),
    "--recipe": ("recipe", str),
    "--seed": ("seed", int),
    "--seeds": ("seeds", int),
    "--stride": ("stride", int),
}
FLAGS = {"--freeze": "freeze"}
# Commands whose arguments after the first one are a list
LISTS = ("predict", "explain")
# Their results are long documents; what they write is what counts
SILENT = ("explain", "convolve")


def main() -> None:
    NOTEBOOKS.mkdir(exist_ok=True)
    for name, text in notebooks().items():
        (NOTEBOOKS / name).write_text(text, encoding="utf-8")


def notebooks() -> dict[str, str]:
    """Every notebook's content by its file name."""
    pages = sorted(page for page in PAGES.glob("*.md") if page.name != "README.md")
    return {page.with_suffix(".ipynb").name: notebook(page.read_text("utf-8"), page.name) for page in pages}


def notebook(page: str, name: str) -> str:
    """A page as a notebook (format 4.5), without outputs."""
    title, _, rest = page.partition("\n")
    origin = (
        f"{title}\n\nThis notebook is [a page of the tutorials](../tutorials/{name}). It needs "
        f"`pip install 'foveola[train]'`, and writes into the folder that it is run in: use an empty one."
    )
    cells = [_markdown(origin), _code("import foveola"), *_cells(_with_links(rest))]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    document = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _with_links(page: str) -> str:
    """Images and other pages are found from the notebooks' folder."""
    page = re.sub(r"(\]\(|src=\")(images/)", r"\1../tutorials/\2", page)
    return re.sub(r"\]\(([\w-]+\.md)", r"](../tutorials/\1", page)


def _cells(page: str) -> Iterator[dict[str, Any]]:
    text = ""
    for part in re.split(r"^(```(?:python|console|toml)\n.*?^```$)", page, flags=re.MULTILINE | re.DOTALL):
        block = re.fullmatch(r"```(\w+)\n(.*)\n```", part, re.DOTALL)
        if block is None:
            text += part
            continue
        if text.strip():
            yield _markdown(text)
            text = ""
        language, content = block.groups()
        if language == "console":
            yield from (_code(call(line[2:])) for line in content.splitlines() if line.startswith("$ "))
        elif language == "toml":
            name = content.partition("\n")[0].removeprefix("# ")
            yield _code(f"%%writefile {name}\n{content}")
        else:
            yield _code(content.removeprefix("import foveola\n\n"))
    if text.strip():
        yield _markdown(text)


def call(command: str) -> str:
    """The call of a Python function that does what a command does.

    >>> call("foveola train mnist --recipe lenet5 --set patience=5 --out runs/lenet5")
    'foveola.train("mnist", recipe="lenet5", overrides={"patience": 5}, out="runs/lenet5")'
    """
    _, name, *words = shlex.split(command)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if word in FLAGS:
            keywords[FLAGS[word]] = True
        elif word == "--set":
            key, _, value = words.pop(0).partition("=")
            keywords.setdefault("overrides", {})[key] = int(value) if value.isdigit() else value
        elif word.startswith("--"):
            keyword, read = OPTIONS[word]
            keywords[keyword] = read(words.pop(0))
        else:
            positional.append(word)
    if name in LISTS:
        positional = [positional[0], positional[1:]]
    values = [*map(_literal, positional), *(f"{key}={_literal(value)}" for key, value in keywords.items())]
    return f"foveola.{name}({', '.join(values)})" + (";" if name in SILENT else "")


def _literal(value: Any) -> str:
    """Python's notation, with double quotes."""
    return repr(value) if isinstance(value, bool | int | tuple) else json.dumps(value)


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": _lines(text)}


def _lines(text: str) -> list[str]:
    return text.strip("\n").splitlines(keepends=True)


if __name__ == "__main__":
    main()
