"""`evaluation.json`: the metrics of a model on images."""

from typing import Any, ClassVar

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from foveola.display import Displayed
from foveola.documents.document import Document
from foveola.evaluation.curves import Curves
from foveola.evaluation.metrics import ClassMetrics, metrics_of
from foveola.evaluation.multilabel import LabelMetrics
from foveola.evaluation.rejection import RejectionResult
from foveola.evaluation.unfamiliarity import UnfamiliarityResult
from foveola.predictions import Estimate
from foveola.tasks import Task


class SeenImages(BaseModel):
    """How many of the measured images the model has learnt from (`training`), or was selected by (`validation`).

    `left_out` counts images that were not measured for one of these reasons.
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
    an export does not know its training images. `weighted` is present if the images have weights, `without_copies` if
    the model has seen some images, but not all.

    With several labels an image, `labels` has a row for each label; `per_class` and `confusion` are empty, and there
    are no curves, no calibration error and no rejection.

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
