"""Do probabilities mean what they say? One temperature to make them, one error to tell."""

import numpy as np
from numpy.typing import NDArray

from foveola.images import Labels

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits: NDArray[np.floating], labels: Labels) -> float:
    """The temperature T that minimises the log loss of logits / T (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    logits : float array, N×K, of images that the network has not learnt from
    labels : integer array, N

    Returns
    -------
    T between 0.05 and 20; 1.0 where the images cannot tell: fewer than two a class, all of them right (then ever
    sharper is ever better), or no gain.
    """
    from scipy.optimize import minimize_scalar

    n, classes = logits.shape
    if n < 2 * classes or (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return float(log_losses(logits / np.exp(log_temperature), labels).mean())

    # On the log scale halving and doubling are equally far, and the search cannot leave the positive numbers.
    found = minimize_scalar(loss, bounds=np.log((MIN_TEMPERATURE, MAX_TEMPERATURE)), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def log_losses(logits: NDArray[np.floating], labels: Labels) -> NDArray[np.float64]:
    """Negative log-likelihood of each image's true class in nats, float64 N; finite for all finite logits."""
    from scipy.special import logsumexp

    exact = logits.astype(np.float64)
    losses: NDArray[np.float64] = logsumexp(exact, axis=1) - exact[np.arange(len(labels)), labels]
    return losses


def expected_calibration_error(probabilities: NDArray[np.float64], labels: Labels, bins: int = 15) -> float:
    """Mean distance between the top class's probability and how often it is right, 0 to 1.

    Bins hold equal numbers of images (Nixon et al. 2019, arXiv:1904.01685). The error is biased upwards where a bin
    has few images: it measures above 0 even for perfect probabilities.
    """
    return float(calibration_gaps(probabilities, labels, bins).mean())


def calibration_gaps(probabilities: NDArray[np.float64], labels: Labels, bins: int = 15) -> NDArray[np.float64]:
    """What each image adds to the expected calibration error, float64 N: the mean is the error.

    The gap of an image is its top-class probability minus 1 (right) or 0 (wrong), signed so that the mean of its bin
    is not negative.
    """
    confidence = probabilities.max(axis=1)
    gaps: NDArray[np.float64] = confidence - (probabilities.argmax(axis=1) == labels)
    for members in np.array_split(confidence.argsort(kind="stable"), bins):
        if gaps[members].sum() < 0:
            gaps[members] *= -1
    return gaps
