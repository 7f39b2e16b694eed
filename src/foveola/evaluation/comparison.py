"""Is one model better than another? Paired tests on the same test images, of one training a side or of several.

A side is one training, or several of one recipe that differ in their seed. What one training shows holds for it on
other test images of the kind; what several show holds for the recipe, with other seeds too.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.evaluation.metrics import METRICS, accuracy
from foveola.evaluation.student import student_95, student_tail
from foveola.predictions import Estimate, Predictions

# Of twenty comparisons of equal models, at most one calls them different
SIGNIFICANT = 0.05

Runs = Sequence[Predictions]


@dataclass(frozen=True)
class McNemar:
    """Numbers of images by which of two models is right, and the p-value of McNemar's exact test."""

    both_right: int
    only_first: int
    only_second: int
    neither: int
    p: float


@dataclass(frozen=True)
class TestResult:
    """A difference, first minus second, and how probable one as large is between equals, by the test named."""

    difference: Estimate
    p: float
    test: str


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """McNemar's exact test (McNemar 1947): two-sided binomial over the images that only one model gets right.

    Raises
    ------
    DataError
        If the two were not measured on the same images.
    """
    right, other_right = _right([first, second])
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    differing = only_first + only_second
    p = _fair_coin_p(min(only_first, only_second), differing)
    return McNemar(int((right & other_right).sum()), only_first, only_second, int((~right & ~other_right).sum()), p)


def _fair_coin_p(fewer: int, n: int) -> float:
    """How probable it is that a side of a fair coin comes up at most `fewer` times of n: exact, in whole numbers."""
    if 2 * fewer >= n:
        return 1.0
    ways = outcomes = 1
    for count in range(fewer):
        ways = ways * (n - count) // (count + 1)
        outcomes += ways
    return outcomes / (1 << (n - 1))


def accuracy_difference(first: Runs, second: Runs) -> TestResult:
    """How much higher the first side's accuracy is, and whether that can be chance.

    Parameters
    ----------
    first, second : one training each, or several that agree on every image: Newcombe's interval for paired proportions
        (1998, Statistics in Medicine 17:2635, method 10) and McNemar's exact test; or at least two each: see
        `metric_differences`

    Raises
    ------
    DataError
        If not all were measured on the same images.
    """
    right = _right([*first, *second])
    if all((side == side[0]).all() for side in (right[: len(first)], right[len(first) :])):
        agreed = "" if len(right) == 2 else "; the trainings of a side agree on every image"
        p = mcnemar(first[0], second[0]).p
        return TestResult(_newcombe(first[0], second[0]), p, f"McNemar's exact test{agreed}")
    n = right.shape[1]
    return _over_seeds(right.mean(axis=1), np.cov(right) / n, len(first), n)


