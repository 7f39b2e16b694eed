"""Do probabilities mean what they say? One temperature to make them, one error to tell."""

import numpy as np
from numpy.typing import NDArray

from foveola.images import Labels

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
PRIOR_SCALE, PRIOR_FREEDOM = 0.1, 10


def fit_temperature(logits: NDArray[np.floating], labels: Labels) -> float:
    """The temperature T of logits / T (Guo et al. 2017, arXiv:1706.04599) with the largest posterior probability.

    The sum of the log losses is minimised together with the negative logarithm of a prior on log T: Student's t with
    10 degrees of freedom, of scale 0.1 and about 0. Few images then leave T near 1 instead of making it wild; its tails
    are longer than normal ones, and let T go where the images insist (`benchmarks/temperature.py` compares priors).

    Parameters
    ----------
    logits : float array, N×K, of images that the network has not learnt from
    labels : integer array, N

    Returns
    -------
    T between 0.05 and 20.
    """
    from scipy.optimize import minimize_scalar

    def objective(log_temperature: float) -> float:
        losses = log_losses(logits / np.exp(log_temperature), labels).sum()
        return float(losses + (PRIOR_FREEDOM + 1) / 2 * np.log1p((log_temperature / PRIOR_SCALE) ** 2 / PRIOR_FREEDOM))

    # The prior can make a second minimum beside the one of the losses, hence the grid. On the log scale halving and
    # doubling are equally far, and the search cannot leave the positive numbers.
    grid = np.linspace(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE), 31)
    best = int(np.argmin([objective(log_temperature) for log_temperature in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return float(np.exp(minimize_scalar(objective, bounds=around, method="bounded").x))


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
