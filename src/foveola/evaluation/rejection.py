"""When should a model rather say that it does not know? A threshold of its top probability, and what that costs.

An image is accepted if the probability of its most probable class reaches the threshold. Coverage is the fraction of
images that are accepted, risk the fraction of wrong predictions among those (El-Yaniv and Wiener 2010; Geifman and
El-Yaniv 2017, arXiv:1705.08500).
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from foveola.evaluation.intervals import wilson
from foveola.models.metadata import Rejection
from foveola.predictions import Estimate, Predictions


def risk_coverage(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage and risk of every threshold that tells images apart, from the strictest on; both float64 M, M ≤ N.

    Images of the same probability are accepted together, so that there is one entry for each probability that occurs.
    """
    coverage, risk, _ = _thresholds(predictions)
    return coverage, risk


def coverage_at(predictions: Predictions, error: float) -> float:
    """The largest coverage whose risk is at most `error`; 0.0 if the most confident ones are wrong more often."""
    coverage, risk, _ = _thresholds(predictions)
    return float(coverage[risk <= error].max(initial=0.0))


def choose_threshold(predictions: Predictions, error: float) -> float | None:
    """The threshold of the largest coverage whose risk is at most `error`.

    Parameters
    ----------
    predictions : of images that the network has not learnt from, temperature applied; not the test images
    error : accepted fraction of wrong predictions among the accepted ones, 0 to 1

    Returns
    -------
    The smallest top probability that is accepted, or None if no threshold keeps the error: then nothing is accepted.
    The risk of other images can lie above `error`: the threshold is the best one for these.
    """
    _, risk, probabilities = _thresholds(predictions)
    kept = np.flatnonzero(risk <= error)
    return float(probabilities[kept[-1]]) if len(kept) else None


class RejectionResult(BaseModel):
    """What a threshold is worth: coverage, the fraction of images that reach it, and the error rate among those.

    `error` is the target error rate, `threshold` the probability that a prediction must reach, None where no prediction
    does; `accepted_error` is None without an accepted image; `n` counts the accepted images.
    """

    error: float
    threshold: float | None
    coverage: Estimate
    accepted_error: Estimate | None
    n: int


def evaluate_rejection(predictions: Predictions, rejection: Rejection) -> RejectionResult:
    """Coverage and error rate of a model's threshold on these images."""
    confident = rejection.is_confident(predictions.probabilities)
    wrong = int((predictions.predicted != predictions.labels)[confident].sum())
    n = int(confident.sum())
    return RejectionResult(
        error=rejection.target_error,
        threshold=rejection.threshold,
        coverage=wilson(n, len(predictions)),
        accepted_error=wilson(wrong, n) if n else None,
        n=n,
    )


def _thresholds(
    predictions: Predictions,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Coverage, risk and threshold, from the highest threshold to the lowest."""
    confidence = predictions.probabilities.max(axis=1)
    order = (-confidence).argsort(kind="stable")
    confidence, wrong = confidence[order], (predictions.predicted != predictions.labels)[order]
    last = np.flatnonzero(np.diff(confidence, append=-1.0))  # of each run of equal probabilities
    counts = last + 1
    return counts / len(predictions), wrong.cumsum()[last] / counts, confidence[last]
