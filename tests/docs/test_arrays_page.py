"""The page on arrays, PyTorch and scikit-learn: its examples run."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "arrays.md"


@pytest.mark.slow
def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module("foveola.workflow.fit_run"), "_write_page", lambda *arguments: None)
    found = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, found)  # noqa: S102 - the page's own code
    trained, measured, best = capsys.readouterr().out.splitlines()
    assert trained == measured
    assert "'epochs': 4" in best
