"""Signals that end the server, told before it waits for its connections: streams of events have no end of their own."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM")


def call_at_end(callback: Callable[[], object]) -> Callable[[], None]:
    """Have a function called at SIGINT and SIGTERM, too, besides what handles them already.

    Where nothing handles them, or outside the main thread, which Python does not let handle signals, nothing changes.

    Parameters
    ----------
    callback : called in the main thread between two instructions, so that it should only set something

    Returns
    -------
    What takes that back
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                before[number] = handler

    def handle(number: int, frame: FrameType | None) -> None:
        callback()
        before[number](number, frame)

    for number in before:
        signal.signal(number, handle)
        if hasattr(signal, "siginterrupt"):
            signal.siginterrupt(number, False)  # as event loops set it

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore
