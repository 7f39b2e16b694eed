"""What a model is worth on labelled images: figures with intervals, from logits and labels alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.errors import ModelError
from foveola.evaluation.calibration import calibration_gaps, log_losses
from foveola.evaluation.intervals import mean_interval, wilson
from foveola.predictions import Estimate, Predictions


def evaluate(predictions: Predictions, split: str) -> dict[str, Any]:
    """All that is measured, as the JSON document of a run's evaluation.json.

    Parameters
    ----------
    predictions : logits and labels of N images
    split : the name of the split they come from, such as "test"

    Returns
    -------
    split, n, held_out, every metric as {value, low, high, n, method}, per_class and confusion; plain Python values,
    None where a figure is not defined

    Raises
    ------
    ModelError
        If the logits are not finite.
    """
    if not np.isfinite(predictions.logits).all():
        raise ModelError(
            "The model gives NaN or infinite logits, so that nothing can be measured. Its weights are damaged or its "
            "training diverged: train it again with a lower learning rate."
        )
    return {
        "split": split,
        "n": len(predictions),
        "held_out": bool(predictions.held_out),
        **{name: metric(predictions).as_json() for name, metric in METRICS.items()},
        "per_class": per_class(predictions),
        "confusion": confusion(predictions).tolist(),
    }


def accuracy(predictions: Predictions) -> Estimate:
    """Share of images whose most probable class is the true one, with Wilson's interval."""
    return wilson(int((predictions.predicted == predictions.labels).sum()), len(predictions))


def log_loss(predictions: Predictions) -> Estimate:
    """Mean negative log-likelihood of the true class, in nats; nothing is clipped."""
    return mean_interval(log_losses(predictions.logits, predictions.labels))


def brier(predictions: Predictions) -> Estimate:
    """Squared distance between probabilities and truth, summed over the classes (Brier 1950): 0 (best) to 2."""
    truth = np.eye(len(predictions.class_names))[predictions.labels]
    return mean_interval(((predictions.probabilities - truth) ** 2).sum(axis=1))


def auc_macro_ovr(predictions: Predictions) -> Estimate:
    """Area under the ROC curve of each class against all others, averaged over the classes with equal weight.

    Classes that do not occur among the labels are left out of the mean, and `method` says so; with a single class
    the figure is NaN. The interval is DeLong's (DeLong et al. 1988), with each image's structural components summed
    over the classes, so that the covariance between classes counts. Where the classes are separated perfectly there
    is no spread to learn from, and the interval is the point 1.
    """
    from sklearn.metrics import roc_auc_score

    n, classes = predictions.probabilities.shape
    occurring = np.unique(predictions.labels)
    if len(occurring) < 2:
        return Estimate(math.nan, math.nan, math.nan, n, "undefined: a single class occurs")
    areas = []
    components = np.zeros(n)
    for label in occurring:
        scores, positive = predictions.probabilities[:, label], predictions.labels == label
        areas.append(roc_auc_score(positive, scores))
        components += _structural_components(scores, positive, areas[-1])
    value = float(np.mean(areas))
    margin = 1.959964 * float(np.linalg.norm(components / len(occurring)))
    method = "DeLong" if len(occurring) == classes else f"DeLong, {len(occurring)} of {classes} classes occur"
    return Estimate(value, max(value - margin, 0.0), min(value + margin, 1.0), n, method)


def ece(predictions: Predictions) -> Estimate:
    """Expected calibration error of the most probable class, in 15 bins of equal numbers of images: 0 (best) to 1.

    The interval keeps bins and signs as they are found. Resampling those too would repeat the error's upward bias,
    and give intervals that lie above the figure itself.
    """
    estimate = mean_interval(calibration_gaps(predictions.probabilities, predictions.labels))
    return replace(estimate, low=max(estimate.low, 0.0))


METRICS: dict[str, Callable[[Predictions], Estimate]] = {
    "accuracy": accuracy,
    "log_loss": log_loss,
    "brier": brier,
    "auc_macro_ovr": auc_macro_ovr,
    "ece": ece,
}


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
    """Name, precision, recall, F1 and support (number of images) of each class; 0 where a ratio has no images."""
    from sklearn.metrics import precision_recall_fscore_support

    names = predictions.class_names
    columns = precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=range(len(names)), zero_division=0.0
    )
    return [
        {"name": name, "precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    ]


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """Number of images by true class (rows) and most probable class (columns), int64 K×K."""
    from sklearn.metrics import confusion_matrix

    labels = range(len(predictions.class_names))
    matrix: NDArray[np.int64] = confusion_matrix(predictions.labels, predictions.predicted, labels=labels)
    return matrix


def _structural_components(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], area: float
) -> NDArray[np.float64]:
    """Each image's share in the error of one area, N: the sum of squares is DeLong's variance.

    By ranks, as in Sun and Xu 2014: the rank among all minus the rank in its own group counts the images of the other
    group below, ties half.
    """
    from scipy.stats import rankdata

    below = rankdata(scores)
    below[positive] -= rankdata(scores[positive])
    below[~positive] -= rankdata(scores[~positive])
    positives = int(positive.sum())
    negatives = len(scores) - positives
    placements = np.where(positive, below / negatives, 1 - below / positives)
    own = np.where(positive, positives, negatives)
    shares: NDArray[np.float64] = (placements - area) / np.sqrt(own * np.maximum(own - 1, 1))
    return shares
