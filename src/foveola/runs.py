"""The run directory: the only hand-off between commands. `train` writes it, everything else reads it."""

import csv
import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from foveola.documents import Document, Evaluation, RunStatus
from foveola.errors import ModelError
from foveola.files import CHECKSUM_FILE, has_checksum, read_verified, record_checksum, write_atomically
from foveola.recipe import Recipe

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


@dataclass(frozen=True)
class Run:
    """A folder with a training's recipe, history, weights, metrics and plots.

    `status` and `evaluation` are read once: they stay those of one training, even if another one replaces the run.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing run.

        Raises
        ------
        ModelError
            If there is no run, or its `run.json` is damaged.
        """
        path = Path(path)
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
            raise ModelError(
                f"{path} is not a run: it has no {STATUS_FILE}. Give the folder that `foveola train` wrote."
            )
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

    @property
    def recipe(self) -> Recipe:
        return self.status.recipe

    @property
    def history(self) -> list[dict[str, float]]:
        """A row an epoch.

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
