"""The notebooks of the tutorials: made from the pages, and run from top to bottom on small data in a real kernel."""

import ast
import doctest
import inspect
import json
import re
import runpy
from pathlib import Path

import pytest

import foveola

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "notebooks.py"))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
# In the first cell: small data of the same names, and trainings of two epochs
PREAMBLE = """
import hashlib, os
from dataclasses import replace
from pathlib import Path
import foveola
from foveola.datasets import CATALOG

for name in ("mnist", "fashion-mnist", "kmnist"):
    files = []
    for file in CATALOG[name].files:
        content = Path(os.environ["FOVEOLA_DATA"], name, file.name.removesuffix(".gz")).read_bytes()
        files.append(replace(file, content_sha256=hashlib.sha256(content).hexdigest()))
    CATALOG[name] = replace(CATALOG[name], files=tuple(files))


def shorter(function, **changes):
    def call(*arguments, overrides=None, **settings):
        if "epochs" in changes:
            settings |= {"overrides": {**(overrides or {}), "epochs": changes["epochs"]}, "report": False}
        return function(*arguments, **{**settings, **{key: changes[key] for key in changes if key in settings}})

    return call


foveola.train, foveola.compare = shorter(foveola.train, epochs=2), shorter(foveola.compare, seeds=2)
"""
MAX_LINES, MAX_BYTES = 60, 400_000


def code_cells(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebooks_are_those_of_the_pages():
    assert {path.name: path.read_text("utf-8") for path in NOTEBOOKS} == SCRIPT["notebooks"](), "run make docs"
    assert len(NOTEBOOKS) == 4


def test_the_examples_of_the_script_run():
    found = doctest.DocTestFinder().find(SCRIPT["call"], "call", globs=SCRIPT)
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_call_has_arguments_that_its_function_takes(path):
    trees = [ast.parse(cell) for cell in code_cells(path) if not cell.startswith("%%")]
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node for node in found if ast.unparse(node.func) in {f"foveola.{name}" for name in foveola.__all__}]
    assert calls
    for node in calls:
        function = getattr(foveola, node.func.attr)
        arguments = {keyword.arg: None for keyword in node.keywords}
        inspect.signature(function).bind(*node.args, **arguments)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_and_images_exist(path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)|<img src=\\\"([^\\]+)\\\"", text):
        target = "".join(target)
        assert "://" in target or (path.parent / target).is_file(), target


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs_from_top_to_bottom(path, small_data, tmp_path, monkeypatch):
    """No cell fails, and none shows much: a line an epoch at most, and small HTML."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("FOVEOLA_DATA", str(small_data))
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "no-cache"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(PREAMBLE))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(json.dumps(outputs)) < 10 * MAX_BYTES
    for output in outputs:
        assert output.get("name") != "stderr", output.text
        assert len(output.get("text", "").splitlines()) <= MAX_LINES
        assert len(json.dumps(output)) < MAX_BYTES
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    assert any("Run(" in data["text/plain"] and "Confusion matrix" in data["text/html"] for data in shown)
