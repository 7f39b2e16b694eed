"""Training callbacks: metrics of an epoch, history, selection of weights, progress bar.

A callback of your own is a subclass of `Callback` with the methods it needs:

    class StopAt(Callback):
        def __init__(self, accuracy):
            self.accuracy = accuracy

        def on_epoch_end(self, fit):
            fit.stop = fit.metrics["val_accuracy"] >= self.accuracy

Callbacks are called in the order of their list: one sees what an earlier one has put into `fit.metrics`.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foveola.files import write_atomically
from foveola.predictions import Predictions
from foveola.progress import NotebookBar, in_notebook

if TYPE_CHECKING:
    from torch import Tensor

    from foveola.recipe import Recipe
    from foveola.training.loop import Fit

EpochMetrics = dict[str, float]

# With more epochs, at most one line a second is printed
MAX_EPOCHS_WITH_A_LINE_EACH = 20
# A notebook keeps every line, and has a bar besides
NOTEBOOK_SECONDS_BETWEEN_LINES = 10.0


class Callback:
    """Base class of callbacks, whose methods do nothing; the training loop calls them."""

    def on_fit_start(self, fit: "Fit") -> None:
        """Before the first step."""

    def on_epoch_start(self, fit: "Fit") -> None:
        """Before the first step of an epoch."""

    def on_step_end(self, fit: "Fit") -> None:
        """After the optimizer has changed the weights."""

    def on_epoch_end(self, fit: "Fit") -> None:
        """After validation; `fit.metrics` holds the epoch's metrics, and new ones can be added to it."""

    def on_fit_end(self, fit: "Fit") -> None:
        """After the last epoch, also after an early stop."""

    def state_dict(self) -> dict[str, Any]:
        """State that is needed to resume after an interruption: JSON values, arrays or tensors, nested as you like.

        A training that is resumed calls `on_fit_start`, then `load_state_dict`. A callback without a state begins anew:
        within an epoch, its `on_epoch_start` is called.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    @property
    def has_state(self) -> bool:
        return type(self).state_dict is not Callback.state_dict


class ValidationMetric(Callback):
    """Add a metric of the validation predictions to each epoch's metrics."""

    def __init__(self, name: str, metric: Callable[[Predictions], float]) -> None:
        self.name = name
        self.metric = metric

    def on_epoch_end(self, fit: "Fit") -> None:
        fit.metrics[self.name] = self.metric(fit.validation_predictions)


class LearningRate(Callback):
    """Add the learning rate of the epoch's last step to its metrics."""

    def on_epoch_end(self, fit: "Fit") -> None:
        fit.metrics["learning_rate"] = fit.learning_rate


class ElapsedTime(Callback):
    """Add the seconds since the start of training to each epoch's metrics; interruptions do not count."""

    def __init__(self) -> None:
        self.before = 0.0
        self.start = time.perf_counter()

    def on_fit_start(self, fit: "Fit") -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    def on_epoch_end(self, fit: "Fit") -> None:
        fit.metrics["seconds"] = self.seconds

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.before = state["before"]


class History(Callback):
    """Collect the metrics of every epoch as rows, which start with `epoch` and `step`."""

    def __init__(self) -> None:
        self.rows: list[EpochMetrics] = []

    def on_epoch_end(self, fit: "Fit") -> None:
        self.rows.append({"epoch": fit.epoch, "step": fit.step, **fit.metrics})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows[:] = state["rows"]


class CsvLog(Callback):
    """Write the history as a CSV file: at most once a second while training, and at its end or when closed."""

    def __init__(self, history: History, path: Path) -> None:
        self.history = history
        self.path = path
        self.written = -math.inf

    def on_epoch_end(self, fit: "Fit") -> None:
        if time.monotonic() - self.written > 1.0:  # epochs may take only milliseconds
            self.close()

    def on_fit_end(self, fit: "Fit") -> None:
        self.close()

    def close(self) -> None:
        """Write the history, unless it is empty."""
        if not self.history.rows:
            return
        text = io.StringIO()
        # Of all rows: a callback may add a metric in some epochs only
        names = dict.fromkeys(name for row in self.history.rows for name in row)
        table = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        table.writeheader()
        table.writerows(self.history.rows)
        write_atomically(self.path, text.getvalue())
        self.written = time.monotonic()


