"""Predictor, Predictions and Estimate: what models give and metrics take, as arrays."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

from foveola.display import Displayed
from foveola.images import Images, Labels
from foveola.models.metadata import ModelMetadata
from foveola.models.unfamiliarity import Outputs
from foveola.tasks import Task, decide, probabilities, task_of


class Predictor(Protocol):
    """A live classifier or a reopened export."""

    @property
    def metadata(self) -> ModelMetadata:
        """Class names and preprocessing, and what the model has learnt from."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def predict_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C."""
        ...


class Exported(Predictor, Protocol):
    """A predictor without PyTorch: a reopened export."""

    def feature_maps(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """By layer name: float32 N×h×w×c or N×units of images, uint8 N×H×W×C."""
        ...

    def penultimate_features(self, images: Images) -> NDArray[np.float32]:
        """The last vector before the logits, float32 N×D, of images, uint8 N×H×W×C."""
        ...


def predict_outputs(predictor: Predictor, images: Images) -> Outputs:
    """Logits and scores of unfamiliarity of images, uint8 N×H×W×C, in one pass if the predictor offers both."""
    if hasattr(predictor, "predict_outputs"):
        outputs: Outputs = predictor.predict_outputs(images)
        return outputs
    return Outputs(predictor.predict_logits(images))


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Logits with the true labels.

    Parameters
    ----------
    logits : float array, N×K
    labels : integer array, N; or bool N×K, which labels each image has
    class_names : K names
    held_out : True if the model has never learnt from these images
    groups : integer array, N: images with the same number show the same object. None: every image stands for itself
    weights : float array, N: how much each image counts in the metrics. None: all count the same
    thresholds : K, for several labels an image: a label is predicted from this probability on. None: 0.5 each
    """

    logits: NDArray[np.float32]
    labels: Labels
    class_names: tuple[str, ...]
    held_out: bool
    groups: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    thresholds: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64], *, held_out: bool) -> "Predictions":
        """The predictions of the images at these indices."""
        groups = None if self.groups is None else self.groups[indices]
        weights = None if self.weights is None else self.weights[indices]
        logits, labels = self.logits[indices], self.labels[indices]
        return Predictions(logits, labels, self.class_names, held_out, groups, weights, self.thresholds)

    def mean(self, values: NDArray[np.floating | np.bool_]) -> float:
        """The mean of a value of each image, N, by the images' weights."""
        return float(np.average(values, weights=self.weights))

    def __repr__(self) -> str:
        learnt = "held out" if self.held_out else "not held out"
        return f"Predictions({len(self):,} images, {len(self.class_names)} classes, {learnt})"

    @property
    def task(self) -> Task:
        """Whether each image has one class (multiclass), or any number of labels (multilabel)."""
        return task_of(self.labels)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Of classes or of labels, float64 N×K."""
        return probabilities(self.logits, self.task)

    @cached_property
    def predicted(self) -> Labels:
        """The most probable class of each image, N; or which labels reach their thresholds, bool N×K."""
        values = self.logits if self.task == "multiclass" else self.probabilities
        return decide(values, self.task, self.thresholds)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether what is predicted of each image is true, N; of several labels, all of them."""
        same = np.equal(self.predicted, self.labels).reshape(len(self), -1)
        right: NDArray[np.bool_] = np.asarray(same.all(axis=1))
        return right


# In JSON, which has no NaN, a value that is not defined is null
Value = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, return_type=float | None),
]


@dataclass(frozen=True, repr=False)
class Estimate(Displayed):
    """A value with its interval.

    `low` and `high` bound the 95 % interval, `n` is the number of images behind it, `method` names the interval.
    Undefined values are NaN, null in JSON.

    >>> print(Estimate(0.9, 0.85, 0.94, 200, "Wilson"))
    0.9000 (95 % CI 0.8500–0.9400)
    """

    value: Value
    low: Value
    high: Value
    n: int
    method: str

    @property
    def is_defined(self) -> bool:
        return not math.isnan(self.value)

    def __repr__(self) -> str:
        return f"Estimate({self.value:.4f}, 95 % CI {self.low:.4f}–{self.high:.4f}, n={self.n}, {self.method})"

    def __str__(self) -> str:
        return f"{self.value:.4f} (95 % CI {self.low:.4f}–{self.high:.4f})"
