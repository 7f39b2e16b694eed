"""A training callback that writes progress as lines of JSON, for a program that has started the training.

foveola train FOLDER --callback foveola.teaching.announce:Announce

Each line of standard output that begins with a brace is one of these documents:

{"event": "start", "steps": 300, "epochs": 10}
{"event": "step", "step": 42}                                       a few times a second
{"event": "epoch", "epoch": 1, "loss": 0.9, "accuracy": 0.6, "val_loss": 0.8, "val_accuracy": 0.7, "seconds": 1.2}
{"event": "end"}                                                    of the training; measuring follows

A metric that is not known is null, as before the first step.
"""

import json
import math
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from foveola.training.callbacks import Callback

if TYPE_CHECKING:
    from foveola.training.loop import Fit

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")
_SECONDS_BETWEEN = 0.2


class Announce(Callback):
    """Write the progress of a training to standard output.

    Examples
    --------
    >>> callback = Announce()
    >>> callback.has_state
    False
    """

    def __init__(self) -> None:
        self._next_step = -math.inf

    def on_fit_start(self, fit: "Fit") -> None:
        _write("start", steps=fit.steps, epochs=fit.epochs)

    def on_step_end(self, fit: "Fit") -> None:
        if (now := time.monotonic()) >= self._next_step:
            self._next_step = now + _SECONDS_BETWEEN
            _write("step", step=fit.step)

    def on_epoch_end(self, fit: "Fit") -> None:
        _write("epoch", epoch=fit.epoch, **{name: _finite(fit.metrics.get(name)) for name in METRICS})

    def on_fit_end(self, fit: "Fit") -> None:
        _write("end")


def _finite(value: float | None) -> float | None:
    """The value, or None for what JSON does not know."""
    return None if value is None or not math.isfinite(value) else float(value)


def _write(event: str, **fields: float | None) -> None:
    # Whoever listened may have ended; the training is then ended by other means
    with suppress(OSError):
        print(json.dumps({"event": event, **fields}), file=sys.stdout, flush=True)
