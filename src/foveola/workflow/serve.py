"""A model served over HTTP: its export found or made, the settings checked, the server run."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from foveola.errors import MissingExtra, ModelError, OutputError, require
from foveola.export import onnx
from foveola.export.contents import Refused, inspect
from foveola.run import Run
from foveola.serving.settings import Settings
from foveola.workflow.opening import model_path
from foveola.workflow.progress import console


def serve(model: str | Path, settings: Settings, *, announce: Callable[[str], None], verbose: bool = True) -> None:
    """Serve a model until SIGINT or SIGTERM; what was accepted by then is answered.

    Parameters
    ----------
    model : an exported .onnx file, or a run directory, whose export is used; without a current one it is made first
    settings : of the server
    announce : told the server's URL, once it is ready
    verbose : report the making of an export on standard error

    Raises
    ------
    UserError
        If model, address or folder cannot be used.
    ExportError
        If the run's export does not answer as its model does.
    """
    path = Path(model)
    if settings.collect is not None:
        check_collect(settings.collect)
    if path.is_dir():
        path = find_export(path, verbose=verbose)
    elif path.suffix != onnx.SUFFIX:
        raise ModelError(
            f"{path} is neither a run directory nor an exported {onnx.SUFFIX} file. Give one of these; "
            f"`foveola export` writes the second from the first."
        )
    from foveola.serving.server import serve as run_server

    run_server(path, settings, announce=announce)


def name_of(model: Path) -> str:
    """What a model is called in URLs: its run's name, or its file's."""
    path = model.resolve()
    if path.is_file():
        path = path.parent.parent if path.parent.name == "exports" else path.with_suffix("")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-") or "model"


def check_collect(folder: Path) -> None:
    """Make the folder for collected pictures, where there is none.

    Raises
    ------
    OutputError
        If pictures cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be used to collect pictures: {error}. Choose another --collect.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written to, so that it collects no pictures. Choose another --collect.")


def find_export(run: Path, *, verbose: bool = True) -> Path:
    """The ONNX export of a run's present model; it is made, and compared with the model, where there is none.

    Raises
    ------
    ModelError
        If the folder is no run, or its training has not ended.
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
        require("torch", "train")
    except MissingExtra as missing:
        raise MissingExtra(
            f"{run} has no export of its present model, and to make one needs PyTorch. Run `foveola export {run}` "
            f"where it was trained and serve the file that this writes. Or install PyTorch here. {missing}"
        ) from None
    from foveola.workflow.export import export

    console(verbose).print(f"{run} has no export of its present model; making one.", highlight=False, soft_wrap=True)
    return export(run, verbose=verbose).path


def _source_of(export: Path) -> str | None:
    """The SHA-256 of the model file that an export says it was made from; the server opens and checks it in full."""
    try:
        return inspect(export.read_bytes()).metadata.get(onnx.SOURCE_KEY)
    except (OSError, Refused):
        return None
