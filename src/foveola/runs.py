"""The run directory: the only hand-off between commands. `train` writes it, everything else reads it."""

import csv
import io
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from foveola.display import Displayed
from foveola.documents import Document, Evaluation, RunStatus
from foveola.errors import FoveolaError, ModelError
from foveola.files import CHECKSUM_FILE, has_checksum, read_verified, record_checksum, write_atomically
from foveola.predictions import Estimate
from foveola.recipe import Recipe
from foveola.text import printable

if TYPE_CHECKING:
    from foveola.exports.onnx import OnnxModel
    from foveola.models.classifier import Classifier

RUNS = Path("runs")
"""Where runs without a folder of their own are written."""

STATUS_FILE = "run.json"
# The folder of what an unfinished training needs: foveola.claims
CHECKPOINT = "checkpoint"
# What a training writes beside run.json, and the folders of exports, each with a SHA256SUMS that names its files
WRITTEN = (
    "recipe.toml", "history.csv", "model.safetensors", "model.onnx", "evaluation.json", "report.html", CHECKSUM_FILE,
    "samples.png", "curves.png", "mistakes.png", "confusion.png",
)  # fmt: skip
EXPORTS = ("exports/web", "exports")
# The folders of trackers, which stay when another run takes the place of the one that they logged
LOGS = ("tensorboard", "mlruns", "wandb")
# Of run.json, evaluation.json and history.csv: an evaluation of a thousand classes has 10 MB
_MAX_BYTES = 2**26
_CURE = "Train the run again, or copy it again"

AnyDocument = TypeVar("AnyDocument", bound=Document)


def run_folder(run: "str | Path | Run") -> Path:
    """The folder of a run.

    Raises
    ------
    ModelError
        If it is neither a run nor a path, but a model, for example.
    """
    if not isinstance(run, str | os.PathLike):
        raise ModelError(
            f"A whole run is needed, with its recipe, data and metrics, and this is of the type {type(run).__name__}. "
            f"Give the Run that foveola.train has returned, or its folder."
        )
    return Path(run)


def where_a_run_may_be(path: Path) -> str:
    """Which run is meant by a path that has none, in a sentence: one in `runs` may have been named without it."""
    if (in_runs := RUNS / path) != path and (in_runs / STATUS_FILE).is_file():
        return f"Did you mean {in_runs}?"
    return "Give the folder that `foveola train` wrote."


