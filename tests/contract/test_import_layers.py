"""Imports: no torch before a model is trained or opened; public names."""

import os
import subprocess
import sys

import pytest

import foveola
from foveola.errors import MissingExtra

WITHOUT_TORCH = [
    "foveola",
    "foveola.errors",
    "foveola.inputs.prepare",
    "foveola.images",
    "foveola.inputs.decode",
    "foveola.inputs.checks",
    "foveola.predictions",
    "foveola.datasets",
    "foveola.evaluation",
    "foveola.evaluation.metrics",
    "foveola.evaluation.calibration",
    "foveola.evaluation.intervals",
    "foveola.evaluation.comparison",
    "foveola.evaluation.rejection",
    "foveola.explanation.convolution",
    "foveola.explanation.occlusion",
    "foveola.recipe",
    "foveola.training.trackers",
    "foveola.models.layers",
    "foveola.models.shapes",
    "foveola.models.metadata",
    "foveola.documents",
    "foveola.runs",
    "foveola.workflow.audit",
    "foveola.workflow.open",
    "foveola.workflow.serve",
    "foveola.workflow.teach",
    "foveola.workflow.train",
    "foveola.exports",
    "foveola.exports.onnx",
    "foveola.workflow.compare",
    "foveola.workflow.convolve",
    "foveola.workflow.evaluate",
    "foveola.workflow.explain",
    "foveola.workflow.export",
    "foveola.workflow.find_rate",
    "foveola.workflow.load_callbacks",
    "foveola.workflow.predict",
    "foveola.workflow.report",
    "foveola.cli",
]
HEAVY = ("torch", "tensorboard", "mlflow", "wandb", "sklearn", "scipy", "matplotlib", "pooch", "onnx", "onnxruntime")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("modules", [WITHOUT_TORCH], ids=["light modules"])
def test_importing_brings_no_heavy_library(modules):
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        f"    heavy = [library for library in {HEAVY!r} if library in sys.modules]\n"
        "    assert not heavy, f'{name} brings {heavy}'\nprint('light')"
    )
    assert run(code) == "light"


def test_the_check_detects_torch():
    assert run("import foveola, sys; foveola.Classifier; print('torch' in sys.modules)") == "True"


@pytest.mark.parametrize(
    "arguments", [["summary", "west", "--json"], ["summary", "lenet5"], ["recipes"], ["datasets"], ["--help"]]
)
def test_commands_that_compute_nothing_bring_no_torch(arguments):
    code = (
        f"import sys\nsys.argv = ['foveola', *{arguments!r}]\nfrom foveola.cli import main\n"
        "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(f'exit {code or 0}', 'torch' if 'torch' in sys.modules else 'light')"
    )
    assert run(code) == "exit 0 light"


def test_a_training_without_a_report_brings_no_library_that_only_reports_need(tmp_path):
    code = (
        "import numpy as np, sys, foveola\n"
        "images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), np.uint8)\n"
        f"foveola.train(images, np.arange(400) % 2, 'mlp', epochs=1, out={str(tmp_path / 'run')!r}, report=False)\n"
        "print([name for name in ('scipy', 'sklearn', 'pandas') if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_onnx_runtime_telemetry_is_off():
    """ORT_DISABLE_TELEMETRY is set before the first import, unless the user has set it."""
    code = "import os, foveola; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for given, expected in [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")]:
        done = subprocess.run([sys.executable, "-c", code], env=environment | given, capture_output=True, check=True)
        assert done.stdout.decode().strip() == expected


def test_public_names_resolve_to_what_their_modules_hold():
    assert set(foveola.__all__) == set(foveola._PUBLIC)
    assert len(foveola.__all__) == len(set(foveola.__all__))
    for name in foveola.__all__:
        value = getattr(foveola, name)
        module, _, attribute = foveola._PUBLIC[name].partition(":")
        assert value.__module__ == module, name
        assert value.__name__ == (attribute or name)
    assert set(foveola.__all__) <= set(dir(foveola))


@pytest.mark.parametrize("name", foveola._NEEDS)
def test_classes_of_trainings_name_the_extra_that_they_need(name, monkeypatch):
    monkeypatch.setitem(sys.modules, foveola._NEEDS[name], None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"pip install 'foveola\[train\]'"):
        foveola.__getattr__(name)


def test_the_names_that_editors_see_are_the_public_ones():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(foveola.__file__).read_text("utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING")
    names = {
        alias.asname or alias.name: f"{node.module}:{alias.name}" if alias.asname else node.module
        for node in typed.body
        for alias in node.names
    }
    assert names == foveola._PUBLIC


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = foveola.nothing
