"""Temperature scaling and calibration error."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from foveola.evaluation.intervals import effective_number, fraction
from foveola.evaluation.student import NORMAL_95
from foveola.images import Labels
from foveola.predictions import Estimate
from foveola.tasks import log_losses, task_of

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
LOG_TOLERANCE = 1e-4
PRIOR_SCALE, PRIOR_FREEDOM = 0.1, 10
BINS, MIN_BIN = 15, 20


def fit_temperature(logits: NDArray[np.floating], labels: Labels, weights: NDArray[np.float64] | None = None) -> float:
    """The temperature T of logits / T (Guo et al. 2017, arXiv:1706.04599) with the largest posterior probability.

    The sum of the log losses is minimised together with the negative logarithm of a prior on log T: Student's t with
    10 degrees of freedom, of scale 0.1 and about 0. Few images then leave T near 1 instead of making it wild; its tails
    are longer than normal ones, and let T go where the images insist (`benchmarks/temperature.py` compares priors).

    Parameters
    ----------
    logits : float array, N×K, of images that the network has not learnt from
    labels : integer array, N; or bool N×K, of which every label counts as an image does
    weights : float array, N, of the losses; beside the prior they count as their effective number of images

    Returns
    -------
    T between 0.05 and 20.
    """
    scaled = None if weights is None or not weights.any() else weights * weights.sum() / np.square(weights).sum()

    many = 1 if task_of(labels) == "multiclass" else labels.shape[1]  # the loss is a mean over the labels

    def objective(log_temperature: float) -> float:
        each = many * log_losses(logits / np.exp(log_temperature), labels)
        losses = each.sum() if scaled is None else each @ scaled
        return float(losses + (PRIOR_FREEDOM + 1) / 2 * np.log1p((log_temperature / PRIOR_SCALE) ** 2 / PRIOR_FREEDOM))

    # Grids around the best point of the last one, the first so fine that it tells the second minimum, which the prior
    # can make, from the smallest. On the log scale halving and doubling are equally far.
    points = np.linspace(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE), 31)
    while True:
        best = int(np.argmin([objective(log_temperature) for log_temperature in points]))
        if points[-1] - points[0] < LOG_TOLERANCE:
            return float(np.exp(points[best]))
        points = np.linspace(points[max(best - 1, 0)], points[min(best + 1, len(points) - 1)], 9)


def calibration_error(
    probabilities: NDArray[np.float64], labels: Labels, weights: NDArray[np.float64] | None = None
) -> Estimate:
    """Mean distance between the top class's probability and how often it is right, corrected for chance: 0 to 1.

    Chance alone makes bins of images differ from their probabilities, also of a perfect model: by 0.03 on average with
    359 images of an accuracy of 0.93. Of the error as measured in bins (`expected_calibration_error`), this gives the
    value that is measured as large on average, if all bins are off by as many of their standard errors.

    The interval inverts tests of the measured error (Neyman 1937), with the shapes of miscalibration that hide most and
    show most of it: the same in all bins, or all in one. Its upper bound is not below that of the accuracy's distance
    from the mean confidence. It is cautious: `benchmarks/intervals.py` finds the truth inside in 95 to 100 % of cases.

    Parameters
    ----------
    probabilities : float array, N×K
    labels : integer array, N
    weights : float array, N: how much each image counts; bins then hold equal numbers of images that count, and stand
        for the effective number of theirs
    """
    n, z = len(labels), NORMAL_95
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    own = np.ones(n) if weights is None else weights
    confidence, right, own = confidence[own > 0], right[own > 0], own[own > 0]
    members = _bins(confidence, min(BINS, max(len(own) // MIN_BIN, 1)))
    sizes = np.array([effective_number(own[images]) for images in members])
    shares = np.array([own[images].sum() for images in members]) / own.sum()
    confidences, accuracies = (
        np.array([np.average(values[images], weights=own[images]) for images in members])
        for values in (confidence, right)
    )
    confidences = confidences.clip(0, 1)
    measured = float(shares @ abs(confidences - accuracies))

    likely = (accuracies * sizes + confidences) / (sizes + 1)  # as if one more image had been seen, never 0 or 1
    errors = np.sqrt(likely * (1 - likely) / sizes)
    scale, spread = float(shares @ errors), float(np.linalg.norm(shares * errors))
    x, mean, deviation = _folded_normal()

    def gap(found: NDArray[np.float64]) -> float:
        """The mean gap at which `found`, of gaps of x standard errors, reaches the measured error."""
        return scale * float(x[min(int(np.searchsorted(found, measured)), len(x) - 1)])

    value = min(gap(scale * mean), measured)
    high = max(
        gap(scale * mean - z * spread * deviation),
        value,
        _overall_gap(confidence, right, None if weights is None else own),
    )
    draws = np.maximum(np.rint(sizes), 1).astype(np.int64)
    perfect = np.random.default_rng(0).binomial(draws, confidences, size=(1000, len(sizes))) / draws
    by_chance = np.quantile(abs(perfect - confidences) @ shares, 0.975)
    errors = np.sqrt(np.maximum(confidences * (1 - confidences), likely * (1 - likely)) / sizes)
    by_chance = max(by_chance, mean[0] * (shares @ errors) + z * np.linalg.norm(shares * errors))
    low = min(max(measured - float(by_chance), 0.0), value)
    return Estimate(value, low, min(high, 1.0), n, f"inverted tests, {len(sizes)} bins of equal numbers of images")


@cache
def _folded_normal() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Gaps of x standard errors, and the mean and standard deviation of |x + noise|: the folded normal distribution."""
    x = np.linspace(0, 60, 6001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    mean = 2 * density + x * np.array([math.erf(gap / math.sqrt(2)) for gap in x])
    return x, mean, np.sqrt(np.maximum(x**2 + 1 - mean**2, 0))


def _overall_gap(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64] | None
) -> float:
    """How far the accuracy can be from the mean confidence, by Wilson's interval."""
    accuracy, mean = fraction(right, weights=weights), float(np.average(confidence, weights=weights))
    return float(max(accuracy.high - mean, mean - accuracy.low))


def expected_calibration_error(probabilities: NDArray[np.float64], labels: Labels, bins: int = BINS) -> float:
    """Mean distance between the top class's probability and how often it is right, 0 to 1.

    Bins hold equal numbers of images (Nixon et al. 2019, arXiv:1904.01685). The error is biased upwards where a bin
    has few images: it measures above 0 even for perfect probabilities. `calibration_error` corrects that.
    """
    return float(calibration_gaps(probabilities, labels, bins).mean())


def calibration_gaps(probabilities: NDArray[np.float64], labels: Labels, bins: int = BINS) -> NDArray[np.float64]:
    """What each image adds to the expected calibration error, float64 N: the mean is the error.

    The gap of an image is its top-class probability minus 1 (right) or 0 (wrong), signed so that the mean of its bin
    is not negative.
    """
    confidence = probabilities.max(axis=1)
    gaps: NDArray[np.float64] = confidence - (probabilities.argmax(axis=1) == labels)
    for members in _bins(confidence, bins):
        if gaps[members].sum() < 0:
            gaps[members] *= -1
    return gaps


def _bins(confidence: NDArray[np.float64], bins: int) -> list[NDArray[np.int64]]:
    """Indices of images by confidence, in bins of equal numbers, least confident first."""
    return np.array_split(confidence.argsort(kind="stable"), bins)
