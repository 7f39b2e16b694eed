"""The public names are exactly those documented, and the examples in their docstrings run."""

import doctest
import importlib
import inspect
import re
import shutil
from pathlib import Path

import pytest

import foveola
from keras_cases import ROWS

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
FUNCTIONS = [name for name in foveola.__all__ if inspect.isfunction(getattr(foveola, name))]
# Public methods of other modules that users meet
FURTHER = (
    "foveola.estimator",
    "foveola.evaluation.metrics",
    "foveola.models.image_predictor",
    "foveola.predictions",
    "foveola.recipe",
    "foveola.runs",
    "foveola.workflow.export",
)


def test_public_names_are_those_documented():
    documented = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted(foveola.__all__)
    assert set(dir(foveola)) == {*foveola.__all__, "__version__"}


def test_nothing_else_is_reachable_by_from_import_star():
    names = {}
    exec("from foveola import *", names)  # noqa: S102 - our own package
    assert names.keys() - {"__builtins__"} == set(foveola.__all__)


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """A folder with a Keras model only; trainings write no report, which takes seconds."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROWS, "model.keras")
    workflow = importlib.import_module("foveola.workflow.fit_run")
    monkeypatch.setattr(workflow, "_write_page", lambda *arguments: None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example_that_runs(name, working_folder):
    function = getattr(foveola, name)
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={"foveola": foveola})
    assert any(test.examples for test in tests), f"foveola.{name} has no example"
    for test in tests:
        run(test)


@pytest.mark.parametrize("module", FURTHER)
def test_examples_of_other_modules_run(module, working_folder):
    imported = importlib.import_module(module)
    tests = doctest.DocTestFinder().find(imported, globs=vars(imported) | {"foveola": foveola})
    assert sum(len(test.examples) for test in tests) > 0
    for test in tests:
        run(test)


def run(test):
    report = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert not report, "".join(report)
