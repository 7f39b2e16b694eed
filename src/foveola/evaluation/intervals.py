"""95 % intervals: Wilson's for a fraction of images, the percentile bootstrap for everything else."""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveola.evaluation.student import NORMAL_95, student_95
from foveola.predictions import Estimate

# Gives each of M models' metric, M, for weights of the N images: weights of a resample are how often it drew each image
WeightedMetric = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def wilson(successes: int, n: int) -> Estimate:
    """The fraction of successes with its score interval (Wilson 1927), which holds at 0 % and 100 % too."""
    low, high = wilson_bounds(successes / n, n)
    return Estimate(successes / n, low, high, n, "Wilson")


def wilson_bounds(fraction: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a fraction; n need not be whole."""
    z = NORMAL_95
    center = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * sqrt(fraction * (1 - fraction) / n + z**2 / (4 * n**2))
    return min(max(center - margin, 0.0), fraction), max(min(center + margin, 1.0), fraction)


def effective_number(weights: NDArray[np.floating]) -> float:
    """How many images of equal weight say as much of a mean as images of these weights, N (Kish 1965).

    >>> effective_number(np.array([1.0, 1.0, 1.0])), round(effective_number(np.array([4.0, 1.0, 1.0])), 6)
    (3.0, 2.0)
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def mean_interval(values: ArrayLike, weights: NDArray[np.float64] | None = None) -> Estimate:
    """The mean of per-image values, N, with its bootstrap interval: no shape is assumed, so that skew shows.

    With weights, N, it is the weighted mean, and an image that is drawn again brings its weight again; images of weight
    0 are not drawn.
    """
    values = np.asarray(values, dtype=np.float64)
    if weights is None:
        return bootstrap(lambda images: float(values[images].mean()), len(values))
    counting = np.flatnonzero(weights)
    drawn = bootstrap(
        lambda images: float(np.average(values[counting[images]], weights=weights[counting[images]])), len(counting)
    )
    return replace(drawn, n=len(values), method=f"weighted {drawn.method}")


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], n: int, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Percentile bootstrap over images (Efron 1979), one resample in memory at a time.

    Parameters
    ----------
    statistic : gives the figure for the images at these indices, int64 N, which may repeat
    n : number of images
    resamples : number of draws with replacement
    seed : the same seed draws the same images
    """
    generator = np.random.default_rng(seed)
    figures = [statistic(generator.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.percentile(figures, (2.5, 97.5))
    return Estimate(
        float(statistic(np.arange(n))), float(low), float(high), n, f"percentile bootstrap, {resamples} resamples"
    )


def fraction(
    successes: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Estimate:
    """The fraction of successes, N, with Wilson's interval: for groups or weights, of the effective number of images.

    Parameters
    ----------
    groups : N: images with the same number are alike. None: every image stands for itself
    weights : N, of each image. None: all count the same
    """
    if weights is None and groups is None:
        return wilson(int(successes.sum()), len(successes))
    if weights is None:
        assert groups is not None, "one of both is there"
        return grouped_wilson(successes, groups)
    return _weighted_wilson(successes, np.arange(len(successes)) if groups is None else groups, weights)


def grouped_wilson(successes: NDArray[np.bool_], groups: NDArray[np.int64]) -> Estimate:
    """The fraction of successes, N, whose images come in groups, N: Wilson's interval at the effective sample size.

    Images of a group are alike, so that they say less than as many others. The effective size is p(1 − p) over the
    variance between groups, times the squared ratio of the quantiles of the normal and the t distribution (Korn and
    Graubard 1998); it is at most the number of images. If all images agree, it is the number of groups.
    """
    n, value = len(successes), float(successes.mean())
    number = np.unique(groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    if count == n:
        return wilson(int(successes.sum()), n)
    effective = min(_effective_size(successes, number, np.ones(n), value) or count, n)
    low, high = wilson_bounds(value, effective)
    return Estimate(value, low, high, n, f"Wilson, effective sample size of {count:,} groups")


def _weighted_wilson(successes: NDArray[np.bool_], groups: NDArray[np.int64], weights: NDArray[np.float64]) -> Estimate:
    """As `grouped_wilson`, of weighted images: the effective size is at most Kish's, and Kish's if all images agree.

    The variance alone says too much where few images are wrong and their weights happen to be small, and Kish's number
    where the heavy images are wrong more often: the smaller of both covers the truth in 93 to 98 % of cases
    (`benchmarks/weighted_intervals.py`).
    """
    value = float(np.average(successes, weights=weights))
    number = np.unique(groups, return_inverse=True)[1]
    effective = effective_number(np.bincount(number, weights).astype(np.float64))
    if size := _effective_size(successes, number, weights, value):
        effective = min(size, effective_number(weights))
    low, high = wilson_bounds(value, effective)
    return Estimate(value, low, high, len(successes), f"Wilson, effective sample size of {effective:.1f} for weights")


def _effective_size(
    successes: NDArray[np.bool_], groups: NDArray[np.int64], weights: NDArray[np.float64], value: float
) -> float | None:
    """Korn and Graubard's effective number of images, 1 to N; None where there is no variance to tell it.

    Parameters
    ----------
    groups : N, numbered from 0
    value : the weighted mean of `successes`, N
    """
    n, count = len(successes), int(groups.max()) + 1
    if not 0 < value < 1 or count == 1:
        return None
    residuals = np.bincount(groups, weights * (successes - value))
    variance = count / (count - 1) * float(np.square(residuals).sum()) / weights.sum() ** 2
    size = value * (1 - value) / variance if variance > 0 else n
    return float(np.clip(size * (NORMAL_95 / student_95(count - 1)) ** 2, 1, n))