@dataclass(frozen=True, repr=False)
class Run(Displayed):
    """A folder with a training's recipe, history, weights, metrics and plots.

    `status`, `evaluation` and `model` are read once: they stay those of one training, even if another one replaces the
    run. A Run is accepted wherever the path of a run is: it is an `os.PathLike`.

    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 1}, verbose=False)
    >>> run.accuracy.n, run.model.predict(foveola.load("digits").train.images[:2]).shape
    (359, (2,))
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}{printable(self._in_short())})"

    def _in_short(self) -> str:
        """Data, recipe and accuracy, as far as there are any, for one line; nothing is kept in memory."""
        run = self if "status" in vars(self) else Run(self.path)
        try:
            status = run.status
            text = f": {status.data.name}, {status.recipe.name}"
            if status.status != "done":
                text += f", {status.status}"
            return f"{text}, accuracy {run.evaluation.accuracy}" if run.evaluation_path.is_file() else text
        except FoveolaError:
            return ""

    @classmethod
    def open(cls, path: "str | Path | Run") -> "Run":
        """An existing run.

        Raises
        ------
        ModelError
            If there is no run, or its `run.json` is damaged.
        """
        path = run_folder(path)
        if path.is_file():
            raise ModelError(
                f"{path} is a file, but a whole run is needed, with its recipe, data and metrics. Give the folder that "
                f"`foveola train` wrote."
            )
        if not (path / STATUS_FILE).is_file():
            if (path / CHECKPOINT).is_dir():
                raise ModelError(
                    f"The training of {path} is not finished. Wait for it, or, if it was interrupted, go on with it: "
                    f"foveola train --resume {path}"
                )
            if not path.exists():
                raise ModelError(f"There is no run {path}. {where_a_run_may_be(path)}")
            raise ModelError(f"{path} is not a run: it has no {STATUS_FILE}. {where_a_run_may_be(path)}")
        run = cls(path)
        _ = run.status
        return run

    def write_status(self, status: RunStatus) -> None:
        self._write(STATUS_FILE, status)
        self.__dict__.pop("status", None)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe as TOML: `foveola train DATA --recipe RUN/recipe.toml` repeats the run."""
        write_atomically(self.path / "recipe.toml", recipe.to_toml())

    def write_evaluation(self, evaluation: Evaluation) -> None:
        self._write(self.evaluation_path.name, evaluation)
        self.__dict__.pop("evaluation", None)

    @cached_property
    def status(self) -> RunStatus:
        """The content of `run.json`."""
        return self._read(STATUS_FILE, RunStatus)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The content of `evaluation.json`: the metrics on the test split."""
        return self._read(self.evaluation_path.name, Evaluation)

    @cached_property
    def model(self) -> "Classifier | OnnxModel":
        """The model, as `foveola.open` opens it."""
        from foveola.workflow.open import open_model

        return open_model(self)

    @property
    def accuracy(self) -> Estimate:
        """Fraction of the test images that are classified correctly; as all metrics, with its 95 % interval.

        Raises
        ------
        ModelError
            If the run has no metrics.
        """
        return self._metric("accuracy")

    @property
    def balanced_accuracy(self) -> Estimate:
        """Mean recall over the classes."""
        return self._metric("balanced_accuracy")

    @property
    def macro_f1(self) -> Estimate:
        """Mean F1 over the classes."""
        return self._metric("macro_f1")

    @property
    def auc(self) -> Estimate:
        """Area under the ROC curve, one class against the rest, mean over the classes."""
        return self._metric("auc_macro_ovr")

    @property
    def log_loss(self) -> Estimate:
        """Mean negative log-likelihood of the true class."""
        return self._metric("log_loss")

    @property
    def brier(self) -> Estimate:
        """Squared distance between probabilities and truth."""
        return self._metric("brier")

    @property
    def ece(self) -> Estimate:
        """Expected calibration error."""
        return self._metric("ece")

    def _metric(self, key: str) -> Estimate:
        status = self.status.status
        if status == "done" and not self.evaluation_path.is_file():
            raise ModelError(
                f"{self.path} has no metrics: it was trained without test images. Measure it on others: "
                f"foveola.evaluate(run, data)."
            )
        if not self.evaluation_path.is_file():
            raise ModelError(
                f"{self.path} has no metrics: its training did not end as planned, its status is {status}. Train again."
            )
        metrics = self.evaluation.metrics
        if key not in metrics and self.evaluation.task == "multilabel":
            raise ModelError(f"{self.path} gives several labels an image, and has no {key}, but {', '.join(metrics)}.")
        if key not in metrics:
            raise ModelError(
                f"{self.path} was measured before there was the metric {key}. Measure it again: "
                f"foveola.evaluate(run, data)."
            )
        return metrics[key]

    @property
    def recipe(self) -> Recipe:
        return self.status.recipe

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per epoch.

        Raises
        ------
        ModelError
            If `history.csv` is missing or damaged.
        """
        path = self.history_path
        try:
            text = read_verified(path, _MAX_BYTES, _CURE).decode()
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
            names = rows[0] if rows else []
            history = [
                {name: float(value) for name, value in zip(names, row, strict=True) if value} for row in rows[1:] if row
            ]
        except (ValueError, csv.Error) as error:  # bytes that are not UTF-8, cells that are not numbers, ragged rows
            raise ModelError(f"{path} is damaged: {error}. {_CURE}.") from None
        if not all(math.isfinite(row.get(name, math.nan)) for row in history for name in ("epoch", "step")):
            raise ModelError(f"{path} is damaged: it has rows without epoch or step. {_CURE}.")
        return history

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def history_path(self) -> Path:
        return self.path / "history.csv"

    @property
    def evaluation_path(self) -> Path:
        return self.path / "evaluation.json"

    def _write(self, name: str, document: Document) -> None:
        path = self.path / name
        write_atomically(path, document.to_json() + "\n")
        if has_checksum(path):  # of a finished run
            record_checksum(path)

    def _read(self, name: str, kind: type[AnyDocument]) -> AnyDocument:
        path = self.path / name
        return kind.from_json(read_verified(path, _MAX_BYTES, _CURE), str(path))
