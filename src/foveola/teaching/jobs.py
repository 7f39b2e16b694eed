"""One job at a time, each a series of `foveola` commands in processes of their own: progress, stop, end.

A process ends with the server, however that ends (`foveola.teaching.attached`).
"""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from foveola.errors import Failure, FoveolaError
from foveola.teaching.attached import GRACE_SECONDS

Kind = Literal["training", "export", "audit", "report"]
State = Literal["running", "done", "failed", "stopped"]

MAX_EPOCHS = 200
"""Epochs that a job's history has at most: of a longer training, every second, fourth, … one."""

# Such as "images: 1,000 of 2,527" and "predicting labels: network 2 of 9", the progress of commands without a terminal
_COUNTED = re.compile(r"[^:]+: (?:network )?(?P<done>[\d,]+) of (?P<total>[\d,]+)")
_MESSAGE = "foveola: "
_KILLED = -9  # by SIGKILL, of which Windows has no name
_MAX_ERROR = 2_000

log = logging.getLogger(__name__)


class Epoch(BaseModel):
    """The metrics of an epoch; None where one is not known. Epoch 0 is before the first step."""

    epoch: int
    loss: float | None = None
    accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    seconds: float | None = None


class Job(BaseModel):
    """What runs, or ran last: how far it is, and how it ended.

    `message` says what is being done, `done` of `total` how much of that; `error` why the job failed; `result` is what
    its kind gives.
    """

    kind: Kind
    state: State = "running"
    message: str = ""
    done: int | None = None
    total: int | None = None
    history: list[Epoch] = []
    seconds: float = 0.0
    error: str | None = None
    result: Any = None


class JobRunning(FoveolaError):
    """A job is running already."""


class JobStopped(Exception):
    """The running job shall end."""


