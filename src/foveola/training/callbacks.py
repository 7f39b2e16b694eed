"""Callbacks: what happens beside the training itself, each a small class.

A user's own is a subclass with the methods it needs:

    class StopAt(Callback):
        def __init__(self, accuracy):
            self.accuracy = accuracy

        def on_epoch_end(self, fit):
            fit.stop = fit.metrics["val_accuracy"] >= self.accuracy

They are called in the order in which they stand, so that one sees what an earlier one put into `fit.metrics`.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveola.files import write_atomically
from foveola.predictions import Predictions

if TYPE_CHECKING:
    from torch import Tensor

    from foveola.training.loop import Fit

Metrics = dict[str, float]


class Callback:
    """Called by the training loop; every method may be left out."""

    def on_fit_start(self, fit: "Fit") -> None:
        """Before the first step."""

    def on_epoch_start(self, fit: "Fit") -> None:
        """Before the first step of an epoch."""

    def on_step_end(self, fit: "Fit") -> None:
        """After the optimizer has changed the weights."""

    def on_epoch_end(self, fit: "Fit") -> None:
        """After validation; `fit.metrics` holds the epoch's figures and takes new ones."""

    def on_fit_end(self, fit: "Fit") -> None:
        """After the last epoch, also after an early stop."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback must remember to go on after an interruption, as JSON values or tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""


class EpochMetric(Callback):
    """Put a figure of the validation predictions into each epoch's metrics."""

    def __init__(self, name: str, metric: Callable[[Predictions], float]) -> None:
        self.name = name
        self.metric = metric

    def on_epoch_end(self, fit: "Fit") -> None:
        fit.metrics[self.name] = self.metric(fit.validation_predictions)


class LearningRate(Callback):
    """Put the learning rate of the epoch's last step into its metrics."""

    def on_epoch_end(self, fit: "Fit") -> None:
        fit.metrics["learning_rate"] = fit.learning_rate


class Duration(Callback):
    """Put the seconds since the start of training into each epoch's metrics, from the monotonic clock."""

    def __init__(self) -> None:
        self.before = 0.0
        self.start = time.perf_counter()

    def on_fit_start(self, fit: "Fit") -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, fit: "Fit") -> None:
        fit.metrics["seconds"] = self.before + time.perf_counter() - self.start

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before + time.perf_counter() - self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.before = state["before"]


class History(Callback):
    """Keep every epoch's metrics: a list of rows, the first one `epoch`, `step`."""

    def __init__(self) -> None:
        self.rows: list[Metrics] = []

    def on_epoch_end(self, fit: "Fit") -> None:
        self.rows.append({"epoch": fit.epoch, "step": fit.step, **fit.metrics})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows[:] = state["rows"]


class CsvLog(Callback):
    """Write the history as a CSV file: once a second at most while training, and whole at its end or when closed."""

    def __init__(self, history: History, path: Path) -> None:
        self.history = history
        self.path = path
        self.written = -math.inf

    def on_epoch_end(self, fit: "Fit") -> None:
        if time.monotonic() - self.written > 1.0:  # an epoch of random batches may take milliseconds
            self.close()

    def on_fit_end(self, fit: "Fit") -> None:
        self.close()

    def close(self) -> None:
        """Write what there is, if anything."""
        if not self.history.rows:
            return
        text = io.StringIO()
        names = dict.fromkeys(name for row in self.history.rows for name in row)  # a callback may skip epochs
        table = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        table.writeheader()
        table.writerows(self.history.rows)
        write_atomically(self.path, text.getvalue())
        self.written = time.monotonic()


class BestWeights(Callback):
    """Remember the weights of the best epoch by validation, and put them back at the end.

    Parameters
    ----------
    monitor : a name in `fit.metrics`; a loss is best when low, anything else when high
    min_delta : the least change that counts as an improvement
    restore : whether the best weights replace the last ones at the end
    """

    def __init__(self, monitor: str = "val_loss", min_delta: float = 0.0, restore: bool = True) -> None:
        self.monitor = monitor
        self.min_delta = min_delta
        self.restore = restore
        self.best: float | None = None
        self.epoch = 0
        self.weights: dict[str, Tensor] = {}

    def on_epoch_end(self, fit: "Fit") -> None:
        score = _score(self.monitor, fit.metrics)
        if score > (-math.inf if self.best is None else self.best + self.min_delta):  # never true of NaN
            self.best, self.epoch = score, fit.epoch
            if self.restore:
                self.weights = {name: tensor.clone() for name, tensor in fit.classifier.network.state_dict().items()}

    def on_fit_end(self, fit: "Fit") -> None:
        if self.weights:
            fit.classifier.network.load_state_dict(self.weights)
            fit.chosen_epoch = self.epoch

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.epoch, self.weights = state["best"], state["epoch"], dict(state["weights"])


class EarlyStopping(BestWeights):
    """Stop when `patience` epochs in a row brought no improvement of `monitor` by more than `min_delta`."""

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, restore: bool = False
    ) -> None:
        super().__init__(monitor, min_delta, restore)
        self.patience = patience

    def on_epoch_end(self, fit: "Fit") -> None:
        super().on_epoch_end(fit)
        if fit.epoch - self.epoch >= self.patience:
            fit.stop = True


def _score(monitor: str, metrics: Metrics) -> float:
    """The monitored figure, turned so that higher is better."""
    if monitor not in metrics:
        raise ValueError(f"No figure {monitor!r} to monitor; this epoch has: {', '.join(metrics)}.")
    return -metrics[monitor] if monitor.endswith("loss") else metrics[monitor]
