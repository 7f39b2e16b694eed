"""safetensors export: a copy of the run's own model file, which `foveola.open` opens with PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

from foveola.errors import require
from foveola.files import write_atomically
from foveola.models.model_file import read_model_file
from foveola.predictions import Predictor

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier


SUFFIX = ".safetensors"


def write(source: Path, live: Predictor, target: Path) -> None:
    """Copy the model file unchanged, after its checksums were verified; `live` is not used."""
    write_atomically(target, read_model_file(source).content)


def open(path: Path) -> "Classifier":
    """Open the copy.

    Raises
    ------
    ModelError
        If the file is missing or damaged.
    MissingExtra
        If PyTorch is not installed.
    """
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    return open_classifier(path)
