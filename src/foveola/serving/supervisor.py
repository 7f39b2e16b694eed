"""Several server processes on one port: started, watched, started again, told to end."""

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Link
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from foveola.errors import Failure, UserError
from foveola.serving.listening import refuse_newcomers
from foveola.serving.logs import write_logs
from foveola.serving.process import ENDING, Application, Server
from foveola.serving.settings import Settings

MakeApplication = Callable[[Path, Settings], Application]

# How often signals are looked for
TICK_SECONDS = 0.1
# What a worker may take beyond `shutdown_seconds`
LEAVE_SECONDS = 1.5
READY = b"ready"


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    link: Link  # brings READY, or why it cannot be; ends with the process
    ready: bool = False


def supervise(
    model_path: Path,
    settings: Settings,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    make: MakeApplication,
) -> None:
    """Run `settings.workers` processes until SIGINT or SIGTERM, pass that on, wait for them and return.

    A worker that dies is started again.

    Parameters
    ----------
    listener : the socket that all accept from; it is closed at the end
    on_ready : called when all workers can answer
    make : the application, importable by name; called in each worker

    Raises
    ------
    UserError
        If a worker cannot use the export.
    Failure
        If a worker ends before it is ready, or does not end in time.
    SystemExit
        At a second signal, with 128 + its number.
    """
    if sys.platform == "win32":
        raise UserError("Windows cannot share a port among workers. Leave out --workers.")

    def start() -> _Worker:
        return _start(model_path, settings, listener, make)

    signals: list[int] = []
    with _metrics_folder(), _noting(signals):
        workers = [start() for _ in range(settings.workers)]
        try:
            _watch(workers, start, on_ready, signals)
        finally:
            refuse_newcomers(listener)
            listener.close()
            killed = _end(workers, settings.shutdown_seconds + LEAVE_SECONDS, signals)
    if len(signals) > 1:
        raise SystemExit(128 + signals[-1])
    if killed:
        raise Failure(f"{killed} of {settings.workers} workers did not end in time and were killed.")


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """Where the workers count together; prometheus_client looks for the variable when it is imported."""
    with tempfile.TemporaryDirectory(prefix="foveola-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


@contextmanager
def _noting(signals: list[int]) -> Iterator[None]:
    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    before = {number: signal.signal(number, note) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(model_path: Path, settings: Settings, listener: socket.socket, make: MakeApplication) -> _Worker:
    # A fresh interpreter, because threads and locks of libraries do not survive a fork
    context = multiprocessing.get_context("spawn")
    link, far_end = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(model_path, settings, listener, make, far_end), name="worker")
    # A terminal sends Ctrl+C to the workers as well; they wait for the supervisor's word from their first moment on
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    far_end.close()
    return _Worker(process, link)


def _watch(
    workers: list[_Worker], start: Callable[[], _Worker], on_ready: Callable[[], None], signals: list[int]
) -> None:
    """Until a signal."""
    announced = False
    while not signals:
        for link in wait([worker.link for worker in workers], TICK_SECONDS):
            place, worker = next((place, worker) for place, worker in enumerate(workers) if worker.link is link)
            word = _word(worker.link)
            if word == READY:
                worker.ready = True
            elif word:
                raise UserError(word.decode())
            elif worker.ready:
                _bury(worker)
                workers[place] = start()
            else:
                raise Failure("A worker ended before it was ready; the lines above say why.")
        if not announced and all(worker.ready for worker in workers):
            announced = True
            on_ready()


def _word(link: Link) -> bytes:
    """What a worker says; nothing, where it has ended."""
    try:
        return link.recv_bytes()
    except (EOFError, OSError):
        return b""


def _bury(worker: _Worker) -> None:
    from prometheus_client import multiprocess

    worker.process.join()
    worker.link.close()
    multiprocess.mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]


def _end(workers: list[_Worker], seconds: float, signals: list[int]) -> int:
    """Tell all workers to end and wait for them; how many had to be killed. A second signal kills them at once."""
    deadline = time.monotonic() + seconds
    alive = [worker.process for worker in workers]
    for process in alive:
        process.terminate()
    while alive and time.monotonic() < deadline and len(signals) < 2:
        wait([process.sentinel for process in alive], TICK_SECONDS)
        alive = [process for process in alive if process.is_alive()]
    for process in alive:
        process.kill()
        process.join()
    return len(alive)


def _work(model_path: Path, settings: Settings, listener: socket.socket, make: MakeApplication, link: Link) -> None:
    """A worker's process."""
    try:
        application = make(model_path, settings)
    except UserError as error:
        link.send_bytes(str(error).encode())
        return

    def ready() -> None:
        supervisor = multiprocessing.parent_process()
        assert supervisor is not None
        loop = asyncio.get_running_loop()
        loop.add_reader(supervisor.sentinel, orphaned, loop, supervisor.sentinel)
        link.send_bytes(READY)

    def orphaned(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
        loop.remove_reader(sentinel)
        server.end()

    write_logs(requests=settings.log_requests)
    server = Server(application, settings, on_ready=ready, signals=(signal.SIGTERM,), shares_port=True)
    try:
        server.run([listener])
    except Failure:  # the log has said why
        sys.exit(Failure.exit_code)
