"""Every JSON document that Foveola writes or prints, defined once.

A document carries the number of its format. One without a number was written before there was one, and is read as
format 1; one with a higher number was written by a newer Foveola, and is refused by name.
"""

from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from foveola.datasets.reload import RecordedData
from foveola.display import Displayed
from foveola.errors import FoveolaError, ModelError
from foveola.evaluation.comparison import McNemar
from foveola.evaluation.costs import ParametersByImageSize
from foveola.evaluation.curves import Curves
from foveola.evaluation.metrics import ClassMetrics, metrics_of
from foveola.evaluation.multilabel import LabelMetrics
from foveola.evaluation.rejection import RejectionResult
from foveola.evaluation.unfamiliarity import UnfamiliarityResult
from foveola.models.metadata import Columns, PretrainedOrigin, Rejection, first_problem
from foveola.predictions import Estimate
from foveola.recipe import Recipe
from foveola.tasks import Task
from foveola.text import escape_all_surrogates, printable

FORMAT = 1


class Part(BaseModel):
    """Part of a document. Names of files that are not UTF-8 are written escaped."""

    @model_validator(mode="before")
    @classmethod
    def _escape(cls, values: Any) -> Any:
        return (
            {key: escape_all_surrogates(value) for key, value in values.items()} if isinstance(values, dict) else values
        )


class Document(Part):
    """A JSON document with the number of its format."""

    model_config = ConfigDict(serialize_by_alias=True)

    format: Literal[1] = 1

    def __str__(self) -> str:
        return repr(self)

    def to_json(self) -> str:
        """Indented JSON, UTF-8 letters as they are; NaN, which JSON does not know, as null."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, where: str, *, error: type[FoveolaError] = ModelError) -> Self:
        """Read a document that `to_json` has written.

        Parameters
        ----------
        text : the file's content
        where : the file's name, for messages
        error : what is raised

        Raises
        ------
        FoveolaError
            If the text is not such a document, or has a newer format.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False)[0]
            found = first["input"]
            if first["loc"] == ("format",) and isinstance(found, int) and found > FORMAT:
                raise error(
                    f"{where} has format {found}, written by a newer Foveola; this version reads formats up to "
                    f"{FORMAT}. Update Foveola to use it."
                ) from None
            raise error(f"{where} is damaged: {first_problem(invalid)}. Train the run again.") from None


# A run


class Seconds(Part):
    """Wall-clock seconds of the training steps, and of everything from the command to the finished run."""

    training: float = 0.0
    total: float = 0.0


class ModelSize(Part):
    """`parameters` is the number of values that training changes."""

    parameters: int


class NetworkGraph(Part):
    """`model.onnx` of a run whose network the user has written: how far its logits differ from the network's at most.

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
    gives slightly different weights. `pretrained` are the published weights that it began with, and `weights` is the
    path of their file, if that was given.

    A model of another program has the status "imported", `pretrained` names its file, and `data` is of the name
    "unknown", without images; its `summary` says what the import has assumed.
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
    """`checkpoint/request.json`: everything that `foveola train` was asked for.

    `data` is None if it was given as arrays, `groups` "array"; `recipe` is None as long as the time budget has not
    chosen one, `fingerprint` as long as the data has not been read. `network` and `callbacks` say what was given from
    Python or named on the command line, and has to be given again: no file says which code is run. `launch` names the
    start by torchrun whose restarts go on by themselves.
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


class SeenImages(BaseModel):
    """How many of the measured images the model has learnt from (`training`), or was selected by (`validation`).

    `left_out` counts images that were not measured, because it is one of both.
    """

    training: int = 0
    validation: int = 0
    left_out: int = 0


class WeightedImages(BaseModel):
    """The images have weights, and `effective` images of equal weight would say as much (Kish 1965).

    Metrics, ratios of classes, ROC curves, reliability, coverage and its error count an image by its weight. The
    confusion matrix, supports, risk over coverage, false alarms and the threshold's promise count every image once.
    """

    effective: float


class WithoutCopies(BaseModel):
    """Metrics of the measured images that the model has not seen."""

    n: int
    accuracy: Estimate
    log_loss: Estimate


