"""Metrics of models that give any number of labels an image, from logits and labels, N×K; thresholds of the labels.

Values are those of scikit-learn. Intervals come from a bootstrap over the images, or over their groups, in which an
image counts by its weight as often as it is drawn; fractions of images have Wilson's interval.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from foveola.evaluation.intervals import fraction
from foveola.predictions import Estimate, Predictions
from foveola.tasks import THRESHOLD, log_losses

Floats = NDArray[np.float64]
# A figure, or K of them, R or R×K, for R draws of the images, in which they have these weights, R×N
Statistic = Callable[[Floats], Floats]

RESAMPLES = 1000
# Weights that are in memory at once
_MAX_WEIGHTS = 2**22


class LabelMetrics(BaseModel):
    """One label: precision, recall, F1 and average precision with 95 % intervals; `support` images have it.

    It is predicted if its probability is at least `threshold`. Ratios without images are not defined.
    """

    name: str
    threshold: float
    support: int = Field(ge=0)
    predicted: int = Field(ge=0)
    precision: Estimate
    recall: Estimate
    f1: Estimate
    average_precision: Estimate


def per_label(predictions: Predictions) -> list[LabelMetrics]:
    """The metrics of each label, K."""
    labels, predicted = predictions.labels.astype(bool), predictions.predicted.astype(bool)
    f1 = _bootstrap_each(predictions, lambda weights: _f1(_Counts.of(predictions, weights)))
    areas = _bootstrap_each(predictions, _average_precisions(predictions))
    thresholds = predictions.thresholds or (THRESHOLD,) * len(predictions.class_names)
    return [
        LabelMetrics(
            name=name,
            threshold=thresholds[k],
            support=int(labels[:, k].sum()),
            predicted=int(predicted[:, k].sum()),
            precision=_fraction_among(predictions, labels[:, k], predicted[:, k]),
            recall=_fraction_among(predictions, predicted[:, k], labels[:, k]),
            f1=f1[k],
            average_precision=areas[k],
        )
        for k, name in enumerate(predictions.class_names)
    ]


def subset_accuracy(predictions: Predictions) -> Estimate:
    """Share of images of which exactly the true labels are predicted, with Wilson's interval."""
    return fraction(predictions.right, predictions.groups, predictions.weights)


def mean_average_precision(predictions: Predictions) -> Estimate:
    """Mean over the labels of the average precision: the area under the curve of precision over recall, in steps.

    Labels that no image has are left out.
    """
    areas = _average_precisions(predictions)
    return _bootstrap(predictions, lambda weights: _mean_defined(areas(weights)))


def macro_f1(predictions: Predictions) -> Estimate:
    """Mean over the labels of the harmonic mean of precision and recall.

    Labels that are neither true nor predicted are left out.
    """
    return _bootstrap(predictions, lambda weights: _mean_defined(_f1(_Counts.of(predictions, weights))))


def micro_f1(predictions: Predictions) -> Estimate:
    """Harmonic mean of precision and recall over all pairs of an image and a label."""
    return _bootstrap(predictions, lambda weights: _f1(_Counts.of(predictions, weights).total))


def log_loss(predictions: Predictions) -> Estimate:
    """Mean negative log-likelihood of the labels, in nats, over images and labels; nothing is clipped."""
    losses = log_losses(predictions.logits, predictions.labels)
    return _bootstrap(predictions, lambda weights: weights @ losses / weights.sum(axis=1))


def best_thresholds(probabilities: Floats, labels: NDArray[Any], weights: Floats | None = None) -> tuple[float, ...]:
    """For each label the probability from which on it is predicted, such that its F1 on these images is largest.

    Between two probabilities that occur, it lies in the middle; of several as good, the nearest to 0.5 is taken, which
    is also the threshold of a label that no image has.

    Parameters
    ----------
    probabilities : float array, N×K, of images that the network has not learnt from
    labels : bool N×K
    weights : of the images, N

    Examples
    --------
    >>> best_thresholds(np.array([[0.1], [0.3], [0.4]]), np.array([[False], [True], [True]]))
    (0.2,)
    """
    own = np.ones(len(labels)) if weights is None else weights
    return tuple(_best_threshold(probabilities[:, k], labels[:, k], own) for k in range(labels.shape[1]))


def _best_threshold(scores: Floats, positive: NDArray[Any], weights: Floats) -> float:
    order = np.argsort(-scores, kind="stable")
    scores, true = scores[order], (weights * positive)[order]
    if not true.any():
        return THRESHOLD
    last = np.flatnonzero(np.diff(scores, append=-1.0))  # of each run of equal scores
    f1 = 2 * true.cumsum()[last] / (weights[order].cumsum()[last] + true.sum())
    thresholds = (scores[last] + np.append(scores[last][1:], 0.0)) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(thresholds[best[abs(thresholds[best] - THRESHOLD).argmin()]])


