"""Serve: find or make a model's export, and run the HTTP server on it."""

import hashlib
import ipaddress
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from foveola.errors import MissingExtra, ModelError, OutputError, UserError, require
from foveola.exports import onnx, web
from foveola.exports.allowlist import UnsafeOnnx, inspect_onnx
from foveola.files import as_path, writing
from foveola.models.metadata import first_problem
from foveola.models.model_file import read_metadata
from foveola.progress import console
from foveola.runs import Run, where_a_run_may_be
from foveola.serving.background import BackgroundServer
from foveola.serving.settings import Settings
from foveola.workflow.open import is_web_export, model_path


def serve(
    model: str | Path | Run,
    settings: Settings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    background: bool = False,
    announce: Callable[[str], None] | None = None,
    verbose: bool = True,
) -> BackgroundServer | None:
    """Serve a model over HTTP: until SIGINT (Ctrl+C) or SIGTERM, or in the background, for notebooks.

    Requests received by then are answered.

    Parameters
    ----------
    model : an exported .onnx file, the folder of a web export, or a run, whose export is used, and made first if it is
        not current
    settings : every setting of the server, `foveola.serving.settings.Settings`, instead of host, port and api_key
    host : address to listen on; "0.0.0.0" for all
    port : 0 takes a free one
    api_key : require this key on every request
    background : start the server in a process of its own, and return when it is ready; it ends with this process
    announce : called with the server's URL when it is ready; by default the URL is printed on standard error
    verbose : report on standard error when an export is made

    Returns
    -------
    In the background the server, with `url` and `stop()`; it is a context manager, too. Otherwise None.

    Raises
    ------
    UserError
        If model, address or folder cannot be used.
    ExportError
        If the run's export does not give its model's logits.

    Examples
    --------
    >>> with foveola.serve(run, port=0, background=True) as server:      # doctest: +SKIP
    ...     print(server.url)
    """
    path = as_path(model, "The model")
    screen = console(verbose)
    if settings is None:
        settings = make_settings(host=host, port=port, api_key=api_key, name=name_of(path), log_requests=False)
        if (warning := warning_without_key(settings, "use the model")) is not None:
            screen.print(warning, soft_wrap=True)
    if settings.collect is not None:
        check_collect(settings.collect)
    if is_web_export(path):
        path /= web.MODEL
    elif path.is_dir():
        path = find_export(path, verbose=verbose)
    elif not path.exists():
        raise ModelError(f"There is no run or exported model {path}. {where_a_run_may_be(path)}")
    elif path.suffix != onnx.SUFFIX:
        raise ModelError(
            f"{path} is neither a run directory nor an exported {onnx.SUFFIX} file. Give one of these; "
            f"`foveola export` writes the second from the first."
        )
    if background:
        return BackgroundServer(path, settings)
    if threading.current_thread() is not threading.main_thread():
        raise UserError("The server runs in the main thread, which receives signals. Start it with background=True.")
    from foveola.serving.server import serve as run_server

    text = f"Serving {settings.name} at {{}} (interrupt to stop)"
    with signals_kept():
        run_server(path, settings, announce=announce or (lambda url: screen.print(text.format(url), soft_wrap=True)))
    return None


def make_settings(**given: object) -> Settings:
    """The settings with these values.

    Raises
    ------
    UserError
        If one is impossible.
    """
    try:
        return Settings.model_validate(given)
    except ValidationError as invalid:
        raise UserError(f"The server cannot be set up so: {first_problem(invalid)}.") from None


def warning_without_key(settings: Settings, others_can: str) -> str | None:
    """What is to be said if other machines can reach a server without a key; None if they cannot.

    Parameters
    ----------
    others_can : such as "use the model"
    """
    if settings.api_key is not None or is_loopback(settings.host):
        return None
    return (
        f"Warning: anyone who can reach {settings.host} can {others_can}, because there is no API key. Give one "
        f"(commands read FOVEOLA_API_KEY), or listen on 127.0.0.1."
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def signals_kept() -> Iterator[None]:
    """Give signals back to those who handled them before the block: the server takes them over."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