class BestWeights(Callback):
    """Keep the weights of the best epoch, and restore them at the end.

    Parameters
    ----------
    monitor : metric in `fit.metrics`; lower is better if its name ends in "loss", otherwise higher
    min_delta : smallest change that counts as an improvement
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
        if score > (-math.inf if self.best is None else self.best + self.min_delta):  # never true for NaN
            self.best, self.epoch = score, fit.epoch
            if self.restore:
                self.weights = {name: tensor.clone() for name, tensor in fit.classifier.network.state_dict().items()}

    def on_fit_end(self, fit: "Fit") -> None:
        if self.weights:
            fit.classifier.network.load_state_dict(self.weights)
            fit.best_epoch = self.epoch

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.epoch, self.weights = state["best"], state["epoch"], dict(state["weights"])


class EarlyStopping(BestWeights):
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs in a row."""

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, restore: bool = False
    ) -> None:
        super().__init__(monitor, min_delta, restore)
        self.patience = patience

    def on_epoch_end(self, fit: "Fit") -> None:
        super().on_epoch_end(fit)
        if fit.epoch - self.epoch >= self.patience:
            fit.stop = True


def selection(recipe: "Recipe") -> list[Callback]:
    """Early stopping and best weights, as the recipe asks for them."""
    best = recipe.keep == "best"
    if recipe.patience is not None:
        return [EarlyStopping(recipe.monitor, recipe.patience, recipe.min_delta, restore=best)]
    return [BestWeights(recipe.monitor, recipe.min_delta)] if best else []


def _score(monitor: str, metrics: EpochMetrics) -> float:
    """The monitored metric, negated if it is a loss: higher is better."""
    if monitor not in metrics:
        raise ValueError(f"Unknown metric {monitor!r}. Available: {', '.join(metrics)}.")
    return -metrics[monitor] if monitor.endswith("loss") else metrics[monitor]


class ProgressBar(Callback):
    """Show progress on a console; comes after the callbacks whose metrics it shows."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.notebook_bar: NotebookBar | None = None
        self.printed = 0.0

    def on_fit_start(self, fit: "Fit") -> None:
        if in_notebook() and not self.console.quiet:
            self.notebook_bar = NotebookBar()
        if not self.console.is_terminal:
            return
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, transient=True)
        self.bar.start()
        self.task = self.bar.add_task("training", total=fit.steps)

    def on_step_end(self, fit: "Fit") -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=fit.step)
        if self.notebook_bar is not None:
            self.notebook_bar(fit.step, fit.steps, "training, steps")

    def on_epoch_end(self, fit: "Fit") -> None:
        last = fit.epoch == fit.epochs or fit.stop
        all_lines = fit.epochs <= MAX_EPOCHS_WITH_A_LINE_EACH or "val_auc" in fit.metrics
        pause = 1.0 if self.notebook_bar is None else NOTEBOOK_SECONDS_BETWEEN_LINES
        if all_lines or last or time.monotonic() - self.printed > pause:
            self.console.print(_epoch_line(fit.epoch, fit.epochs, fit.metrics), highlight=False, soft_wrap=True)
            self.printed = time.monotonic()

    def on_fit_end(self, fit: "Fit") -> None:
        self.close()
        if fit.epoch < fit.epochs:
            self.console.print(
                f"stopped early after epoch {fit.epoch}; the weights of epoch {fit.best_epoch} are kept",
                highlight=False,
            )

    def close(self) -> None:
        """Remove the bar."""
        if self.notebook_bar is not None:
            self.notebook_bar.close()
            self.notebook_bar = None
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _epoch_line(epoch: int, epochs: int, metrics: EpochMetrics) -> str:
    parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}" if epoch else "before the first epoch"]
    if "loss" in metrics:  # not before the first step
        parts.append(f"loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.4f}")
    names = {"val_loss": "loss", "val_accuracy": "accuracy", "val_auc": "AUC"}
    if validation := ", ".join(f"{text} {metrics[name]:.4f}" for name, text in names.items() if name in metrics):
        parts.append(f"validation {validation}")
    if "seconds" in metrics:
        parts.append(f"{metrics['seconds']:.1f} s")
    return " · ".join(parts)
