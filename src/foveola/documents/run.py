"""A run: `run.json`, what its commands print, and the request of a training that is not finished."""

from typing import Any, Literal, get_args

from pydantic import SerializerFunctionWrapHandler, model_serializer

from foveola.datasets.reload import RecordedData
from foveola.documents.document import Document, Part
from foveola.documents.evaluation import Evaluation
from foveola.models.metadata import Columns, PretrainedOrigin, Rejection
from foveola.recipe import Recipe


class Seconds(Part):
    """Wall-clock seconds of the training steps, and of everything from the command to the finished run."""

    training: float = 0.0
    total: float = 0.0


class ModelSize(Part):
    """`parameters` is the number of values that training changes."""

    parameters: int


class NetworkGraph(Part):
    """`model.onnx` of a run with a network of the user's own: the largest difference of its logits from the network's.

    `network` is the name of the network's class; `missing` says why there is no graph of it.
    """

    network: str
    largest_difference: float | None = None
    images: int = 0
    missing: str | None = None


class TeacherModel(Part):
    """The model that a training learnt from besides the labels: its file, recipe and checksum.

    `unseen` says whether it has learnt from none of the validation and test images; None if that is not known.
    """

    path: str
    recipe: str | None
    sha256: str
    unseen: bool | None


class RunStatus(Document):
    """`run.json`: what was trained on what, how far it came, and how it ended.

    `threads` and `processor` (its vector instructions) decide in which order sums are taken: with others, the same seed
    gives slightly different weights. `pretrained` describes the published weights that the training started from, and
    `weights` is the path of their file, if one was given.

    An imported model has the status "imported"; `pretrained` names its file, and `data` has the name "unknown" and no
    images; its `summary` says what the import has assumed.
    """

    status: Literal["running", "done", "interrupted", "diverged", "failed", "imported"]
    recipe: Recipe
    data: RecordedData
    model: ModelSize
    seconds: Seconds = Seconds()
    epochs: int = 0
    steps: int = 0
    chosen_epoch: int = 0
    reject: Rejection | None = None
    versions: dict[str, str] = {}
    seed: int
    device: str = "cpu"
    threads: int | None = None
    processor: str | None = None
    flip: bool = False
    init: str | None = None
    freeze: bool = False
    weights: str | None = None
    pretrained: PretrainedOrigin | None = None
    teacher: TeacherModel | None = None
    precision: str | None = None
    training_accuracy: float | None = None
    graph: NetworkGraph | None = None

    @model_serializer(mode="wrap")
    def _without_unset_recipe_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipe keys that are not set are left out, as in TOML."""
        document: dict[str, Any] = handler(self)
        document["recipe"] = self.recipe.model_dump(mode="json", exclude_none=True)
        return document


Tracker = Literal["tensorboard", "mlflow", "wandb"]
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)


class TrainingRequest(Document):
    """`checkpoint/request.json`: all arguments of `foveola train`.

    `data` is None if it was given as arrays, `groups` "array"; `recipe` is None as long as the time budget has not
    chosen one, `fingerprint` as long as the data has not been read. `network` and `callbacks` say what was given from
    Python or named on the command line, and has to be given again: no file says which code is run. `launch` identifies
    the start by torchrun whose restarts resume the training without being asked to.
    """

    data: str | None
    recipe: Recipe | None
    overrides: dict[str, Any] = {}
    seed: int
    device: str
    threads: int
    budget: float | None = None
    init: str | None = None
    freeze: bool = False
    weights: str | None = None
    teacher: str | None = None
    skip_bad: int = 0
    groups: str | None = None
    columns: Columns = Columns()
    report: bool = True
    checkpoint_every: float
    fingerprint: str | None = None
    network: bool = False
    callbacks: list[str] = []
    log: list[Tracker] = []
    launch: str | None = None

    @model_serializer(mode="wrap")
    def _without_unset_recipe_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        if self.recipe is not None:
            document["recipe"] = self.recipe.model_dump(mode="json", exclude_none=True)
        return document


class ImportedRun(RunStatus):
    """What `foveola import --json` prints: `run.json` with the run's path."""

    run: str


class TrainedRun(RunStatus):
    """What `foveola train --json` prints: `run.json` with the run's path and its evaluation."""

    run: str
    evaluation: Evaluation | None