def _fraction_among(predictions: Predictions, hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Estimate:
    """The fraction of hits, N, among some of the images, N."""
    groups, weights = predictions.groups, predictions.weights
    if not among.any() or (weights is not None and not weights[among].any()):
        return Estimate(math.nan, math.nan, math.nan, int(among.sum()), "undefined: no images")
    return fraction(hits[among], None if groups is None else groups[among], None if weights is None else weights[among])


# The statistics


class _Counts:
    """True positives, predicted and true labels, R×K each or R×1, by the weights of R draws."""

    def __init__(self, hits: Floats, predicted: Floats, true: Floats) -> None:
        self.hits, self.predicted, self.true = hits, predicted, true

    @classmethod
    def of(cls, predictions: Predictions, weights: Floats) -> "_Counts":
        predicted, true = predictions.predicted.astype(np.float64), predictions.labels.astype(np.float64)
        return cls(weights @ (predicted * true), weights @ predicted, weights @ true)

    @property
    def total(self) -> "_Counts":
        """Over all labels, R."""
        return _Counts(*(each.sum(axis=1) for each in (self.hits, self.predicted, self.true)))


def _f1(counts: _Counts) -> Floats:
    """NaN where nothing is true or predicted."""
    return _ratio(2 * counts.hits, counts.predicted + counts.true)


def _average_precisions(predictions: Predictions) -> Statistic:
    """The average precision of each label, R×K; NaN where no image has it."""
    ordered = []
    for k in range(len(predictions.class_names)):
        scores = predictions.logits[:, k]
        order = np.argsort(-scores, kind="stable")
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        ordered.append((order, last, predictions.labels[order, k].astype(np.float64)))

    def areas(weights: Floats) -> Floats:
        columns = []
        for order, last, positive in ordered:
            drawn = weights[:, order]
            every, true = drawn.cumsum(axis=1)[:, last], (drawn * positive).cumsum(axis=1)[:, last]
            gained = np.diff(true, axis=1, prepend=0.0)
            precision = np.divide(true, every, out=np.zeros_like(true), where=every > 0)
            columns.append(_ratio((gained * precision).sum(axis=1), true[:, -1]))
        return np.stack(columns, axis=1)

    return areas


def _ratio(numerators: Floats, denominators: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=denominators > 0)


def _mean_defined(values: Floats) -> Floats:
    """Mean of each row, R×K, over what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


# The bootstrap


def _bootstrap(predictions: Predictions, statistic: Statistic) -> Estimate:
    return _bootstrap_each(predictions, lambda weights: statistic(weights)[:, None])[0]


def _bootstrap_each(predictions: Predictions, statistic: Statistic) -> list[Estimate]:
    """The K values of a statistic with their percentile intervals (Efron 1979)."""
    own = np.ones(len(predictions)) if predictions.weights is None else predictions.weights
    values = statistic(own[None])[0]
    drawn = np.concatenate([statistic(weights) for weights in _draws(predictions, own)])
    what = "images" if predictions.groups is None else "groups"
    method = f"percentile bootstrap over {what}, {RESAMPLES} resamples"
    estimates = []
    for value, column in zip(values, drawn.T, strict=True):
        column = column[~np.isnan(column)]
        if np.isnan(value) or not len(column):
            estimates.append(Estimate(math.nan, math.nan, math.nan, len(predictions), "undefined: no image has it"))
            continue
        low, high = np.percentile(column, (2.5, 97.5))
        estimates.append(
            Estimate(float(value), float(min(low, value)), float(max(high, value)), len(predictions), method)
        )
    return estimates


def _draws(predictions: Predictions, own: Floats) -> Iterator[Floats]:
    """Yield weights of the images, R×N, in all of RESAMPLES draws of images, or of whole groups, with replacement."""
    n, generator = len(predictions), np.random.default_rng(0)
    units = np.arange(n) if predictions.groups is None else np.unique(predictions.groups, return_inverse=True)[1]
    count, at_once = int(units.max()) + 1, max(_MAX_WEIGHTS // n, 1)
    for start in range(0, RESAMPLES, at_once):
        times = [
            np.bincount(generator.integers(count, size=count), minlength=count)
            for _ in range(min(at_once, RESAMPLES - start))
        ]
        yield own * np.stack(times)[:, units]
