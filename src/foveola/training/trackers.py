"""Trackers: a training logged by TensorBoard, MLflow or Weights & Biases, in the run's folder and sent nowhere.

Each is a callback that logs the metrics of every epoch; `finish` adds pictures, test metrics and the model. The
tracker's own environment variables win: MLFLOW_TRACKING_URI, WANDB_MODE and others. A tracker that fails is left out
from then on, with a message: it does not end the training.

A tracker writes beside the checkpoint how far it has logged, so that a training that is resumed goes on in the same
log, and no epoch is there twice.
"""

import importlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foveola.errors import require
from foveola.files import write_atomically
from foveola.training.callbacks import Callback, EpochMetrics

if TYPE_CHECKING:
    from foveola.training.loop import Fit

PROJECT = "foveola"


@dataclass(frozen=True)
class Results:
    """What a tracker is given at the end: PNG files, metrics of the test split, files of the model, by name."""

    epoch: int
    pictures: Sequence[Path] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Sequence[Path] = ()


class Tracker(Callback):
    """Base of the trackers.

    Parameters
    ----------
    folder : the run's; the log is a folder in it
    record : a file that says which log an interrupted training goes on with, and after which epoch
    title : of the log, such as the run's name
    settings : of the training, nested JSON values
    announce : gets a line if the tracker fails
    """

    PACKAGE: ClassVar[str]
    EXTRA: ClassVar[str]
    # Set before the package is imported, unless they are set already: it must not report to its makers
    ENVIRONMENT: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, folder: Path, record: Path, title: str, settings: Mapping[str, Any], announce: Callable[[str], None]
    ) -> None:
        self.folder, self.record, self.title, self.settings, self.announce = folder, record, title, settings, announce
        self.is_open = self.failed = self.resumed = False
        self.log_id, self.logged_epoch = "", -1

    @classmethod
    def check(cls) -> None:
        """Import the package.

        Raises
        ------
        MissingExtra
            If it is not installed.
        """
        for name, value in cls.ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        require(cls.PACKAGE, cls.EXTRA)

    def on_epoch_end(self, fit: "Fit") -> None:
        epoch, metrics = fit.epoch, dict(fit.metrics)
        self._attempt(lambda: self._log_epoch(epoch, metrics))

    def finish(self, results: Results) -> None:
        """Log pictures, test metrics and model."""

        def log() -> None:
            self._open_once(results.epoch + 1)
            self._log_results(results)

        self._attempt(log)

    def close(self, ending: str) -> None:
        """Write everything, and say how the training has ended: its status in `run.json`."""
        if self.is_open:
            self._attempt(lambda: self._close(ending))
            self.is_open = False

    def _log_epoch(self, epoch: int, metrics: EpochMetrics) -> None:
        self._open_once(epoch)
        if epoch > self.logged_epoch:
            self._log_metrics(epoch, metrics)
            self._remember(epoch)

    def _open_once(self, epoch: int) -> None:
        if self.is_open:
            return
        if self.record.is_file():
            recorded = json.loads(self.record.read_bytes())
            self.log_id, self.logged_epoch, self.resumed = str(recorded["log"]), int(recorded["epoch"]), True
        self._open(epoch)
        self.is_open = True
        self._remember(self.logged_epoch)

    def _remember(self, epoch: int) -> None:
        self.logged_epoch = epoch
        write_atomically(self.record, json.dumps({"log": self.log_id, "epoch": epoch}))

    def _attempt(self, action: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:  # packages, disks and servers fail in many ways
            self.failed = True
            self.announce(
                f"Logging with {self.PACKAGE} has failed, and the training goes on without it: "
                f"{type(error).__name__}: {error}"
            )

    def _open(self, epoch: int) -> None:
        """Begin a log and set `log_id`, or go on with the log of that name; `epoch` comes next."""
        raise NotImplementedError

    def _log_metrics(self, epoch: int, metrics: EpochMetrics) -> None:
        raise NotImplementedError

    def _log_results(self, results: Results) -> None:
        raise NotImplementedError

    def _close(self, ending: str) -> None:
        raise NotImplementedError


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard, a folder for each training: `tensorboard --logdir RUN`."""

    PACKAGE, EXTRA = "tensorboard", "tensorboard"

    def _open(self, epoch: int) -> None:
        # Not imported by a statement: PyTorch does not type it
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self.log_id = self.log_id or time.strftime("%Y%m%d-%H%M%S")
        # What was logged after the checkpoint is repeated now; TensorBoard drops it by this step
        self.writer = writer(str(self.folder / "tensorboard" / self.log_id), purge_step=epoch if self.resumed else None)
        self.logged_epoch = min(self.logged_epoch, epoch - 1)
        if not self.resumed or epoch == 0:
            self.writer.add_text("settings", f"```\n{json.dumps(self.settings, indent=2)}\n```", 0)

    def _log_metrics(self, epoch: int, metrics: EpochMetrics) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def _log_results(self, results: Results) -> None:
        from PIL import Image

        for path in results.pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.writer.add_image(path.stem, pixels, results.epoch, dataformats="HWC")
        for name, value in results.metrics.items():
            self.writer.add_scalar(name, value, results.epoch)
        # Event files hold no files; the model is beside them, in the run
        names = ", ".join(path.name for path in results.files)
        self.writer.add_text("model", f"{self.folder}: {names}", results.epoch)

    def _close(self, ending: str) -> None:
        self.writer.close()


class MLflow(Tracker):
    """A file store in RUN/mlruns, or the server or database that MLFLOW_TRACKING_URI names."""

    PACKAGE, EXTRA = "mlflow", "mlflow"
    ENVIRONMENT: ClassVar[Mapping[str, str]] = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    _STATUS: ClassVar[Mapping[str, str]] = {"done": "FINISHED", "interrupted": "KILLED"}

    def _open(self, epoch: int) -> None:
        mlflow = importlib.import_module("mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            # A database takes seconds to make, and one that several runs share is the user's to choose
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (self.folder / "mlruns").absolute().as_uri()
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        if self.resumed:
            self.client.update_run(self.log_id, status="RUNNING")
            return
        self.log_id = self.client.create_run(self._experiment(), run_name=self.title).info.run_id
        entity = importlib.import_module("mlflow.entities").Param
        params = [entity(name, str(value)[:_MOST_CHARACTERS]) for name, value in _flat(self.settings)]
        for start in range(0, len(params), _MOST_PARAMS):
            self.client.log_batch(self.log_id, params=params[start : start + _MOST_PARAMS])

    def _experiment(self) -> str:
        if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return experiment_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        return str(self.client.create_experiment(name) if found is None else found.experiment_id)

    def _log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        entity = importlib.import_module("mlflow.entities").Metric
        now = int(1000 * time.time())
        rows = [entity(name, value, now, epoch) for name, value in metrics.items()]
        self.client.log_batch(self.log_id, metrics=rows)

    def _log_results(self, results: Results) -> None:
        self._log_metrics(results.epoch, results.metrics)
        for path in results.pictures:
            self.client.log_artifact(self.log_id, str(path), "pictures")
        for path in results.files:
            self.client.log_artifact(self.log_id, str(path), "model")

    def _close(self, ending: str) -> None:
        self.client.set_terminated(self.log_id, self._STATUS.get(ending, "FAILED"))


class WandB(Tracker):
    """Weights & Biases in RUN/wandb, offline unless WANDB_MODE says otherwise; `wandb sync` sends it."""

    PACKAGE, EXTRA = "wandb", "wandb"
    ENVIRONMENT: ClassVar[Mapping[str, str]] = {"WANDB_ERROR_REPORTING": "false"}

    def _open(self, epoch: int) -> None:
        self.wandb = importlib.import_module("wandb")
        self.log_id = self.log_id or secrets.token_hex(4)
        self.run = self.wandb.init(
            id=self.log_id,
            name=os.environ.get("WANDB_NAME", self.title),
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=os.environ.get("WANDB_DIR", str(self.folder)),
            config=dict(self.settings),
            resume="allow" if self.resumed else None,
            reinit="create_new",
            settings=self.wandb.Settings(
                mode=os.environ.get("WANDB_MODE", "offline"),
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
            ),
        )

    def _log_metrics(self, epoch: int, metrics: EpochMetrics) -> None:
        self.run.log(metrics, step=epoch)

    def _log_results(self, results: Results) -> None:
        pictures = {path.stem: self.wandb.Image(str(path)) for path in results.pictures}
        self.run.log(pictures, step=results.epoch)
        self.run.summary.update(dict(results.metrics))
        for path in results.files:
            # A copy, because the run's own file is still to be moved
            copied = shutil.copy(path, Path(self.run.dir) / path.name)
            self.run.save(str(copied), base_path=self.run.dir, policy="end")

    def _close(self, ending: str) -> None:
        self.run.finish(exit_code=0 if ending == "done" else 1)


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
# MLflow's limits for a parameter, and for how many are logged at a time
_MOST_CHARACTERS, _MOST_PARAMS = 6000, 100


def _flat(settings: Mapping[str, Any], start: str = "") -> Iterable[tuple[str, Any]]:
    """Nested settings by dotted names; what is not a mapping is a value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value
