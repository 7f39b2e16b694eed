"""The numbers behind the plots of a report, from logits and labels alone: all of them stand in evaluation.json."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from foveola.evaluation.calibration import calibration_error
from foveola.evaluation.intervals import fraction
from foveola.evaluation.metrics import confusion
from foveola.evaluation.rejection import coverage_at, risk_coverage
from foveola.images import Labels
from foveola.predictions import Predictions
from foveola.tasks import log_losses, softmax

# What a line in a plot needs, and a reader of evaluation.json can bear
MAX_POINTS = 80
MAX_LISTED = 24
BINS = 15


class ConfusedPair(NamedTuple):
    """Two classes, and how many images of each are taken for the other."""

    first: int
    second: int
    first_as_second: int
    second_as_first: int

    @property
    def images(self) -> int:
        return self.first_as_second + self.second_as_first


class RocCurve(BaseModel):
    """One class against all others; `auc` is None and there are no points where the curve is not defined."""

    name: str
    auc: float | None
    false_positive_rate: list[float]
    true_positive_rate: list[float]


class ReliabilityBin(BaseModel):
    """Mean confidence, accuracy with Wilson's 95 % interval, and the number of images."""

    confidence: float
    accuracy: float
    low: float
    high: float
    n: int


class Reliability(BaseModel):
    """Calibration error, corrected for chance, log loss, and bins of equal numbers of images, least certain first."""

    ece: float
    log_loss: float
    bins: list[ReliabilityBin]


class ReliabilityDiagram(BaseModel):
    """Reliability before and after the temperature; `bins` says how images were binned."""

    temperature: float
    bins: str
    before: Reliability
    after: Reliability


class RiskCoverage(BaseModel):
    """Error rate of the most confident predictions over their fraction of all images, without weights."""

    coverage: list[float]
    risk: list[float]
    coverage_at_1_percent: float


class ConfusedClasses(BaseModel):
    """Two classes, and how many images of each are taken for the other."""

    classes: tuple[str, str]
    taken_for_the_other: tuple[int, int]


class PredictedImage(BaseModel):
    """An image by its index in the split: true class, predicted class, and the probability of that one."""

    index: int
    true: str
    given: str
    probability: float


class Curves(BaseModel):
    """What the plots of a report show. Classes go by their names, images by their index in the split."""

    roc: list[RocCurve]
    reliability: ReliabilityDiagram
    risk_coverage: RiskCoverage
    confused_pairs: list[ConfusedClasses]
    worst_mistakes: list[PredictedImage]
    least_certain: list[PredictedImage]


def curves(predictions: Predictions, temperature: float) -> Curves:
    """The points of a report's plots.

    Parameters
    ----------
    predictions : logits, divided by the temperature already, and labels of N images
    temperature : what the logits were divided by
    """
    names = predictions.class_names
    coverage, risk = _thin(*risk_coverage(predictions))
    return Curves(
        roc=[roc(predictions, label) for label in range(len(names))],
        reliability=ReliabilityDiagram(
            temperature=temperature,
            bins=f"{BINS} of equal numbers of images",
            before=reliability(predictions.logits * temperature, predictions.labels, predictions.weights),
            after=reliability(predictions.logits, predictions.labels, predictions.weights),
        ),
        risk_coverage=RiskCoverage(
            coverage=coverage.tolist(), risk=risk.tolist(), coverage_at_1_percent=coverage_at(predictions, 0.01)
        ),
        confused_pairs=[
            ConfusedClasses(classes=(names[pair.first], names[pair.second]), taken_for_the_other=pair[2:])
            for pair in confused_pairs(confusion(predictions))[:MAX_LISTED]
        ],
        worst_mistakes=[_prediction(predictions, index) for index in worst_mistakes(predictions)[:MAX_LISTED]],
        least_certain=[_prediction(predictions, index) for index in least_certain(predictions)[:MAX_LISTED]],
    )


def roc(predictions: Predictions, label: int) -> RocCurve:
    """The ROC curve of one class against all others, with its area.

    Of a long curve, points are left out evenly along its length, so that the corner keeps its shape; the area is that
    of the whole curve.
    """
    name, positive = predictions.class_names[label], predictions.labels == label
    counting = True if predictions.weights is None else predictions.weights > 0
    if not (positive & counting).any() or not (~positive & counting).any():
        return RocCurve(name=name, auc=None, false_positive_rate=[], true_positive_rate=[])
    false, true = _roc_points(positive, predictions.probabilities[:, label], predictions.weights)
    thin_false, thin_true = _thin(false, true)
    return RocCurve(
        name=name,
        auc=float(np.trapezoid(true, false)),
        false_positive_rate=thin_false.tolist(),
        true_positive_rate=thin_true.tolist(),
    )


