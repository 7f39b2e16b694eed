"""The server of `foveola teach`: the application in one worker process, since it writes into the project."""

from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from foveola.serving.server import run, start_application
from foveola.serving.settings import Settings


def teach(folder: Path, settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve the page of a project until SIGINT or SIGTERM; a job that runs ends with it.

    Raises
    ------
    UserError
        If the folder cannot be used, or the address is not available.
    Failure
        If the application cannot start, or the server ends without a signal.
    """
    run(partial(_application, folder, settings), settings, announce=announce)


def _application(folder: Path, settings: Settings, port: int, reports: Connection) -> Any:
    """The ASGI application, made in the worker process."""
    from foveola.teaching.app import create_app, open_studio

    return start_application(
        lambda: create_app(open_studio(folder, settings), port, lambda: reports.send(None)), reports
    )
