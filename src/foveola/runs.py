"""The run directory: the only hand-off between commands. `train` writes it, everything else reads it."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from foveola.documents import Document, Evaluation, RunStatus
from foveola.errors import ModelError, OutputError
from foveola.files import remove_listed, write_atomically, writing
from foveola.recipe import Recipe
from foveola.text import escape_surrogates

STATUS_FILE = "run.json"
# What a training writes beside it, and the folders of exports, each with a SHA256SUMS that names its files
WRITTEN = (
    "recipe.toml", "history.csv", "model.safetensors", "evaluation.json", "report.html",
    "samples.png", "curves.png", "mistakes.png", "confusion.png",
)  # fmt: skip
EXPORTS = ("exports/web", "exports")

AnyDocument = TypeVar("AnyDocument", bound=Document)


@dataclass(frozen=True)
class Run:
    """A folder with a training's recipe, history, weights, metrics and plots."""

    path: Path

    @classmethod
    def claim(cls, path: Path, *, force: bool = False) -> "Run":
        """Check, without changing anything, that a run may be written there.

        Raises
        ------
        OutputError
            If something is there already (with `force`: something else than a run), or the folder cannot be written.
        """
        if escape_surrogates(str(path)) != str(path):
            raise OutputError(
                f"{path} is not UTF-8, so that model files in it could not be opened. Choose another --out."
            )
        if path.exists() and not path.is_dir():
            raise OutputError(
                f"{path} is a file, so that no run can be written there. Choose another folder with --out."
            )
        if path.is_dir() and any(path.iterdir()):
            if not (path / STATUS_FILE).is_file():
                raise OutputError(f"{path} holds files, which are left alone. Choose another --out.")
            if not force:
                raise OutputError(f"{path} already holds a run. Choose another --out, or replace it with --force.")
            cls._check_replaceable(path)
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path} cannot be created: {existing} is not a folder in which you may write. Choose another --out."
            )
        return cls(path)

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
            raise ModelError(
                f"{path} is not a run: it has no {STATUS_FILE}. Give the folder that `foveola train` wrote."
            )
        run = cls(path)
        _ = run.status
        return run

    @classmethod
    def _check_replaceable(cls, path: Path) -> None:
        try:
            cls.open(path)
        except ModelError:
            raise OutputError(
                f"{path / STATUS_FILE} is not one of Foveola's, or is damaged, so that even with --force the folder is "
                f"left alone. Choose another --out."
            ) from None

    def start(self, status: RunStatus) -> None:
        """Make the folder. Of an old run in it, what Foveola has written goes; other files stay."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for name in WRITTEN:
                (self.path / name).unlink(missing_ok=True)
            for name in EXPORTS:
                remove_listed(self.path / name)
            self.write_status(status)

    def write_status(self, status: RunStatus) -> None:
        write_atomically(self.path / STATUS_FILE, status.to_json() + "\n")

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe as TOML: `foveola train DATA --recipe RUN/recipe.toml` repeats the run."""
        write_atomically(self.path / "recipe.toml", recipe.to_toml())

    def write_evaluation(self, evaluation: Evaluation) -> None:
        write_atomically(self.evaluation_path, evaluation.to_json() + "\n")

    @property
    def status(self) -> RunStatus:
        """The content of `run.json`."""
        return self._read(STATUS_FILE, RunStatus)

    @property
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