def _roc_points(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates: (0, 0), the strictest threshold, those where the curve turns, and (1, 1)."""
    own = np.ones(len(scores)) if weights is None else weights
    order = (-scores).argsort(kind="stable")
    order = order[own[order] > 0]
    scores, counts = scores[order], np.stack([~positive, positive])[:, order] * own[order]
    last = np.flatnonzero(np.diff(scores, append=-1.0))  # of each run of equal scores
    points = np.concatenate([np.zeros((2, 1)), counts.cumsum(axis=1)[:, last]], axis=1)
    turns = np.flatnonzero(np.diff(points, n=2).any(axis=0)) + 1
    false, true = points[:, np.unique([0, 1, *turns, points.shape[1] - 1])]
    return false / false[-1], true / true[-1]


def reliability(
    logits: NDArray[np.floating], labels: Labels, weights: NDArray[np.float64] | None = None
) -> Reliability:
    """Accuracy against confidence, in bins of equal numbers of images; those of weight 0 are in none."""
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), logits.argmax(axis=1) == labels
    order = confidence.argsort(kind="stable")
    if weights is not None:
        order = order[weights[order] > 0]
    bins = []
    for members in np.array_split(order, min(BINS, len(order))):
        own = None if weights is None else weights[members]
        accuracy = fraction(right[members], weights=own)
        bins.append(
            ReliabilityBin(
                confidence=float(np.average(confidence[members], weights=own)),
                accuracy=accuracy.value,
                low=accuracy.low,
                high=accuracy.high,
                n=len(members),
            )
        )
    return Reliability(
        ece=calibration_error(probabilities, labels, weights).value,
        log_loss=float(np.average(log_losses(logits, labels), weights=weights)),
        bins=bins,
    )


def confused_pairs(counts: NDArray[np.int64]) -> list[ConfusedPair]:
    """Pairs of classes of which an image is taken for the other, most confused first.

    Parameters
    ----------
    counts : the confusion matrix, K×K, true classes in rows
    """
    above = np.triu(counts + counts.T, k=1)
    pairs = [
        ConfusedPair(int(first), int(second), int(counts[first, second]), int(counts[second, first]))
        for first, second in np.argwhere(above)
    ]
    return sorted(pairs, key=lambda pair: -pair.images)


def worst_mistakes(predictions: Predictions) -> NDArray[np.int64]:
    """Indices of the wrong predictions, the most confident first: either the model or the label is badly wrong.

    Of several labels an image, those of the largest loss come first.
    """
    wrong = np.flatnonzero(~predictions.right)
    if predictions.task == "multiclass":
        sure = predictions.probabilities[wrong].max(axis=1)
    else:
        sure = log_losses(predictions.logits[wrong], predictions.labels[wrong])
    order: NDArray[np.int64] = wrong[(-sure).argsort(kind="stable")]
    return order


def least_certain(predictions: Predictions) -> NDArray[np.int64]:
    """Indices of all images, those first whose most probable class has the lowest probability."""
    order: NDArray[np.int64] = predictions.probabilities.max(axis=1).argsort(kind="stable")
    return order


def neighbours(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The classes in an order in which confused ones stand side by side: average linkage, leaves ordered optimally.

    Bar-Joseph et al. 2001; two classes are the nearer, the larger the fraction of their images that are confused.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(counts) < 3:
        return np.arange(len(counts))
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    distances = 1 - np.sqrt((fractions + fractions.T) / 2)
    np.fill_diagonal(distances, 0)
    order: NDArray[np.int64] = leaves_list(linkage(squareform(distances), "average", optimal_ordering=True))
    return order


def principal_plane(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """The plane along which vectors, N×D, differ most: points in it, N×2, and its fraction of all variance."""
    from sklearn.decomposition import PCA

    flat = np.asarray(vectors, dtype=np.float32)
    if min(flat.shape) < 2 or not np.ptp(flat, axis=0).any():
        return np.zeros((len(flat), 2)), 0.0
    plane = PCA(2, svd_solver="randomized", random_state=0).fit(flat)
    return plane.transform(flat).astype(np.float64), float(plane.explained_variance_ratio_.sum())


def neighbour_map(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points, N×2, of which those lie side by side whose vectors, N×D, point the same way.

    t-SNE (van der Maaten and Hinton 2008) of the 30 principal components of the vectors at unit length, started from
    the first two. Only nearness means something: neither the axes nor the distance of far points.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    flat = np.asarray(vectors, dtype=np.float32)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    if min(unit.shape) < 2 or not np.ptp(unit, axis=0).any():
        return np.zeros((len(unit), 2))
    main = PCA(min(30, *unit.shape), svd_solver="randomized", random_state=0).fit_transform(unit)
    perplexity = min(30.0, (len(main) - 1) / 3)
    # One thread: so few points are no work for more, which only wait for each other, and the sums keep their order
    with threadpool_limits(1):
        points: NDArray[np.float64] = TSNE(
            perplexity=perplexity, init="pca", max_iter=500, random_state=0
        ).fit_transform(main)
    return points


def _prediction(predictions: Predictions, index: int) -> PredictedImage:
    given = int(predictions.predicted[index])
    return PredictedImage(
        index=int(index),
        true=predictions.class_names[predictions.labels[index]],
        given=predictions.class_names[given],
        probability=float(predictions.probabilities[index, given]),
    )


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most about POINTS points of a line, evenly spread along its length, the ends included."""
    if len(x) <= MAX_POINTS:
        return x, y
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], MAX_POINTS)))
    return x[kept], y[kept]
