"""Signals that ask a training to end: Ctrl+C, `kill`, `timeout`, a container's or Slurm's stop, a closed terminal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has no SIGHUP, and only Windows has SIGBREAK


class StopSignals:
    """Inside the block, a signal raises; while `deferred`, the first one is only noted, so that a step can be finished.

    SIGINT raises KeyboardInterrupt, the others SystemExit with the code that shells give: 128 and the signal's number.
    A signal that is ignored, as under `nohup`, stays ignored. Outside the main thread, which Python does not let
    handle signals, nothing changes.

    Parameters
    ----------
    patient : whether a second signal while deferred is ignored, too: several processes agree on the step after which
        they end, and Ctrl+C may reach each of them twice, from the terminal and from torchrun
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient = patient
        self.noted: int | None = None
        self._deferring = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @contextmanager
    def deferred(self) -> Iterator[Self]:
        """Note the first signal instead of raising; a second one raises at once, unless `patient`."""
        self._deferring = True
        try:
            yield self
        finally:
            self._deferring = False

    def end(self) -> None:
        """Raise if a signal was noted.

        Raises
        ------
        KeyboardInterrupt
            For SIGINT.
        SystemExit
            For the others, with the code 128 + number.
        """
        if self.noted is not None:
            _raise(self.noted)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferring and (self.noted is None or self.patient):
            self.noted = self.noted or number
        else:
            _raise(number)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
