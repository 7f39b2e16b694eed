"""95 % intervals: Wilson's for a fraction of images, the percentile bootstrap for everything else."""

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveola.predictions import Estimate

NORMAL_95 = 1.959963984540054

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


def mean_interval(values: ArrayLike) -> Estimate:
    """The mean of per-image values, N, with its bootstrap interval: no shape is assumed, so that skew shows."""
    values = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda images: float(values[images].mean()), len(values))


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


def grouped_wilson(successes: NDArray[np.bool_], groups: NDArray[np.int64]) -> Estimate:
    """The fraction of successes, N, whose images come in groups, N: Wilson's interval at the effective sample size.

    Images of a group are alike, so that they say less than as many others. The effective size is p(1 − p) over the
    variance between groups, times the squared ratio of the quantiles of the normal and the t distribution (Korn and
    Graubard 1998); it is at most the number of images. If all images agree, it is the number of groups.
    """
    from scipy.stats import t

    n, value = len(successes), float(successes.mean())
    number = np.unique(groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    if count == n:
        return wilson(int(successes.sum()), n)
    effective = float(count)
    if 0 < value < 1 and count > 1:
        residuals = np.bincount(number, successes - value)
        variance = count / (count - 1) * float(np.square(residuals).sum()) / n**2
        size = value * (1 - value) / variance if variance > 0 else n
        effective = float(np.clip(size * (NORMAL_95 / t.ppf(0.975, count - 1)) ** 2, 1, n))
    low, high = wilson_bounds(value, effective)
    return Estimate(value, low, high, n, f"Wilson, effective sample size of {count:,} groups")