def metric_differences(
    first: Runs, second: Runs, resamples: int = 1000, progress: Callable[[int, int], None] | None = None
) -> dict[str, Estimate]:
    """How much higher the first side's metrics are, accuracy apart.

    Every resample draws the same images for all models (the paired bootstrap, Efron and Tibshirani 1993). Of one
    training each, the interval is the percentiles'. Of several, trainings are to images as readers are to cases: the
    variance over the images comes from the bootstrap's covariances between different trainings, that over the
    trainings from their spread (Obuchowski and Rockette 1995), and the interval is Student's with the degrees of
    freedom of Hillis (2014). That spread is at least what the images alone make of it: few trainings can agree by
    chance. Drawing the trainings anew too would be simpler, but where their spread dominates, such intervals of five
    trainings cover the truth in 87 % of cases instead of 95 % (`benchmarks/comparison.py` has the error rates).

    Where no resample differs, as between two models without a mistake, the distances to the bounds of both sides' own
    intervals are added in squares; identical answers have no interval, and `method` says so.

    Parameters
    ----------
    first, second : one training each, or at least two each
    resamples : number of draws with replacement
    progress : called as `progress(done, resamples)`

    Returns
    -------
    Every key of `foveola.evaluation.metrics.METRICS` but accuracy; NaN where a metric is not defined. The calibration
    error keeps its bins, signs and correction as they are found.

    Raises
    ------
    DataError
        If not all were measured on the same images.
    """
    models = [*first, *second]
    n = _right(models).shape[1]
    weighted = {
        key: metric.weighted(models)
        for key, metric in METRICS.items()
        if key != "accuracy" and metric.weighted is not None
    }
    found = {key: metric(np.ones(n)) for key, metric in weighted.items()}
    drawn = {key: np.empty((resamples, len(models))) for key in weighted}
    generator = np.random.default_rng(0)
    for resample in range(resamples):
        weights = np.bincount(generator.integers(n, size=n), minlength=n).astype(np.float64)
        for key, metric in weighted.items():
            drawn[key][resample] = metric(weights)
        if progress is not None:
            progress(resample + 1, resamples)
    differences = {key: _interval(found[key], drawn[key], len(first), n) for key in weighted}
    if all(np.array_equal(model.logits, models[0].logits) for model in models):
        return {key: replace(found, method="identical answers") for key, found in differences.items()}
    return {
        key: _of_own_intervals(key, first[0], second[0], found) if found.low == found.high else found
        for key, found in differences.items()
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the level holds for all of them together."""
    p = np.asarray(p_values, dtype=np.float64)
    order = p.argsort(kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1.0)
    return [float(value) for value in corrected]


def verdict(first: str, second: str, difference: Estimate, p: float, *, trainings: int = 1, same: bool = False) -> str:
    """One sentence: which side is better, by how much, and whether the difference is significant.

    Parameters
    ----------
    first, second : names of the sides
    difference : of the accuracies, first minus second
    p : of the difference, corrected where it is one of several
    trainings : number of trainings a side: what one shows holds for the trained model, what several show for the recipe
    same : True if both predict the same class for every image
    """
    if same:
        return f"no difference: {first} and {second} predict the same class for every image"
    sign = -1 if difference.value < 0 else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    better = second if sign < 0 else first
    digits = 1 if min(abs(low), abs(high)) >= 0.001 else 2
    of_means = f" (means of {trainings} trainings)" if trainings > 1 else ""
    points = f"{100 * abs(difference.value):.{digits}f} points{of_means}"
    interval = f"95 % CI {_minus(low, digits)}{' to ' if low < 0 else '–'}{_minus(high, digits)}"
    these = "the recipes" if trainings > 1 else "these two trained models"
    if is_significant(difference, p):
        return f"{these} differ: {better} is better by {points}, {interval}"
    if difference.value == 0:
        return f"no significant difference between {these}: {first} and {second} are equally accurate, {interval}"
    reason = "the interval includes 0" if low <= 0 else f"{p_text(p)} is not below {SIGNIFICANT:g}"
    return f"no significant difference between {these} ({better} leads by {points}, {interval}): {reason}"


def scope(trainings: int, command: str | None, *, weighted: bool = False) -> str:
    """What a verdict holds for, and how to ask about the recipes.

    Parameters
    ----------
    trainings : number of trainings a side
    command : the command that trains more seeds and compares again, None where it cannot
    weighted : whether the images have weights, which paired tests do not take
    """
    once = " The images have weights, but every image is counted once here." if weighted else ""
    if trainings > 1:
        return f"This holds for the recipes, from {trainings} trainings each: also with other seeds.{once}"
    ask = "train each recipe with several seeds" if command is None else command
    return f"This holds for the trained models: another seed can turn it round. To compare the recipes: {ask}{once}"


def is_significant(difference: Estimate, p: float) -> bool:
    """Whether both the test and the interval rule out chance."""
    return p < SIGNIFICANT and (difference.low > 0 or difference.high < 0)


def p_text(p: float) -> str:
    """A p-value as people write it."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _right(models: Sequence[Predictions]) -> NDArray[np.bool_]:
    """Which images each model gets right, M×N."""
    if models[0].task == "multilabel":
        raise DataError("Models of several labels an image are not compared in pairs yet; compare their metrics.")
    labels = models[0].labels
    if not all(np.array_equal(model.labels, labels) for model in models):
        raise DataError(
            "The models were not measured on the same test images, so that they cannot be compared image by image. "
            "Measure them on the same data."
        )
    if any(model.weights is not None for model in models):
        raise DataError("Paired tests count every image once. Leave out the weights of the images.")
    return np.stack([model.predicted == labels for model in models])


def _newcombe(first: Predictions, second: Predictions) -> Estimate:
    a, b = accuracy(first), accuracy(second)
    phi = _phi(*_right([first, second]))
    value = a.value - b.value
    low = value - _combine_margins(a.value - a.low, b.high - b.value, phi)
    high = value + _combine_margins(a.high - a.value, b.value - b.low, phi)
    return Estimate(value, low, high, len(first), "Newcombe's method 10 for paired proportions")


def _combine_margins(first: float, second: float, phi: float) -> float:
    """Distances to two bounds, added as the sides of a triangle whose angle the correlation gives."""
    return float(np.sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0)))


