"""What a training prints while it runs: a bar and a line an epoch in a terminal, plain lines elsewhere."""

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foveola.training.callbacks import Callback, Metrics

if TYPE_CHECKING:
    from foveola.training.loop import Fit

# More epochs than this are told of once a second only
EVERY_LINE_UP_TO = 20


class ProgressReport(Callback):
    """Report on a console; put after the callbacks whose figures it should show."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.printed = 0.0

    def on_fit_start(self, fit: "Fit") -> None:
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

    def on_epoch_end(self, fit: "Fit") -> None:
        last = fit.epoch == fit.epochs or fit.stop
        all_lines = fit.epochs <= EVERY_LINE_UP_TO or "val_auc" in fit.metrics
        if all_lines or last or time.monotonic() - self.printed > 1.0:
            self.console.print(_line(fit.epoch, fit.epochs, fit.metrics), highlight=False, soft_wrap=True)
            self.printed = time.monotonic()

    def on_fit_end(self, fit: "Fit") -> None:
        self.close()
        if fit.epoch < fit.epochs:
            self.console.print(
                f"stopped early after epoch {fit.epoch}; the weights of epoch {fit.chosen_epoch} are kept",
                highlight=False,
            )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _line(epoch: int, epochs: int, metrics: Metrics) -> str:
    parts = [
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.4f}",
    ]
    names = {"val_loss": "loss", "val_accuracy": "accuracy", "val_auc": "AUC"}
    if validation := ", ".join(f"{text} {metrics[name]:.4f}" for name, text in names.items() if name in metrics):
        parts.append(f"validation {validation}")
    if "seconds" in metrics:
        parts.append(f"{metrics['seconds']:.1f} s")
    return " · ".join(parts)
