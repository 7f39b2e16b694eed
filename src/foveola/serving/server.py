"""The server: Granian runs the application in worker processes until a signal."""

import contextlib
import ctypes
import errno
import itertools
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels
from pydantic_core import to_json

from foveola.errors import Failure, FoveolaError, UserError
from foveola.exports import onnx
from foveola.serving.settings import Settings
from foveola.serving.workers import Workers

# Connections that the system queues before the server accepts them
_BACKLOG = 2048
# For the head of a request; Granian answers one that is much longer with 431
_MOST_HEAD_BYTES = 64 * 2**10
# Between attempts to open a model, at most
_MOST_SECONDS = 30.0
_M_MMAP_THRESHOLD = -3  # of malloc.h


def serve(model_path: Path, settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve an export until SIGINT or SIGTERM; requests that were received are answered, then it returns.

    Parameters
    ----------
    model_path : an export; it is read once, so that replaced workers have the same model
    announce : called with the server's URL when it is ready

    Raises
    ------
    UserError
        If the address is not available, or the export cannot be used.
    Failure
        If the application cannot start, or the server ends without a signal.
    """
    model = onnx.read(model_path)
    with _shared_folder(settings.workers) as workers:
        run(partial(_application, model, model_path, settings, workers), settings, announce=announce)


def run(application: Callable[[int, Connection], Any], settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Run an application in worker processes until SIGINT or SIGTERM.

    Parameters
    ----------
    application : called in each worker process with the port and the place for the reports of `start_application`;
        returns the ASGI application
    announce : called with the server's URL when it is ready

    Raises
    ------
    UserError
        If the address is not available, or what the application reports.
    Failure
        If the application cannot start, or the server ends without a signal.
    """
    if sys.platform == "win32" and settings.workers > 1:
        raise UserError("On Windows, the server runs in a single worker process (Granian). Leave out --workers.")
    address, port = available_address(settings.host, settings.port)
    received, reports = multiprocessing.Pipe(duplex=False)
    granian = Granian(
        "foveola",
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        runtime_mode=RuntimeModes.mt,
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=settings.max_connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(1000 * settings.receive_seconds), max_buffer_size=_MOST_HEAD_BYTES
        ),
        respawn_failed_workers=False,  # until all are ready
        workers_kill_timeout=settings.shutdown_seconds,
        log_level=LogLevels.warning,
        log_dictconfig=log_configuration(settings.log_requests),
    )
    # Granian ends all workers if one dies within seconds of being replaced. Healthy ones shall go on; `Workers`
    # delays replacements instead
    granian.respawned_wrks = _Forgetful()
    starter = _Starter(received, granian, settings, announce)
    starter.start()
    try:
        granian.serve(target_loader=partial(application, port, reports), wrap_loader=False)
    except SystemExit:
        if not granian.interrupt_signal:
            raise Failure("The server ended; the lines above say why.") from None
    if starter.failure is not None:
        raise starter.failure


class _Forgetful(dict[int, float]):
    """A dictionary that stays empty."""

    def __setitem__(self, key: int, value: float) -> None:
        pass


def available_address(host: str, port: int) -> tuple[str, int]:
    """The IP address of a host, and the port, or a free one if it is 0.

    Raises
    ------
    UserError
        If nothing can listen there.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost is 127.0.0.1 to most
        with socket.create_server(place[:2], family=family) as listener:
            address, free, *_ = listener.getsockname()
            return address, free
    except (OSError, UnicodeError) as error:
        in_use = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "another program is using it" if in_use else getattr(error, "strerror", None) or error
        raise UserError(
            f"Cannot listen on port {port} of {host}: {why}. "
            f"Choose another with --port (0 for any free one), or another --host."
        ) from None


@contextlib.contextmanager
def _shared_folder(size: int) -> Iterator[Workers | None]:
    """Several workers share their metrics, and know which of them are ready, by a folder; a single one needs none."""
    if size == 1:
        yield None
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="foveola-workers-")
    except OSError as error:
        raise UserError(
            f"Several workers need a temporary folder, which cannot be made: {error.strerror}. Set TMPDIR to a folder "
            f"that can be written, or leave out --workers."
        ) from None
    with folder:
        metrics = Path(folder.name, "metrics")
        metrics.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)  # read when the workers import prometheus_client
        try:
            yield Workers(Path(folder.name), size)
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def _application(
    model: bytes, model_path: Path, settings: Settings, workers: Workers | None, port: int, reports: Connection
) -> Any:
    """The ASGI application, made in a worker process."""
    from foveola.serving.app import create_app

    def ready() -> None:
        if workers is not None:
            workers.ready()
        reports.send(None)

    def make() -> Any:
        return create_app(onnx.open_bytes(model, model_path, threads=1), settings, port, workers, ready)

    return start_application(make, reports, workers)


def start_application(make: Callable[[], Any], reports: Connection, workers: Workers | None = None) -> Any:
    """The ASGI application that `make` returns, in a worker process; an error is reported, and it is tried again."""
    # Until Granian handles signals in this process: Ctrl+C is for the process that supervises it, which sends SIGTERM
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _return_memory()
    if workers is not None:
        time.sleep(workers.start())
    for attempt in itertools.count():
        try:
            return make()
        except Exception as error:
            expected = isinstance(error, UserError)
            # Ends the server while it starts; later, other workers go on
            reports.send(error if expected else Failure(f"The server cannot start: {error!r}."))
            time.sleep(min(2.0**attempt, _MOST_SECONDS))
            logging.getLogger(__name__).error("A worker cannot start: %s", error, exc_info=not expected)
    raise AssertionError("unreachable")


def _return_memory() -> None:
    """Have the C library return the memory of large requests to the system (mallopt(3)), instead of keeping it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every library has it
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**18)


@dataclass
class _Starter:
    """Announces the server when all workers are ready, or ends it if one of them cannot use the model.

    Parameters
    ----------
    reports : from each worker: None if it is ready, or why it cannot be
    granian : the server
    """

    reports: Connection
    granian: Any
    settings: Settings
    announce: Callable[[str], None]
    failure: FoveolaError | None = None

    def start(self) -> None:
        """Begin to wait, in a thread."""
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        for _ in range(self.settings.workers):
            self.failure = self.reports.recv()
            if self.failure is not None:
                self.granian.signal_handler_interrupt()
                return
        self.granian.respawn_failed_workers = True
        while not self._is_listening():  # the last moment of a worker's start
            time.sleep(0.01)
        address = self.granian.bind_addr
        host = f"[{address}]" if ":" in address else address
        self.announce(f"http://{host}:{self.granian.bind_port}")

    def _is_listening(self) -> bool:
        address = self.granian.bind_addr
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  # asked, not bound
        try:
            socket.create_connection((host, self.granian.bind_port), timeout=5).close()
        except OSError:
            return False
        return True


def log_configuration(requests: bool) -> dict[str, Any]:
    """For logging.config: every message as a line of JSON on standard error; requests only if they shall be logged."""
    handler = {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
    return {
        "formatters": {"json": {"()": f"{__name__}.JsonLines"}},
        "handlers": {"standard error": handler},
        "root": {"level": "WARNING", "handlers": ["standard error"]},
        "loggers": {"foveola.serving.requests": {"level": "INFO" if requests else "WARNING"}},
    }


class JsonLines(logging.Formatter):
    """Log messages as JSON documents; those of requests are documents already."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if message.startswith("{"):
            return message
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document = {"time": time, "level": record.levelname.lower(), "message": message.strip()}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return to_json(document).decode()
