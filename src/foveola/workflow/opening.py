"""Models and devices, found and opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foveola.errors import ModelError, UserError, require
from foveola.export import onnx
from foveola.models.card import ModelCard
from foveola.predictions import Predictor
from foveola.run import Run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from foveola.models.classifier import Classifier

Device = Literal["auto", "cpu", "cuda"]

MODEL_SUFFIXES = (".safetensors", onnx.SUFFIX)


def open_model(
    path: str | Path, *, network: "nn.Module | None" = None, device: Device = "cpu"
) -> "Classifier | onnx.OnnxModel":
    """Open a run directory or a model file.

    Parameters
    ----------
    path : a run directory, a .safetensors file, or an .onnx file, which needs no PyTorch
    network : the user's own module, where the run was trained with one
    device : where to compute; exports run on the processor

    Returns
    -------
    A Predictor, `predict_logits` of which takes images, uint8 N×H×W×C, and gives logits; of a run, a Classifier.

    Raises
    ------
    ModelError
        If there is no model, or it is damaged.
    """
    path = Path(path)
    if path.suffix == onnx.SUFFIX and path.is_file():
        return _open_export(path, network, device)
    file = model_path(path)
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    return open_classifier(file, network).to(choose_device(device))


def _open_export(path: Path, network: "nn.Module | None", device: Device) -> onnx.OnnxModel:
    if network is not None:
        raise ModelError(
            f"{path} holds a whole network; `network` goes with runs of a network of your own. Leave it out."
        )
    if device == "cuda":
        raise UserError(f"{path} is an export, which runs on the processor. Use --device cpu, or give the run.")
    return onnx.open(path)


def model_path(path: Path) -> Path:
    """The file that holds the weights for PyTorch."""
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
    if path.suffix == onnx.SUFFIX:
        raise ModelError(f"{path} is an export, which can only predict. Give the run that it was made from.")
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
