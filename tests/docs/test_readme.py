"""The README's Python runs, its file tree is true, and the tests that the safety page names exist."""

import re
from pathlib import Path

import foveola
from foveola.recipe import recipe_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TREE = re.search(r"```\nsrc/foveola/\n(.*?)```", README, re.DOTALL)[1]


def test_the_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(block, names)  # noqa: S102 - our own README
    assert names["run"].evaluation["accuracy"]["value"] > 0.9
    assert names["logits"].shape == (len(names["data"].train), 10)


def test_the_tree_has_every_module_and_no_other():
    there = {path.name for path in Path(foveola.__file__).parent.rglob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"\b[a-z0-9_]+\.py\b", TREE.partition("tests/ ")[0]))
    readers = re.search(r"^ +((?:\w+ · )+\w+) +one reader a format", TREE, re.MULTILINE)[1]
    assert named | {f"{name}.py" for name in readers.split(" · ")} == there


def test_the_tree_has_every_recipe():
    line = re.search(r"recipes/ +(.*)", TREE)[1]
    assert sorted(line.split(" · ")) == recipe_names()


def test_the_safety_page_names_tests_that_exist():
    page = (ROOT / "docs" / "safety.md").read_text("utf-8")
    file = None
    for name in re.findall(r"`([^`]*(?:\.py|::)[^`]*)`", page):
        path, _, function = name.partition("::")
        file = ROOT / path if path else file
        assert file.is_file(), name
        assert f"def {function}" in file.read_text("utf-8"), name