class Evaluation(Displayed, Document):
    """`evaluation.json`: every metric with its interval, per class, and the points of the report's plots.

    `held_out` is true if the model is known to have seen none of the images. `seen` is null where it cannot be known:
    an export does not know its training images. `weighted` is there if the images have weights, `without_copies` if the
    model has seen some images, not all.

    Of several labels an image, `labels` has a row for each label; `per_class` and `confusion` are empty, and there are
    no curves, no calibration error and no rejection.

    In JSON, `metrics` and `curves` are spread out: `accuracy`, `auc_macro_ovr`, …, `roc`, `reliability`, ….

    >>> import foveola
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 1}, verbose=False)
    >>> run.evaluation.accuracy.n, sorted(run.evaluation.metrics)[:2]
    (359, ['accuracy', 'auc_macro_ovr'])
    """

    _SPREAD: ClassVar[tuple[str, ...]] = ("metrics", "curves")

    split: str
    n: int
    task: Task = "multiclass"
    held_out: bool
    seen: SeenImages | None = None
    weighted: WeightedImages | None = None
    without_copies: WithoutCopies | None = None
    metrics: dict[str, Estimate]
    per_class: list[ClassMetrics]
    confusion: list[list[int]]
    labels: list[LabelMetrics] | None = None
    ece_uncalibrated: Estimate | None = None
    log_loss_uncalibrated: Estimate | None = None
    rejection: RejectionResult | None = None
    unfamiliar: UnfamiliarityResult | None = None
    curves: Curves | None = None

    @property
    def accuracy(self) -> Estimate:
        return self.metrics["accuracy"]

    def __repr__(self) -> str:
        return f"Evaluation({self.split}, {self.n:,} images, accuracy {self.accuracy})"

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, document: Any) -> Any:
        """Metrics and curves from the keys of the JSON document."""
        if not isinstance(document, dict) or "metrics" in document:
            return document
        keys = metrics_of(document.get("task", "multiclass"))
        gathered = {**document, "metrics": {name: document[name] for name in keys if name in document}}
        if "roc" in document:
            gathered["curves"] = {name: document[name] for name in Curves.model_fields if name in document}
        if "accuracy" not in gathered["metrics"]:
            raise PydanticCustomError("missing", "accuracy is missing")
        return gathered

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        spread: dict[str, Any] = {}
        for name, value in document.items():
            spread |= (value or {}) if name in self._SPREAD else {name: value}
        return spread


class ImportedRun(RunStatus):
    """What `foveola import --json` prints: `run.json` with the run's path."""

    run: str


class TrainedRun(RunStatus):
    """What `foveola train --json` prints: `run.json` with the run's path and its evaluation."""

    run: str
    evaluation: Evaluation | None


# A comparison


class DataSummary(Part):
    """Which data set, by content."""

    name: str
    fingerprint: str
    classes: list[str]


class SeedAccuracy(Part):
    """Test accuracy of one training of several that differ in their seed."""

    path: str
    seed: int
    accuracy: float


class ComparedRun(Part):
    """Accuracy and costs of a run. Mean and standard deviation are over seeds, None with a single one."""

    path: str
    name: str
    recipe: str
    accuracy: Estimate
    accuracy_mean: float | None
    accuracy_standard_deviation: float | None
    parameters: int
    multiply_adds: int
    seconds_training: float
    trainings: list[SeedAccuracy]
    latency_ms: float
    images_per_second: float


class Significance(Part):
    """A test by name, its p-value, and that value corrected for the number of pairs (Holm 1979)."""

    name: str
    p: float
    p_corrected: float


class Disagreement(Part):
    """A test image that two runs classify differently."""

    index: int
    true: str
    first: str
    second: str


class ComparedPair(Part):
    """Two runs on the same test images; differences are the first's metric less the second's.

    `real` says whether test and interval rule out chance, for what the comparison's `scope` names.
    """

    first: str
    second: str
    accuracy_difference: Estimate
    mcnemar: McNemar
    test: Significance
    real: bool
    differences: dict[str, Estimate]
    disagreements: int
    disagreeing_images: list[Disagreement]
    verdict: str


