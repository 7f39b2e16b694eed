"""Serve: find or make a model's export, and run the HTTP server on it."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from foveola.errors import MissingExtra, ModelError, OutputError, require
from foveola.exports import onnx, web
from foveola.exports.allowlist import UnsafeOnnx, inspect_onnx
from foveola.files import writing
from foveola.models.model_file import read_metadata
from foveola.progress import console
from foveola.runs import Run
from foveola.serving.settings import Settings
from foveola.workflow.open import is_web_export, model_path


def serve(model: str | Path, settings: Settings, *, announce: Callable[[str], None], verbose: bool = True) -> None:
    """Serve a model until SIGINT or SIGTERM; requests received by then are answered.

    Parameters
    ----------
    model : an exported .onnx file, the folder of a web export, or a run directory, whose export is used, and made first
        if it is not current
    settings : of the server
    announce : called with the server's URL when it is ready
    verbose : report on standard error when an export is made

    Raises
    ------
    UserError
        If model, address or folder cannot be used.
    ExportError
        If the run's export does not give its model's logits.
    """
    path = Path(model)
    if settings.collect is not None:
        check_collect(settings.collect)
    if is_web_export(path):
        path /= web.MODEL
    elif path.is_dir():
        path = find_export(path, verbose=verbose)
    elif path.suffix != onnx.SUFFIX:
        raise ModelError(
            f"{path} is neither a run directory nor an exported {onnx.SUFFIX} file. Give one of these; "
            f"`foveola export` writes the second from the first."
        )
    from foveola.serving.server import serve as run_server

    run_server(path, settings, announce=announce)


def name_of(model: Path) -> str:
    """The model's name in URLs: its run's name, or its file's."""
    path = model.resolve()
    if path.is_file():
        path = path.parent.parent if path.parent.name == "exports" else path.with_suffix("")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-") or "model"


def check_collect(folder: Path) -> None:
    """Make the folder for collected images, if there is none.

    Raises
    ------
    OutputError
        If images cannot be written there.
    """
    with writing(folder, "Choose another folder with --collect."):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written: permission denied. Choose another folder with --collect.")


def find_export(run: Path, *, verbose: bool = True) -> Path:
    """The ONNX export of a run's current model; it is made, and compared with the model, if there is none.

    Raises
    ------
    ModelError
        If the folder is not a run, or its training is not complete.
    MissingExtra
        If an export must be made, and PyTorch is not installed.
    """
    source = model_path(run)
    path = Run.open(run).path / "exports" / f"model{onnx.SUFFIX}"
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _source_of(path) == digest:
        return path
    try:
        if read_metadata(source).layers is not None:
            require("torch", "train")
    except MissingExtra as missing:
        raise MissingExtra(
            f"{run} has no export of its current model, and making one needs PyTorch. Run `foveola export {run}` "
            f"where it was trained, and serve the file that it writes; or install PyTorch here. {missing}"
        ) from None
    from foveola.workflow.export import export

    console(verbose).print(f"{run} has no export of its current model; making one.", soft_wrap=True)
    return export(run, verbose=verbose).path


def _source_of(export: Path) -> str | None:
    """The SHA-256 of the model file that an export names as its source; the server opens and verifies it later."""
    try:
        return inspect_onnx(export.read_bytes()).properties.get(onnx.SOURCE_KEY)
    except (OSError, UnsafeOnnx):
        return None
