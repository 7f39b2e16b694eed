"""Metrics of a classifier from logits and labels, one row each in METRICS; tables, pages and JSON iterate the rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, computed_field

from foveola.errors import DataError, ModelError
from foveola.evaluation import multilabel
from foveola.evaluation.auc import auc_macro_ovr, bootstrap_auc
from foveola.evaluation.calibration import calibration_error, calibration_gaps
from foveola.evaluation.intervals import (
    WeightedMetric,
    effective_number,
    fraction,
    mean_interval,
    wilson,
    wilson_bounds,
)
from foveola.predictions import Estimate, Predictions
from foveola.tasks import Task, log_losses


@dataclass(frozen=True)
class Metric:
    """A row of METRICS.

    Parameters
    ----------
    key : its name in JSON
    title : its name in tables and pages
    meaning : one line for readers who do not know it
    better : which direction is better
    compute : the value with its 95 % interval, of N predictions
    weighted : of M models on the same images, for paired resampling; None where models are not compared by it
    """

    key: str
    title: str
    meaning: str
    better: Literal["higher", "lower"]
    compute: Callable[[Predictions], Estimate]
    weighted: Callable[[Sequence[Predictions]], WeightedMetric] | None = None


class ClassMetrics(BaseModel):
    """One class: precision, recall with Wilson's 95 % interval, F1, and support, the number of its images.

    A ratio without images is 0, and its interval 0 to 1. Where images have weights, these count in the ratios, and
    `effective_support` is the number of images of equal weight that say as much.
    """

    name: str
    precision: float
    recall: float = Field(ge=0, le=1)
    f1: float
    support: int = Field(ge=0)
    effective_support: float | None = Field(None, ge=0, exclude_if=lambda value: value is None)

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def recall_low(self) -> float:
        return self._recall_interval.low

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def recall_high(self) -> float:
        return self._recall_interval.high

    @property
    def _recall_interval(self) -> Estimate:
        if not self.support or self.effective_support == 0:
            return Estimate(0.0, 0.0, 1.0, 0, "no images")
        if self.effective_support is not None:
            return Estimate(self.recall, *wilson_bounds(self.recall, self.effective_support), self.support, "Wilson")
        return wilson(round(self.recall * self.support), self.support)


def compute_metrics(predictions: Predictions) -> dict[str, Estimate]:
    """Every metric of the task by its key; by the images' weights, where they have some.

    Raises
    ------
    ModelError
        If the logits are not finite.
    DataError
        If all images weigh 0.

    Examples
    --------
    >>> import numpy as np
    >>> from foveola.predictions import Predictions
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], np.float32)
    >>> measured = compute_metrics(Predictions(logits, np.array([0, 1, 1]), ("cat", "dog"), held_out=True))
    >>> print(measured["accuracy"])
    0.6667 (95 % CI 0.2077–0.9385)
    """
    if not np.isfinite(predictions.logits).all():
        raise ModelError(
            "The model gives NaN or infinite logits, so nothing can be measured. Its weights are damaged or its "
            "training diverged: train it again with a lower learning rate."
        )
    if predictions.weights is not None and not predictions.weights.any():
        raise DataError(
            f"All {len(predictions):,} images to measure on weigh 0, so that nothing can be measured. Give some of "
            f"them a weight above 0."
        )
    return {key: metric.compute(predictions) for key, metric in metrics_of(predictions.task).items()}


def metrics_of(task: Task) -> dict[str, "Metric"]:
    """The rows of METRICS, or those of several labels an image."""
    return MULTILABEL_METRICS if task == "multilabel" else METRICS


def accuracy(predictions: Predictions) -> Estimate:
    """Share of images whose most probable class is the true one; Wilson's interval accounts for groups and weights."""
    return fraction(predictions.predicted == predictions.labels, predictions.groups, predictions.weights)


def balanced_accuracy(predictions: Predictions) -> Estimate:
    """Mean recall over the classes that occur, each with equal weight (Brodersen et al. 2010).

    The interval is Wilson's, with as many images as would give the variance of the mean recall: see
    `_effective_wilson`.
    """
    return _effective_wilson(predictions, _mean_recall, _recall_influence)


def macro_f1(predictions: Predictions) -> Estimate:
    """Mean F1 over the classes that occur among labels or predictions, each with equal weight.

    F1 is the harmonic mean of precision and recall. The interval is Wilson's, with as many images as would give the
    variance of the mean F1: see `_effective_wilson`.
    """
    return _effective_wilson(predictions, _mean_f1, _f1_influence)


def log_loss(predictions: Predictions) -> Estimate:
    """Mean negative log-likelihood of the true class, in nats; nothing is clipped."""
    return mean_interval(log_losses(predictions.logits, predictions.labels), predictions.weights)


def brier(predictions: Predictions) -> Estimate:
    """Squared distance between probabilities and truth, summed over the classes (Brier 1950): 0 (best) to 2."""
    return mean_interval(_brier_scores(predictions), predictions.weights)


