"""Foveola: small labelled images in, a classifier you can trust out.

>>> import foveola
>>> run = foveola.train("digits")              # doctest: +SKIP
>>> run = foveola.train(images, labels, "strong", epochs=5)   # doctest: +SKIP
>>> run.accuracy                               # doctest: +SKIP
>>> names = run.model.predict(images)          # doctest: +SKIP
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# From 1.29 on, ONNX Runtime reports to its maker from its first import on, unless this is set by then: its Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Loaded when first used, so that importing Foveola is quick and brings no torch.
_PUBLIC = {
    "load": "foveola.datasets",
    "catalog": "foveola.workflow.catalog",
    "train": "foveola.workflow.train",
    "resume": "foveola.workflow.train",
    "find_rate": "foveola.workflow.find_rate",
    "open": "foveola.workflow.open:open_model",
    "evaluate": "foveola.workflow.evaluate",
    "audit": "foveola.workflow.audit",
    "pack": "foveola.workflow.pack",
    "compare": "foveola.workflow.compare",
    "report": "foveola.workflow.report",
    "tune": "foveola.workflow.tune",
    "predict": "foveola.workflow.predict",
    "explain": "foveola.workflow.explain",
    "import_model": "foveola.workflow.import_model",
    "convolve": "foveola.workflow.convolve",
    "export": "foveola.workflow.export",
    "serve": "foveola.workflow.serve",
    "teach": "foveola.workflow.teach",
    "summary": "foveola.workflow.summary",
    "info": "foveola.workflow.environment:describe_environment",
    "Dataset": "foveola.images",
    "ImageSet": "foveola.images",
    "Predictions": "foveola.predictions",
    "Estimate": "foveola.predictions",
    "Predictor": "foveola.predictions",
    "Recipe": "foveola.recipe",
    "load_recipe": "foveola.recipe",
    "recipe_names": "foveola.recipe",
    "Run": "foveola.runs",
    "Classifier": "foveola.models.classifier",
    "FoveolaClassifier": "foveola.estimator",
    "Callback": "foveola.training.callbacks",
    "FoveolaError": "foveola.errors",
    "UserError": "foveola.errors",
}

__all__ = [
    "Callback",
    "Classifier",
    "Dataset",
    "Estimate",
    "FoveolaClassifier",
    "FoveolaError",
    "ImageSet",
    "Predictions",
    "Predictor",
    "Recipe",
    "Run",
    "UserError",
    "audit",
    "catalog",
    "compare",
    "convolve",
    "evaluate",
    "explain",
    "export",
    "find_rate",
    "import_model",
    "info",
    "load",
    "load_recipe",
    "open",
    "pack",
    "predict",
    "recipe_names",
    "report",
    "resume",
    "serve",
    "summary",
    "teach",
    "train",
    "tune",
]

if TYPE_CHECKING:
    from foveola.datasets import load
    from foveola.errors import FoveolaError, UserError
    from foveola.estimator import FoveolaClassifier
    from foveola.images import Dataset, ImageSet
    from foveola.models.classifier import Classifier
    from foveola.predictions import Estimate, Predictions, Predictor
    from foveola.recipe import Recipe, load_recipe, recipe_names
    from foveola.runs import Run
    from foveola.training.callbacks import Callback
    from foveola.workflow.audit import audit
    from foveola.workflow.catalog import catalog
    from foveola.workflow.compare import compare
    from foveola.workflow.convolve import convolve
    from foveola.workflow.environment import describe_environment as info
    from foveola.workflow.evaluate import evaluate
    from foveola.workflow.explain import explain
    from foveola.workflow.export import export
    from foveola.workflow.find_rate import find_rate
    from foveola.workflow.import_model import import_model
    from foveola.workflow.open import open_model as open
    from foveola.workflow.pack import pack
    from foveola.workflow.predict import predict
    from foveola.workflow.report import report
    from foveola.workflow.serve import serve
    from foveola.workflow.summary import summary
    from foveola.workflow.teach import teach
    from foveola.workflow.train import resume, train
    from foveola.workflow.tune import tune


# Imported with these classes, and brought by `foveola[train]`
_NEEDS = {"Classifier": "torch", "FoveolaClassifier": "sklearn"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'foveola' has no attribute {name!r}")
    if name in _NEEDS:
        from foveola.errors import require

        require(_NEEDS[name], "train")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
