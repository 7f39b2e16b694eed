"""When should a model rather say that it does not know? A threshold of its top probability, and what that costs.

An image is accepted if the probability of its most probable class reaches the threshold. Coverage is the share of
images that are accepted, risk the share of wrong answers among those (El-Yaniv and Wiener 2010; Geifman and El-Yaniv
2017, arXiv:1705.08500).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.evaluation.intervals import wilson
from foveola.predictions import Predictions


def risk_coverage(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage and risk of every threshold that tells images apart, from the strictest on; both float64 M, M ≤ N.

    Images of the same probability are accepted together, so that there is one entry for each probability that occurs.
    """
    coverage, risk, _ = _thresholds(predictions)
    return coverage, risk


def coverage_at(predictions: Predictions, error: float) -> float:
    """The largest coverage whose risk is at most `error`; 0.0 if even the surest answers are wrong more often."""
    coverage, risk, _ = _thresholds(predictions)
    return float(coverage[risk <= error].max(initial=0.0))


def choose_threshold(predictions: Predictions, error: float) -> float | None:
    """The threshold of the largest coverage whose risk is at most `error`.

    Parameters
    ----------
    predictions : of images that the network has not learnt from, temperature applied; not the test images
    error : accepted share of wrong answers among the accepted ones, 0 to 1

    Returns
    -------
    The smallest top probability that is accepted, or None if no threshold keeps the error: then nothing is accepted.
    The risk of other images can lie above `error`: the threshold is the best one for these.
    """
    _, risk, probabilities = _thresholds(predictions)
    kept = np.flatnonzero(risk <= error)
    return float(probabilities[kept[-1]]) if len(kept) else None


def accepted(probabilities: NDArray[np.float64], threshold: float | None) -> NDArray[np.bool_]:
    """Which images are accepted, N, by their probabilities, N×K; none without a threshold."""
    if threshold is None:
        return np.zeros(len(probabilities), bool)
    certain: NDArray[np.bool_] = probabilities.max(axis=1) >= threshold
    return certain


def judge(predictions: Predictions, error: float, threshold: float | None) -> dict[str, Any]:
    """What a threshold is worth on these images: `rejection` of evaluation.json.

    Returns
    -------
    error and threshold as given, coverage and accepted_error as {value, low, high, n, method}, and n, the number of
    accepted images; accepted_error is None where there are none
    """
    certain = accepted(predictions.probabilities, threshold)
    wrong = int((predictions.predicted != predictions.labels)[certain].sum())
    n = int(certain.sum())
    return {
        "error": error,
        "threshold": threshold,
        "coverage": wilson(n, len(predictions)).as_json(),
        "accepted_error": wilson(wrong, n).as_json() if n else None,
        "n": n,
    }


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