def ece(predictions: Predictions) -> Estimate:
    """Calibration error of the most probable class, corrected for chance: see `calibration_error`."""
    return calibration_error(predictions.probabilities, predictions.labels, predictions.weights)


def per_class(predictions: Predictions) -> list[ClassMetrics]:
    """Precision, recall, F1 and support of each class, K rows."""
    names, labels, weights = predictions.class_names, predictions.labels, predictions.weights
    cells = np.bincount(_cells(predictions), weights, minlength=len(names) ** 2)
    counts = cells.reshape(len(names), -1).astype(np.float64)
    right, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    ratios = [_ratio(right, predicted), _ratio(right, true), _ratio(2 * right, true + predicted)]
    supports = np.bincount(labels, minlength=len(names)).tolist()
    effective = [None if weights is None else _effective(weights[labels == label]) for label in range(len(names))]
    return [
        ClassMetrics(
            name=name, precision=float(precision), recall=float(recall), f1=float(f1), support=support,
            effective_support=size,
        )
        for name, precision, recall, f1, support, size in zip(names, *ratios, supports, effective, strict=True)
    ]  # fmt: skip


def _effective(weights: NDArray[np.float64]) -> float:
    """The effective number of images; 0 without weight."""
    return effective_number(weights) if weights.any() else 0.0


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """Number of images, without their weights, by true class (rows) and most probable class (columns), int64 K×K."""
    classes = len(predictions.class_names)
    cells = np.bincount(_cells(predictions), minlength=classes**2)
    matrix: NDArray[np.int64] = cells.reshape(classes, classes)
    return matrix


# Metrics for resampling, where every image has a weight: how often it is drawn


def bootstrap_mean(values: Callable[[Predictions], NDArray[np.float64]]) -> Callable[..., WeightedMetric]:
    """The weighted mean of per-image values, N."""

    def weighted(models: Sequence[Predictions]) -> WeightedMetric:
        table = np.stack([values(model) for model in models])
        return lambda weights: table @ weights / weights.sum()

    return weighted


def bootstrap_calibration(models: Sequence[Predictions]) -> WeightedMetric:
    """The calibration error; bins, signs and the correction for chance stay as they are found."""
    gaps = bootstrap_mean(lambda model: calibration_gaps(model.probabilities, model.labels))(models)
    corrections = gaps(np.ones(len(models[0]))) - [ece(model).value for model in models]
    return lambda weights: gaps(weights) - corrections