class Progress(Protocol):
    """What the work of a job calls."""

    def say(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is being done, and how much of it is done."""
        ...

    def run(self, module: str, *arguments: str) -> None:
        """Run a Python module with these arguments as a process, and wait for it; its messages become progress.

        Raises
        ------
        Failure
            If it fails; the message is the command's.
        JobStopped
            If the job shall end.
        """
        ...


class Jobs:
    """Runs one job at a time in a thread.

    Parameters
    ----------
    on_change : called in that thread whenever the job's document has changed

    Examples
    --------
    >>> jobs = Jobs()
    >>> jobs.start("export", lambda progress: {"path": "model.onnx"}).state
    'running'
    >>> jobs.wait(), jobs.job.state, jobs.job.result
    (True, 'done', {'path': 'model.onnx'})
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    @property
    def job(self) -> Job | None:
        """The job that runs, or ran last."""
        running = self._running
        return None if running is None else running.document()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        running = self._running
        return running is not None and not running.ended.is_set()

    def start(self, kind: Kind, work: Callable[[Progress], Any]) -> Job:
        """Start a job.

        Parameters
        ----------
        work : called in a thread; what it returns is the job's result. A FoveolaError that it raises says in plain
            words why the job failed

        Raises
        ------
        JobRunning
            If one is running already, or the server is shutting down.
        """
        with self._lock:
            if self._closed:
                raise JobRunning("The server is shutting down.")
            if self.busy:
                running = self.job
                what = _WITH_ARTICLE[kind if running is None else running.kind]
                raise JobRunning(f"{what} is running. Wait for its end, or stop it.")
            self._running = _Running(kind, work, self.on_change)
            self._running.thread.start()
            return self._running.document()

    def stop(self) -> Job | None:
        """Have the running job end, without waiting for that; its document."""
        running = self._running
        if running is not None:
            running.stop()
        return self.job

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until no job is running; whether that is so."""
        running = self._running
        return running is None or running.ended.wait(seconds)

    def close(self) -> None:
        """End the running job, and accept no other one."""
        with self._lock:
            self._closed = True
        self.stop()
        self.wait(2 * GRACE_SECONDS)


_WITH_ARTICLE = {
    "training": "A training",
    "export": "An export",
    "audit": "A check of the images",
    "report": "A report",
}


class _Running:
    """A job at work."""

    def __init__(self, kind: Kind, work: Callable[[Progress], Any], on_change: Callable[[], None]) -> None:
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, args=(work,), name=kind, daemon=True)
        self._on_change = on_change
        self._lock = threading.RLock()
        self._job = Job(kind=kind, message="Starting")
        self._started = time.monotonic()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._steps: int | None = None
        self._every = 1

    def document(self) -> Job:
        with self._lock:
            if not self.ended.is_set():
                self._job.seconds = round(time.monotonic() - self._started, 1)
            return self._job.model_copy(update={"history": list(self._job.history)})

    def say(self, message: str, done: int | None = None, total: int | None = None) -> None:
        self._change(message=message, done=done, total=total)

    def run(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "foveola.teaching.attached", module, *arguments]
        with self._lock:
            self._check()
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, encoding="utf-8", errors="replace", env=os.environ | {"PYTHONIOENCODING": "utf-8"},
                start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None, "they are pipes"
        messages: list[str] = []
        reader = threading.Thread(target=self._read_messages, args=(process.stderr, messages), daemon=True)
        reader.start()
        try:
            for line in process.stdout:
                self._read_event(line)
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            with self._lock:
                self._process = None
            reader.join(GRACE_SECONDS)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # nobody reads what is left in standard input's buffer
                        pipe.close()
        self._check()
        if code:
            raise Failure(_reason(messages, code))

    def stop(self) -> None:
        with self._lock:
            if self.ended.is_set() or self._stopping.is_set():
                return
            self._stopping.set()
            if self._process is not None:
                threading.Thread(target=_end, args=(self._process,), daemon=True).start()
        self.say("Stopping")

    def _check(self) -> None:
        if self._stopping.is_set():
            raise JobStopped

    def _work(self, work: Callable[[Progress], Any]) -> None:
        end: dict[str, Any]
        try:
            end = {"state": "done", "message": "", "result": work(self)}
        except JobStopped:
            end = {"state": "stopped", "message": "Stopped"}
        except FoveolaError as error:
            end = {"state": "failed", "message": "", "error": str(error)}
        except OSError as error:
            end = {"state": "failed", "message": "", "error": f"The operating system refused: {error}"}
        except Exception:
            log.exception("A job failed.")
            end = {"state": "failed", "message": "", "error": "The server failed; its log has the cause. Try again."}
        with self._lock:
            self._job.seconds = round(time.monotonic() - self._started, 1)
            self.ended.set()
            self._change(done=None, total=None, **end)

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self._job = self._job.model_copy(update=fields)
        self._on_change()

    def _read_messages(self, lines: Iterator[str], kept: list[str]) -> None:
        """Keep what the command writes to standard error; counts of images become progress."""
        for line in lines:
            kept.append(line.rstrip())
            del kept[:-200]
            counted = _COUNTED.fullmatch(line.strip())
            if counted is not None and not self._stopping.is_set():
                done, total = (int(counted[name].replace(",", "")) for name in ("done", "total"))
                self._change(done=done, total=total)

    def _read_event(self, line: str) -> None:
        """Take a line of `foveola.teaching.announce`; any other one is ignored."""
        try:
            event = json.loads(line) if line.startswith("{") else None
            match event:
                case {"event": "start", "steps": int(steps)}:
                    self._steps = steps
                    self.say("Training", 0, steps)
                case {"event": "step", "step": int(step)}:
                    self._change(done=step, total=self._steps)
                case {"event": "epoch"}:
                    self._add_epoch(Epoch.model_validate(event))
                case {"event": "end"}:
                    self.say("Testing with images that it was not trained on")
        except ValueError:
            log.warning("A line of progress cannot be read: %.200s", line)

    def _add_epoch(self, epoch: Epoch) -> None:
        """Add an epoch to the history; a history that has become too long keeps every second of its epochs."""
        if epoch.epoch % self._every:
            return
        history = [*self._job.history, epoch]
        if len(history) > MAX_EPOCHS:
            self._every *= 2
            history = [row for row in history if row.epoch % self._every == 0]
        self._change(history=history)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, and later kill it, with all that it has started."""
    if sys.platform == "win32" and process.stdin is not None:  # where `terminate` does not ask, but `attached` does
        process.stdin.close()
    else:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with contextlib.suppress(OSError):  # all have ended
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _reason(messages: Sequence[str], code: int) -> str:
    """Why a command failed: its own message, which ends what it writes."""
    begins = [number for number, line in enumerate(messages) if line.startswith(_MESSAGE)]
    if begins:
        return "\n".join(messages[begins[-1] :]).removeprefix(_MESSAGE).strip()[:_MAX_ERROR]
    if code == _KILLED:
        return "The system ended the command, probably because memory ran out. Use fewer or smaller images."
    log.error("A command ended with code %d:\n%s", code, "\n".join(messages))
    return f"The command ended with code {code}; the server's log has what it wrote. Try again."
