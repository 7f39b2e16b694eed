"""The run directory: the only hand-off between commands. `train` writes it, everything else reads it."""

import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveola.errors import ModelError, OutputError
from foveola.files import write_atomically
from foveola.recipe import Recipe, parse_recipe

STATUS_FILE = "run.json"


@dataclass(frozen=True)
class Run:
    """A folder with a training's recipe, history, weights, figures and pictures."""

    path: Path

    @classmethod
    def claim(cls, path: Path, *, force: bool = False) -> "Run":
        """Check, without changing anything, that a run may be written there.

        Raises
        ------
        OutputError
            If something is there already (with `force`: something else than a run), or the folder cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise OutputError(
                f"{path} is a file, so that no run can be written there. Choose another folder with --out."
            )
        if path.is_dir() and any(path.iterdir()):
            if not (path / STATUS_FILE).is_file():
                raise OutputError(f"{path} holds files that are no run's; they are left alone. Choose another --out.")
            if not force:
                raise OutputError(f"{path} already holds a run. Choose another --out, or replace it with --force.")
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path} cannot be created: {existing} is no folder that you may write to. Choose another --out."
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
            raise ModelError(f"{path} is no run: it has no {STATUS_FILE}. Give the folder that `foveola train` wrote.")
        run = cls(path)
        _ = run.status
        return run

    def start(self, status: dict[str, Any]) -> None:
        """Make the folder, empty; an old run in it goes."""
        try:
            if self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
            self.write_status(status)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error}. Choose another folder with --out.") from None

    def write_status(self, status: dict[str, Any]) -> None:
        self._write_json(STATUS_FILE, status)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe as TOML: `foveola train DATA --recipe RUN/recipe.toml` repeats the run."""
        write_atomically(self.path / "recipe.toml", recipe.to_toml())

    def write_evaluation(self, evaluation: dict[str, Any]) -> None:
        self._write_json("evaluation.json", evaluation)

    @property
    def status(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return self._read_json(STATUS_FILE)

    @property
    def evaluation(self) -> dict[str, Any]:
        """The content of `evaluation.json`: the figures on the test split."""
        return self._read_json("evaluation.json")

    @property
    def recipe(self) -> Recipe:
        return parse_recipe(self.status["recipe"], str(self.path / STATUS_FILE))

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

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            document = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path} cannot be read: {error}. The run is unfinished or damaged; train it again."
            ) from None
        if not isinstance(document, dict):
            raise ModelError(f"{path} is damaged: it should hold a JSON object. Train the run again.")
        return document

    def _write_json(self, name: str, document: dict[str, Any]) -> None:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(self.path / name, text + "\n")