class Comparison(Displayed, Document):
    """What `foveola compare --json` prints. `scope` says what the verdicts hold for: the trained models or recipes."""

    data: DataSummary
    split: str
    n: int
    seeds: int
    scope: str = ""
    measured_on: str
    runs: list[ComparedRun]
    pairs: list[ComparedPair]
    scaling: list[ParametersByImageSize]

    def __repr__(self) -> str:
        several = len(self.pairs) > 1
        verdicts = [(f"{pair.first} and {pair.second}: " if several else "") + pair.verdict for pair in self.pairs]
        images = f"{self.n:,} {self.split} images of {self.data.name}"
        return printable(f"Comparison({len(self.runs)} runs on {images}: {'; '.join(verdicts)})")


# An audit


# What can be said of label suspects
Certainty = Literal["likely errors", "hard or mislabelled", "no better than guessing"]


class AuditedData(Part):
    """Which data set, by content, how many images each split has, and how many groups all of them; None without any."""

    name: str
    fingerprint: str
    splits: dict[str, int]
    groups: int | None = None


class AuditSettings(Part):
    """How the networks of an audit were trained."""

    recipe: str
    epochs: int
    minimum_steps: int
    folds: int
    rounds: int
    seed: int


class ImagePlace(Part):
    """An image by its split and its index within the split."""

    split: str
    index: int


class LabelSuspect(ImagePlace):
    """An image whose label is doubted: given class, suggested class, and the probability of the given one."""

    path: str | None
    given: str
    suggested: str
    score: float


class DuplicateInfo(Part):
    """What is said of a group of duplicates: their labels, whether these differ, and whether they cross splits."""

    kind: Literal["exact", "near"]
    labels: list[str]
    conflicting: bool
    across_splits: bool


class AuditedOutlier(ImagePlace):
    """An image unlike the rest of its class."""

    path: str | None
    kind: str
    label: str
    detail: str
    score: float


class RandomSplit(Part):
    """Duplicates that a random split of undivided data puts on both sides: expected groups, and held-out images."""

    held_out: float
    groups: float
    images: float


class RetrainedRow(Part):
    """Accuracy of a network trained on these images, on all test images and without the suspects among them."""

    trained_on: str
    images: int
    accuracy: Estimate
    accuracy_without_suspects: Estimate


class Retrained(Part):
    """What the label suspects cost."""

    test_split: str
    rows: list[RetrainedRow]


class Audit(Displayed, Document):
    """`audit.json`, and what `foveola audit --json` prints. `duplicate_groups` describes `duplicates`, row by row.

    `likely_label_errors` is what confident learning estimates; `label_certainty` says whether it can be relied on.
    `guessing` is the accuracy of always naming the most frequent class. `unjudged` counts images of classes whose other
    images are all copies of them, or none. `near_copies_apart` says that near copies connect so many images of a class
    that only exact copies shared a fold. `leaked_by_group` counts validation and test images whose group is also in
    training. `series` is a pattern for `--groups` where file names look like series.
    """

    data: AuditedData
    settings: AuditSettings
    cross_fitted_accuracy: Estimate
    guessing: float | None = None
    label_certainty: Certainty = "likely errors"
    unjudged: int = 0
    near_copies_apart: bool = False
    leaked_by_group: int = 0
    series: str | None = None
    random_split: RandomSplit | None = None
    likely_label_errors: int
    label_suspects: list[LabelSuspect]
    duplicates: list[list[ImagePlace]]
    duplicate_groups: list[DuplicateInfo]
    oddities: list[AuditedOutlier]
    class_balance: dict[str, dict[str, int]]
    retrained: Retrained | None
    files: list[str]
    seconds: float

    def __repr__(self) -> str:
        images = f"{sum(self.data.splits.values()):,} images"
        if self.label_certainty == "likely errors":
            suspects = f"{self.likely_label_errors:,} likely label errors"
        else:
            suspects = f"{len(self.label_suspects):,} label suspects ({self.label_certainty})"
        found = f"{suspects}, {len(self.duplicates):,} groups of duplicates, {len(self.oddities):,} outliers"
        return f"Audit({self.data.name!r}, {images}: {found})"


# What there is


