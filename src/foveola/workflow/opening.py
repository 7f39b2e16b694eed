"""Models and devices, found and opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foveola.errors import ModelError, UserError, require
from foveola.models.card import ModelCard
from foveola.predictions import Predictor
from foveola.run import Run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from foveola.models.classifier import Classifier

Device = Literal["auto", "cpu", "cuda"]

MODEL_SUFFIXES = (".safetensors",)


def open_model(path: str | Path, *, network: "nn.Module | None" = None, device: Device = "cpu") -> "Classifier":
    """Open a run directory or a model file.

    Parameters
    ----------
    path : a run directory or a .safetensors file
    network : the user's own module, where the run was trained with one
    device : where to compute

    Returns
    -------
    A classifier: uint8 N×H×W×C → logits; `predict_logits` takes and gives NumPy arrays.

    Raises
    ------
    ModelError
        If there is no model, or it is damaged.
    """
    file = model_path(Path(path))
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    return open_classifier(file, network).to(choose_device(device))


def model_path(path: Path) -> Path:
    if path.is_dir():
        model = Run.open(path).model_path
        if not model.is_file():
            raise ModelError(f"The run {path} has no model.safetensors: its training has not ended. Train it again.")
        return model
    if not path.exists():
        raise ModelError(f"There is no run or model file {path}. Give the folder that `foveola train` wrote.")
    if path.suffix not in MODEL_SUFFIXES:
        raise ModelError(
            f"{path} is no model file that Foveola opens ({', '.join(MODEL_SUFFIXES)}), and no run directory."
        )
    return path


def card_of(predictor: Predictor) -> ModelCard:
    card = getattr(predictor, "card", None)
    if not isinstance(card, ModelCard):
        raise ModelError(
            f"{type(predictor).__name__} carries no description of its images. Open models with foveola.open."
        )
    return card


def choose_device(device: Device) -> "torch.device":
    """The device to compute on.

    Raises
    ------
    UserError
        If a GPU is asked for and there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda was asked for, but PyTorch finds no CUDA device here. Use --device cpu or auto.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
