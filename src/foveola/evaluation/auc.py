"""Area under the ROC curve, averaged over the classes, with DeLong's interval, and for resampling."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveola.evaluation.intervals import WeightedMetric, effective_number
from foveola.evaluation.student import NORMAL_95
from foveola.predictions import Estimate, Predictions


def auc_macro_ovr(predictions: Predictions) -> Estimate:
    """Area under the ROC curve of each class against all others, averaged over the classes with equal weight.

    Classes that do not occur among the labels are left out of the mean, and `method` says so; with a single class
    the area is NaN. The interval is DeLong's (DeLong et al. 1988) on the scale of log odds, where it cannot leave 0 to
    1, with each image's structural components summed over the classes, so that the covariance between classes counts.

    Where the classes are separated perfectly, there is no spread to estimate. The lower bound is then the least area
    at which so many images are in order with a probability of 2.5 %, however scores are distributed: as many images of
    the smallest class as go unseen (the rule of three) may lie on the wrong side of all others. Where less disorder is
    seen than can go unseen, the interval reaches as far below the value.
    """
    n, classes = predictions.probabilities.shape
    weights = np.ones(n) if predictions.weights is None else predictions.weights
    occurring = np.unique(predictions.labels[weights > 0])
    if len(occurring) < 2:
        return Estimate(math.nan, math.nan, math.nan, n, "undefined: a single class occurs")
    areas = []
    components = np.zeros(n)
    for label in occurring:
        area, parts = _area(predictions.probabilities[:, label], predictions.labels == label, weights)
        areas.append(area)
        components += parts
    value = float(np.mean(areas))
    low = high = value
    if 0 < value < 1:
        margin = NORMAL_95 * float(np.linalg.norm(components / len(occurring))) / (value * (1 - value))
        odds = value / (1 - value)
        low, high = (odds / (odds + math.exp(-sign * margin)) for sign in (-1, 1))
    unseen = _unseen_disorder(np.array([effective_number(weights[predictions.labels == k]) for k in occurring]))
    if value > 1 - unseen:
        low = min(low, max(value - unseen, 0.0))
    if value < unseen:
        high = max(high, value + unseen)
    method = "DeLong" if predictions.weights is None else "DeLong, weighted"
    if len(occurring) < classes:
        method += f", {len(occurring)} of {classes} classes occur"
    return Estimate(value, low, high, n, method)


def _unseen_disorder(supports: NDArray[np.float64]) -> float:
    """How much the macro area can fall without a trace: by images that a sample of these sizes misses in 2.5 %.

    A fraction e of one class lies below all others, and above all members of the largest other class: the area of its
    own class falls by e, that of the other by e times its size among all that are not of the other.
    """
    falls = []
    for label, support in enumerate(supports):
        largest = np.delete(supports, label).max()
        fraction = 1 - 0.025 ** (1 / support)
        falls.append(fraction * (1 + support / (supports.sum() - largest)) / len(supports))
    return float(max(falls))


def _area(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """One area, and each image's part in its error, N: the sum of squares is DeLong's variance.

    An image's placement is the weight of the other group's images below it (above it, of a negative), ties half, as a
    fraction of all their weight. The area is the mean placement of the positives.
    """
    rank = np.unique(scores, return_inverse=True)[1]
    parts: NDArray[np.float64] = np.empty(len(scores))
    area = 0.0
    for own in (positive, ~positive):
        others = np.bincount(rank[~own], weights[~own], minlength=int(rank.max()) + 1)
        through = others.cumsum()
        below = (through - others / 2)[rank[own]] / through[-1]
        placements, shares = below if own is positive else 1 - below, weights[own] / weights[own].sum()
        if own is positive:
            area = float((placements * weights[own]).sum() / weights[own].sum())
        count = effective_number(weights[own])
        correction = np.sqrt(count / (count - 1)) if count > 1 else 1.0
        parts[own] = (placements - area) * shares * correction
    return area, parts


def bootstrap_auc(models: Sequence[Predictions]) -> WeightedMetric:
    """Macro one-vs-rest AUC; NaN where a single class has weight.

    Sorting once, and only counting anew for each resample, is what makes a bootstrap of the AUC affordable.
    """
    labels, classes = models[0].labels, np.unique(models[0].labels)
    members = [np.flatnonzero(labels == label) for label in classes]
    ranks = [[np.unique(model.probabilities[:, k], return_inverse=True)[1] for k in classes] for model in models]

    def areas(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([_mean_area(of_classes, members, weights) for of_classes in ranks])

    return areas


def _mean_area(
    ranks: Sequence[NDArray[np.int64]], members: Sequence[NDArray[np.int64]], weights: NDArray[np.float64]
) -> float:
    """Mean over the classes of the fraction of pairs of a member and another image that are in order, ties half."""
    areas = []
    for rank, positive in zip(ranks, members, strict=True):
        everyone = np.bincount(rank, weights)
        inside = np.bincount(rank[positive], weights[positive], minlength=len(everyone))
        outside = everyone - inside
        pairs = inside.sum() * outside.sum()
        if pairs:
            areas.append(inside @ (outside.cumsum() - outside / 2) / pairs)
    return float(np.mean(areas)) if areas else float("nan")