def bootstrap_confusion(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Callable[..., WeightedMetric]:
    """A statistic of the weighted confusion matrix."""

    def weighted(models: Sequence[Predictions]) -> WeightedMetric:
        classes, cells = len(models[0].class_names), [_cells(model) for model in models]

        def values(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            counts = [np.bincount(cell, weights, minlength=classes**2).reshape(classes, classes) for cell in cells]
            return statistic(np.stack(counts))

        return values

    return weighted


def _cells(predictions: Predictions) -> NDArray[np.int64]:
    """The cell of the confusion matrix that each image falls into, row by row, N."""
    cells: NDArray[np.int64] = predictions.labels * len(predictions.class_names) + predictions.predicted
    return cells


def _effective_wilson(
    predictions: Predictions,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    influence: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Estimate:
    """A statistic of the confusion matrix with Wilson's interval for the effective number of images.

    That number (Kish 1965) gives a fraction the variance that the statistic has by the delta method: that of its
    influence function. Both are computed on the matrix with one more image, spread as if labels and predictions were
    independent, so that an interval has a width where no image is wrong. Weighted images are at most as many as Kish's
    effective number, as in `foveola.evaluation.intervals.fraction`.
    """
    n = len(predictions)
    weights = np.ones(n) if predictions.weights is None else predictions.weights
    weights = weights * weights.sum() / np.square(weights).sum()  # their sum is the effective number of images
    size, classes = float(weights.sum()), len(predictions.class_names)
    counts, squares = (
        np.bincount(_cells(predictions), power, minlength=classes**2).reshape(classes, classes).astype(np.float64)
        for power in (weights, np.square(weights))
    )
    value = float(statistic(counts[None])[0])
    spread = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / size**2
    smoothed, smoothed_squares = ((cells + spread) * size / (size + 1) for cells in (counts, squares))
    share = float(statistic(smoothed[None])[0])
    moved = np.square(influence(smoothed))
    variance = float(max((smoothed * moved).sum(), (smoothed_squares * moved).sum()))
    images = min(share * (1 - share) / variance, size) if variance > 0 else size
    low, high = wilson_bounds(value, images)
    return Estimate(value, low, high, n, "Wilson's, for the effective number of images")


def _recall_influence(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much an image in each cell moves the mean recall, K×K."""
    supports = counts.sum(axis=1)
    share = _ratio(1.0, supports)
    moved: NDArray[np.float64] = (np.eye(len(counts)) - (counts.diagonal() * share)[:, None]) * share[:, None]
    moved /= (supports > 0).sum()
    return moved


def _f1_influence(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much an image in each cell moves the mean F1, K×K."""
    twice = counts.sum(axis=0) + counts.sum(axis=1)
    share = _ratio(1.0, twice)
    falls = 2 * counts.diagonal() * share**2
    moved: NDArray[np.float64] = np.diag(2 * share) - falls[:, None] - falls[None, :]
    moved /= (twice > 0).sum()
    return moved


def _ratio(numerators: NDArray[np.float64] | float, denominators: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where there is nothing to divide by."""
    return np.divide(numerators, denominators, out=np.zeros_like(denominators), where=denominators > 0)


def _mean_recall(confusions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean recall, R, of confusion matrices, R×K×K, over the classes that have images."""
    right, supports = np.diagonal(confusions, axis1=1, axis2=2), confusions.sum(axis=2)
    recalls = right / np.maximum(supports, 1e-300)
    means: NDArray[np.float64] = recalls.sum(axis=1) / (supports > 0).sum(axis=1)
    return means


def _mean_f1(confusions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean F1, R, of confusion matrices, R×K×K, over the classes that are true or predicted for some image."""
    right = np.diagonal(confusions, axis1=1, axis2=2)
    twice = confusions.sum(axis=2) + confusions.sum(axis=1)
    scores = 2 * right / np.maximum(twice, 1e-300)
    means: NDArray[np.float64] = scores.sum(axis=1) / (twice > 0).sum(axis=1)
    return means


def _brier_scores(model: Predictions) -> NDArray[np.float64]:
    truth = np.eye(len(model.class_names))[model.labels]
    scores: NDArray[np.float64] = ((model.probabilities - truth) ** 2).sum(axis=1)
    return scores


_ROWS = (
    Metric(
        "accuracy",
        "accuracy",
        "fraction of images whose most probable class is the true one",
        "higher",
        accuracy,
        bootstrap_mean(lambda model: (model.predicted == model.labels).astype(np.float64)),
    ),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        "mean recall over the classes, rare ones counting as much as frequent ones",
        "higher",
        balanced_accuracy,
        bootstrap_confusion(_mean_recall),
    ),
    Metric(
        "macro_f1",
        "macro F1",
        "mean over the classes of the harmonic mean of precision and recall",
        "higher",
        macro_f1,
        bootstrap_confusion(_mean_f1),
    ),
    Metric(
        "auc_macro_ovr",
        "AUC (one-vs-rest, macro)",
        "how well each class is told from the rest; 1 is perfect, 0.5 is chance",
        "higher",
        auc_macro_ovr,
        bootstrap_auc,
    ),
    Metric(
        "log_loss",
        "log loss",
        "mean negative log-likelihood of the true class, in nats; 0 is perfect",
        "lower",
        log_loss,
        bootstrap_mean(lambda model: log_losses(model.logits, model.labels)),
    ),
    Metric(
        "brier",
        "Brier score",
        "squared distance between probabilities and truth; 0 is perfect, 2 the worst",
        "lower",
        brier,
        bootstrap_mean(_brier_scores),
    ),
    Metric(
        "ece",
        "calibration error (ECE)",
        "mean distance between confidence and accuracy, beyond what chance explains; 0 is perfect",
        "lower",
        ece,
        bootstrap_calibration,
    ),
)

METRICS: dict[str, Metric] = {metric.key: metric for metric in _ROWS}
"""Every metric of one class an image by its key in JSON, in the order in which tables and pages show them."""

_MULTILABEL_ROWS = (
    Metric(
        "mean_average_precision",
        "mean average precision (mAP)",
        "mean over the labels of the area under the curve of precision over recall; 1 is perfect",
        "higher",
        multilabel.mean_average_precision,
    ),
    Metric(
        "macro_f1",
        "macro F1",
        "mean over the labels of the harmonic mean of precision and recall",
        "higher",
        multilabel.macro_f1,
    ),
    Metric(
        "micro_f1",
        "micro F1",
        "harmonic mean of precision and recall over all pairs of image and label",
        "higher",
        multilabel.micro_f1,
    ),
    Metric(
        "accuracy",
        "subset accuracy",
        "fraction of images of which exactly the true labels are predicted",
        "higher",
        multilabel.subset_accuracy,
    ),
    Metric(
        "log_loss",
        "log loss",
        "mean negative log-likelihood of a label, in nats; 0 is perfect, 0.69 what a coin reaches",
        "lower",
        multilabel.log_loss,
    ),
)

MULTILABEL_METRICS: dict[str, Metric] = {metric.key: metric for metric in _MULTILABEL_ROWS}
"""Every metric of several labels an image, in the same way."""
