"""The README's Python runs, the trees of README and design page are true, the safety page's tests exist."""

import re
from pathlib import Path

import foveola

ROOT = Path(__file__).parents[2]
PACKAGE = Path(foveola.__file__).parent
README = (ROOT / "README.md").read_text("utf-8")
DESIGN = (ROOT / "docs" / "design.md").read_text("utf-8")


def tree(page):
    return re.search(r"```\nsrc/foveola/\n(.*?)```", page, re.DOTALL)[1]


def test_the_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(block, names)  # noqa: S102 - our own README
    assert names["run"].evaluation.accuracy.value > 0.9
    assert names["names"].tolist() == list("01234")
    assert names["probabilities"].shape == (5, 10)


def test_the_readme_names_every_room():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(re.findall(r"\b([a-z]+)/", tree(README))) == rooms


def test_the_design_page_names_every_module_and_no_other():
    there = {path.stem for path in PACKAGE.rglob("*.py") if path.parent.name != "serving"} - {"__init__"}
    assert there <= set(re.findall(r"[a-z0-9_]+", tree(DESIGN)))
    first_columns = " ".join(re.findall(r"^ {4}([a-z0-9_]+(?: [a-z0-9_]+)*) {2}", tree(DESIGN), re.MULTILINE))
    assert set(first_columns.split()) <= there


def test_files_that_the_search_table_names_exist():
    for name in set(re.findall(r"`([a-z_/]+\.(?:py|toml|html))", DESIGN)):
        assert name.endswith("/x.py") or (PACKAGE / name).is_file() or (ROOT / name).is_file(), name


def test_the_safety_page_names_tests_that_exist():
    page = (ROOT / "docs" / "safety.md").read_text("utf-8")
    file = None
    for name in re.findall(r"`([^`]*(?:\.py|::)[^`]*)`", page):
        path, _, function = name.partition("::")
        file = ROOT / path if path else file
        assert file.is_file(), name
        assert f"def {function}" in file.read_text("utf-8"), name
