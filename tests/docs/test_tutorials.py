"""Tests of the tutorials: every command and every Python block runs, in order, on small data of the same names.

A page's blocks are `console` (commands after `$ `, then their output), `python`, `toml` (saved under the file name in
their first line) and `text` (the output of the Python block right before it; elsewhere only shown). Other blocks fail,
because they would stay untested.
"""

import re
import runpy
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

import foveola
from foveola.cli import main

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))

# Arguments added to each command, so that it takes a second. A command that is not here fails the test.
SMALL_COMMANDS = {
    "summary": [],
    "train": ["--epochs", "2"],
    "evaluate": [],
    "predict": [],
    "explain": [],
    "convolve": [],
    "compare": ["--seeds", "2"],
}
# Commands whose output depends on neither data nor training: a page's lines must be printed, in this order
EXACT = {"summary"}
# Replacements in Python blocks
SMALL_PYTHON = {"foveola.train(": "small_train("}

# Pages whose trainings take longest
SLOW = ("cnn-against-dnn", "kmnist-callbacks", "west-fashion-mnist")


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(page):
    text = page.read_text("utf-8")
    matches = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 1) for match in matches]


@pytest.fixture
def folder(small_catalog, tmp_path, monkeypatch):
    """An empty working folder; data sets by name are small ones."""
    working = tmp_path / "work"
    working.mkdir()
    monkeypatch.chdir(working)
    return working


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW else []) for page in PAGES],
)
def test_a_page_runs_as_written(page, folder, capsys):
    """Commands end with exit code 0, print what the page shows, and write the files that it names."""
    names, printed = {"small_train": small_train}, None
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.language == "text":
            check_order(block.text.splitlines(), printed, where)
            printed = None
            continue
        printed = None
        if block.language == "console":
            for command, shown in commands(block, where):
                run_command(command, shown, where, capsys)
        elif block.language == "python":
            names, printed = run_python(block, folder.parent / f"{page.stem}-{block.line}.py", names, where, capsys)
        else:
            assert block.language == "toml", f"{where}: a block of {block.language or 'no language'} cannot be checked"
            save_toml(block, where)
    named = re.findall(r"`([\w./-]+\.(?:png|svg|pdf|csv|json|toml|safetensors|html))`", page.read_text("utf-8"))
    missing = [name for name in named if not Path(name).is_file()]
    assert not missing, f"{page.name} names files that its commands do not write: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_images_exist(page):
    targets = re.findall(r"\]\(([^)]+)\)|<img src=\"([^\"]+)\"", page.read_text("utf-8"))
    for target in ("".join(pair) for pair in targets):
        assert "://" in target or (page.parent / target).is_file(), f"{page.name}: {target} does not exist"


def test_the_index_lists_every_page_and_every_image_is_used():
    texts = {page.name: page.read_text("utf-8") for page in PAGES}
    assert len(texts) == 5
    for name in texts.keys() - {"README.md"}:
        assert f"({name})" in texts["README.md"]
    for image in (PAGES[0].parent / "images").iterdir():
        assert any(f"images/{image.name}" in text for text in texts.values()), f"{image.name} is on no page"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```console\n$ rm notes.txt\n```\n", "SMALL_COMMANDS has no"),
        ("```console\n$ foveola frobnicate\n```\n", "SMALL_COMMANDS has no"),
        ("```console\n$ foveola summary lenet6\n```\n", "ended with 2"),
        ("```console\n$ foveola summary lenet5\nTotal parameters: 61,707\n```\n", "not printed"),
        ("```console\n$ foveola train mnist\nepoch 1\n```\n", "depends on the data"),
        ("```console\nfoveola summary lenet5\n```\n", "begins with a command"),
        ("```bash\nfoveola summary lenet5\n```\n", "cannot be checked"),
        ("```python\nprint(1 + 1)  # 3\n```\n", "not printed"),
        ("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", "not printed"),
        ('```toml\nname = "x"\n```\n', "first line"),
        ("See `runs/x/curves.png`.\n", "do not write"),
    ],
)
def test_a_wrong_page_fails(text, message, folder, capsys):
    page = folder.parent / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        test_a_page_runs_as_written(page, folder, capsys)


def small_train(*arguments, overrides=None, **settings):
    """foveola.train for two epochs."""
    return foveola.train(*arguments, overrides={**(overrides or {}), "epochs": 2}, **settings)


def commands(block, where):
    """Each command with the output that the page shows below it."""
    pairs = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            pairs.append((shlex.split(line[2:]), []))
        else:
            assert pairs, f"{where}: a console block begins with a command after '$ '"
            pairs[-1][1].append(line)
    return pairs


def run_command(command, shown, where, capsys):
    program, name, *arguments = command
    if program != "foveola" or name not in SMALL_COMMANDS:
        pytest.fail(f"{where}: SMALL_COMMANDS has no arguments for {shlex.join(command)}")
    assert not shown or name in EXACT, f"{where}: the output of {name} depends on the data; show it in a text block"
    capsys.readouterr()
    code = main([name, *arguments, *SMALL_COMMANDS[name]])
    printed, errors = capsys.readouterr()
    assert code == 0, f"{where}: {shlex.join(command)} ended with {code}\n{errors}"
    check_order(shown, printed.splitlines(), where)


def run_python(block, file, names, where, capsys):
    """Run a block with the names that earlier blocks defined; returns the names afterwards, and the printed lines."""
    text = block.text
    for written, small in SMALL_PYTHON.items():
        text = text.replace(written, small)
    file.write_text(text, encoding="utf-8")
    capsys.readouterr()
    after = runpy.run_path(str(file), init_globals=names)
    printed = capsys.readouterr().out.splitlines()
    check_order(re.findall(r"^print\(.*\)  # (.+)$", text, re.MULTILINE), printed, where)
    return {name: value for name, value in after.items() if not name.startswith("__")}, printed


def check_order(shown, printed, where):
    """Assert that every shown line is printed, in this order, ignoring spaces; without output (None), do nothing."""
    if printed is None:
        return
    lines = iter([line.split() for line in printed])
    for line in shown:
        assert line.split() in lines, f"{where}: {line!r} was not printed in its place; printed:\n" + "\n".join(printed)


def save_toml(block, where):
    name = re.match(r"# ([\w-]+\.toml)\n", block.text)
    assert name, f"{where}: the first line of a recipe gives its file name, as in '# mine.toml'"
    Path(name[1]).write_text(block.text, encoding="utf-8")