class LayerRow(Part):
    """One layer of a network; `layers` are those inside it, which its figures include."""

    name: str
    type: str
    output_shape: list[int]
    parameters: int
    multiply_adds: int
    layers: list["LayerRow"] = []


class Summary(Displayed, Document):
    """What `foveola summary --json` prints."""

    recipe: str
    input_shape: list[int]
    layers: list[LayerRow]
    parameters: int
    non_trainable: int
    multiply_adds: int
    diagram: str | None

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.input_shape))
        costs = f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds"
        return f"Summary({self.recipe} on {shape}: {len(self.layers)} layers, {costs})"


class CatalogRow(Part):
    """A data set known by name; `path` is where it lies on this machine, "embedded", or None."""

    name: str
    title: str
    train: int
    test: int
    image_shape: list[int]
    classes: list[str]
    licence: str
    citation: str
    path: str | None


class Catalog(Displayed, Document):
    """What `foveola datasets --json` prints."""

    datasets: list[CatalogRow]

    def __repr__(self) -> str:
        return f"Catalog({', '.join(row.name for row in self.datasets)})"


class Packed(Document):
    """What `foveola pack --json` prints.

    `splits` counts images, `bytes` are those of the pixels, and `in_memory` says whether a training reads all of them
    at once. `groups` is the pattern by which images were grouped, `series` one that would where file names look like
    series. `skipped` lists the unreadable files that were left out.
    """

    path: str
    name: str
    fingerprint: str
    splits: dict[str, int]
    classes: list[str]
    image_shape: list[int]
    bytes: int
    in_memory: bool
    skipped: list[str]
    groups: str | None
    series: str | None


class Environment(Document):
    """What `foveola info --json` prints. `threads` and `precision` are known where PyTorch is installed.

    `pretrained_weights` says where each file is on this machine, or null. `defaults_file` is the foveola.toml or
    pyproject.toml whose `defaults` of options are in force in the working folder, or null.
    """

    versions: dict[str, str]
    platform: str
    data_folder: str | None
    cache_folder: str
    defaults_file: str | None = None
    defaults: dict[str, Any] = {}
    pretrained_weights: dict[str, str | None]
    processors: int | None
    threads: int | None = None
    device: str
    precision: str | None = None

    @model_serializer(mode="wrap")
    def _known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        unknown = [name for name in ("threads", "precision") if document[name] is None]
        return {name: value for name, value in document.items() if name not in unknown}


# A learning rate


class LearningRateCurve(Document):
    """What `foveola train --find-rate --json` prints: training loss over learning rate, a value for each step.

    `smoothed` is the exponential moving average of `losses`, and `lowest` the learning rate where it is lowest.
    `settings` are the values of --set that use the suggestion; there is none if the loss hardly fell.
    """

    data: str
    recipe: str
    optimizer: str
    schedule: str
    recipe_learning_rate: float
    seed: int
    learning_rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool
    lowest: float | None
    suggestion: float | None
    settings: list[str]
    files: list[str]
    seconds: float


# A tuning

Objective = Literal["log_loss", "accuracy"]


class TunedTrial(Part):
    """One recipe that was tried. `start`: the recipe to start from. `scores`: one a fold; `value` is their mean."""

    number: int
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    value: float | None
    scores: list[float] = []
    seconds: float | None = None
    start: bool = False
    reason: str | None = None
    values: dict[str, str | int | float | bool]


class Tuning(Document):
    """`tuning.json`, and what `foveola tune --json` prints.

    `value` of a trial is measured on validation images, and of the best one optimistic, because it is the best of many;
    `evaluation` holds the metrics of the best recipe, trained on its own with `final_seed`, on the test split. It is
    null if the data has none, or while another process is still tuning.
    """

    data: str
    fingerprint: str
    recipe: str
    space: dict[str, Any]
    objective: Objective
    judged_by: str
    folds: int | None
    repeats: int
    seed: int
    final_seed: int
    study: str
    study_name: str
    trials: list[TunedTrial]
    start: TunedTrial | None
    best: TunedTrial
    importances: dict[str, float]
    run: str | None = None
    evaluation: Evaluation | None = None
    files: list[str]
    seconds: float
