"""Open a run, a model file or an export as a Predictor; choose the device."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from foveola.errors import ModelError, UserError, require, unknown
from foveola.exports import onnx, web
from foveola.files import as_path
from foveola.models.metadata import ModelMetadata
from foveola.models.model_file import read_metadata
from foveola.predictions import Predictor
from foveola.runs import STATUS_FILE, Run, where_a_run_may_be

if TYPE_CHECKING:
    import torch
    from torch import nn

    from foveola.models.classifier import Classifier


Device = Literal["auto", "cpu", "cuda", "mps"]

MODEL_SUFFIXES = (".safetensors", onnx.SUFFIX)
_GPUS = ("cuda", "mps")

# How trainings end whose weights are no model
_UNUSABLE = {
    "diverged": (
        "has diverged: its loss became NaN or infinite, so that its last weights are not opened as a model. "
        "Train again with a lower learning rate."
    ),
    "failed": "has failed before its end, so that its last weights are not opened as a model. Train again.",
}


def open_model(
    path: str | Path | Run, *, network: "nn.Module | None" = None, device: Device = "cpu", threads: int | None = None
) -> "Classifier | onnx.OnnxModel":
    """Open a run directory or a model file.

    Parameters
    ----------
    path : a run or its directory, a .safetensors file, an .onnx file, which needs no PyTorch, or the folder of a web
        export
    network : your own module, if the run was trained with one; without it, the run's ONNX graph is opened
    device : where to compute; exports and graphs run on the CPU
    threads : number of threads; for PyTorch, from now on in this process

    Returns
    -------
    A Predictor: `predict` gives class names and `predict_proba` probabilities of images in any form, `predict_logits`
    logits, float32 N×K, of images, uint8 N×H×W×C. For a run it is a Classifier, unless its network is your own and is
    not given.

    Raises
    ------
    ModelError
        If there is no model, it is damaged, or its training has diverged or failed.

    Examples
    --------
    >>> data = foveola.load("digits")
    >>> run = foveola.train(data, "mlp", overrides={"epochs": 1}, verbose=False)
    >>> foveola.open(run.path).predict_logits(data.train.images[:2]).shape
    (2, 10)
    >>> foveola.open(run).predict(data.train.images[:2]).shape
    (2,)
    """
    path = as_path(path, "The model")
    if (path.suffix == onnx.SUFFIX and path.is_file()) or is_web_export(path):
        return _open_export(path, network, device, threads)
    file = model_path(path)
    if network is None and read_metadata(file).layers is None:
        return _open_own(path, file, device, threads)
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    choose_threads(threads)
    return open_classifier(file, network).to(choose_device(device))


def is_web_export(path: Path) -> bool:
    """Whether this is the folder of a web export, which holds a whole ONNX export."""
    return (path / web.INDEX).is_file() and (path / web.MODEL).is_file() and not (path / STATUS_FILE).exists()


def _open_export(path: Path, network: "nn.Module | None", device: Device, threads: int | None) -> onnx.OnnxModel:
    if network is not None:
        raise ModelError(
            f"{path} holds a complete network; `network` is for runs of a network of your own. Leave it out."
        )
    if device in _GPUS:
        raise UserError(f"{path} is an export, which runs on the CPU. Use --device cpu, or give the run.")
    return onnx.open(path, threads) if path.is_file() else web.open(path, threads)


def _open_own(path: Path, file: Path, device: Device, threads: int | None) -> onnx.OnnxModel:
    """The ONNX graph of a network that the user has written, which has its code no longer."""
    with_code = f"foveola.open({str(path)!r}, network=YourModule())"
    if device in _GPUS:
        raise UserError(
            f"The network of {path} is your own: without its code, its ONNX graph is used, which runs on the CPU. Use "
            f"--device cpu; or, from Python, {with_code}."
        )
    if path.is_dir() and (graph := Run.open(path).status.graph) is not None and graph.missing is not None:
        raise ModelError(
            f"The network of {path} is your own ({graph.network}), and the run has its weights only: {graph.missing} "
            f"Open it from Python, with its code: {with_code}."
        )
    return onnx.open_own(file, threads)


def model_path(path: Path) -> Path:
    """The file with the weights, which PyTorch opens; raises a ModelError if there is none, or it is not finished."""
    if is_web_export(path):
        raise ModelError(f"{path} is a web export, which can only predict. Give the run that it was exported from.")
    if path.is_dir():
        run = Run.open(path)
        if (ending := run.status.status) in _UNUSABLE:
            raise ModelError(f"The training of {path} {_UNUSABLE[ending]} history.csv there has its epochs.")
        if not run.model_path.is_file():
            raise ModelError(f"The run {path} has no model.safetensors: its training is not complete. Train it again.")
        return run.model_path
    if not path.exists():
        raise ModelError(f"There is no run or model file {path}. {where_a_run_may_be(path)}")
    if path.suffix not in MODEL_SUFFIXES:
        raise ModelError(
            f"{path} is neither a run directory nor a model file that Foveola opens ({', '.join(MODEL_SUFFIXES)})."
        )
    if path.suffix == onnx.SUFFIX:
        raise ModelError(f"{path} is an export, which can only predict. Give the run that it was exported from.")
    return path


def as_predictor(model: str | Path | Run | Predictor) -> Predictor:
    """The model as it is, or opened from its path."""
    return open_model(model) if isinstance(model, str | Path | Run) else model


def metadata_of(predictor: Predictor) -> ModelMetadata:
    metadata = getattr(predictor, "metadata", None)
    if not isinstance(metadata, ModelMetadata):
        raise ModelError(f"{type(predictor).__name__} has no metadata. Open models with foveola.open.")
    return metadata


def choose_threads(threads: int | None) -> int:
    """The number of threads that PyTorch computes with from now on in this process; None leaves the choice to it.

    Raises
    ------
    UserError
        If the number is not above zero.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads is {threads}; computing needs at least 1.")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def choose_device(device: Device) -> "torch.device":
    """The device to compute on; "auto" is a CUDA GPU or the CPU, and never the untested "mps".

    Raises
    ------
    UserError
        If a GPU is requested and there is none, or it is no device.
    """
    import torch

    if device not in get_args(Device):
        raise UserError(unknown("device", str(device), get_args(Device)))
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda was given, but PyTorch finds no CUDA device here. Use --device cpu or auto.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "--device mps was given, but PyTorch finds no GPU of an Apple machine here. Use --device cpu or auto."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
