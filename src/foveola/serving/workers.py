"""Worker processes: how many are ready, and how long the replacement of one that died waits."""

import os
from dataclasses import dataclass
from pathlib import Path

_STARTED, _READY = b"s", b"r"
_MOST_SECONDS = 30.0


@dataclass(frozen=True)
class Workers:
    """The worker processes of a server; they know each other by a shared folder.

    Parameters
    ----------
    folder : gets a file for each worker that is ready, named after its process, and a history of starts
    size : how many workers there should be
    """

    folder: Path
    size: int

    def start(self) -> float:
        """Note that a worker starts; seconds that it should wait.

        A worker that dies is replaced at once. If the replacement dies before it is ready, the next one waits 1 s, the
        one after that 2 s, and so on.
        """
        history = self._history.read_bytes() if self._history.exists() else b""
        self._note(_STARTED)
        failed = len(history) - len(history.rstrip(_STARTED))
        if history.count(_STARTED) < self.size or not failed:
            return 0.0
        return min(2.0 ** (failed - 1), _MOST_SECONDS)

    def ready(self) -> None:
        """Note that this process is ready."""
        self._note(_READY)
        (self.folder / f"{os.getpid()}.ready").touch()

    def count_ready(self) -> int:
        """How many workers are ready."""
        return sum(is_running(int(note.stem)) for note in self.folder.glob("*.ready"))

    @property
    def _history(self) -> Path:
        return self.folder / "history"

    def _note(self, event: bytes) -> None:
        with self._history.open("ab") as file:  # appended in one write, whoever else appends
            file.write(event)


def is_running(process: int) -> bool:
    """Whether a process with this number exists. Not for Windows, where the question would interrupt it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