def _phi(right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> float:
    """Correlation of two models' correctness, continuity-corrected where positive; 0 where undefined."""
    a, d = float((right & other_right).sum()), float((~right & ~other_right).sum())
    b, c = float((right & ~other_right).sum()), float((other_right & ~right).sum())
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    excess = a * d - b * c
    corrected = max(excess - len(right) / 2, 0.0) if excess > 0 else excess
    return float(corrected / product**0.5)


def _interval(found: NDArray[np.float64], drawn: NDArray[np.float64], first: int, n: int) -> Estimate:
    """The difference of two sides, the first of `first` models, from their figures, M, and resamples of them, R×M."""
    if np.isnan(found).any():
        return Estimate(np.nan, np.nan, np.nan, n, "undefined: a single class occurs")
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    if len(found) > 2:
        return _over_seeds(found, np.cov(drawn.T), first, n).difference
    low, high = np.percentile(drawn[:, 0] - drawn[:, 1], (2.5, 97.5))
    method = f"paired percentile bootstrap, {len(drawn)} resamples"
    return Estimate(float(found[0] - found[1]), float(low), float(high), n, method)


def _of_own_intervals(key: str, first: Predictions, second: Predictions, found: Estimate) -> Estimate:
    """A difference whose interval has no width, with one from the intervals of both sides (MOVER)."""
    a, b = METRICS[key].compute(first), METRICS[key].compute(second)
    low = found.value - float(np.hypot(a.value - a.low, b.high - b.value))
    high = found.value + float(np.hypot(a.high - a.value, b.value - b.low))
    return Estimate(found.value, low, high, found.n, "from the intervals of both sides")


def _over_seeds(figures: NDArray[np.float64], covariance: NDArray[np.float64], first: int, n: int) -> TestResult:
    """The difference of two means over trainings, with the spread of trainings and of images.

    Parameters
    ----------
    figures : of the trainings of the first side, then of the second, M
    covariance : what drawing other images does to the figures, M×M
    first : number of trainings of the first side, at least 2, as of the second
    """
    sides = figures[:first], figures[first:]
    sizes = np.array([len(side) for side in sides])
    blocks = covariance[:first, :first], covariance[first:, first:]
    within = [_mean_off_diagonal(block) for block in blocks]
    images = max(sum(within) - 2 * float(covariance[:first, first:].mean()), 0.0)
    spreads = np.array([side.var(ddof=1) / len(side) for side in sides])
    # What the trainings would differ by if they differed by chance of the images alone
    least = sum(max(block.diagonal().mean() - w, 0.0) / m for block, w, m in zip(blocks, within, sizes, strict=True))
    trainings, uncertain = float(spreads.sum()), float((spreads**2 / (sizes - 1)).sum())
    if trainings < least:
        trainings, uncertain = float(least), 0.0
    variance = trainings + images
    value = float(sides[0].mean() - sides[1].mean())
    method = f"Student's t over {sizes[0]} and {sizes[1]} trainings and {n:,} images"
    if variance == 0:
        return TestResult(Estimate(value, value, value, n, method), 1.0, method)
    freedom = variance**2 / uncertain if uncertain else np.inf
    margin = student_95(freedom) * variance**0.5
    p = max(2 * student_tail(abs(value) / variance**0.5, freedom), sys.float_info.min)
    return TestResult(Estimate(value, value - margin, value + margin, n, method), p, method)


def _mean_off_diagonal(square: NDArray[np.float64]) -> float:
    return float((square.sum() - square.trace()) / (square.size - len(square)))


def _minus(fraction: float, digits: int) -> str:
    return f"{100 * fraction:.{digits}f}".replace("-", "−")
