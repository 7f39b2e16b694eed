"""The run directory: the only hand-off between commands. `train` writes it, everything else reads it."""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from foveola.documents import Document, Evaluation, RunStatus
from foveola.errors import ModelError
from foveola.files import CHECKSUM_FILE, write_atomically
from foveola.recipe import Recipe

STATUS_FILE = "run.json"
# The folder of what an unfinished training needs: foveola.claims
CHECKPOINT = "checkpoint"
# What a training writes beside run.json, and the folders of exports, each with a SHA256SUMS that names its files
WRITTEN = (
    "recipe.toml", "history.csv", "model.safetensors", "evaluation.json", "report.html", CHECKSUM_FILE,
    "samples.png", "curves.png", "mistakes.png", "confusion.png",
)  # fmt: skip
EXPORTS = ("exports/web", "exports")

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
        write_atomically(self.path / STATUS_FILE, status.to_json() + "\n")
        self.__dict__.pop("status", None)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe as TOML: `foveola train DATA --recipe RUN/recipe.toml` repeats the run."""
        write_atomically(self.path / "recipe.toml", recipe.to_toml())

    def write_evaluation(self, evaluation: Evaluation) -> None:
        write_atomically(self.evaluation_path, evaluation.to_json() + "\n")
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
        """A row an epoch."""
        with self.history_path.open(encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def history_path(self) -> Path:
        return self.path / "history.csv"

    @property
    def evaluation_path(self) -> Path:
        return self.path / "evaluation.json"

    def _read(self, name: str, kind: type[AnyDocument]) -> AnyDocument:
        path = self.path / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read: {error}. The run is unfinished or damaged; train it again."
            ) from None
        return kind.from_json(content, str(path))
