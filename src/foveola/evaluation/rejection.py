"""When should a model rather say that it does not know? A threshold of its top probability, and what that costs.

An image is accepted if the probability of its most probable class reaches the threshold. Coverage is the fraction of
images that are accepted, risk the fraction of wrong predictions among those (El-Yaniv and Wiener 2010; Geifman and
El-Yaniv 2017, arXiv:1705.08500).
"""

from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from foveola.errors import require
from foveola.evaluation.intervals import fraction
from foveola.models.metadata import Rejection, Shortfall
from foveola.predictions import Estimate, Predictions

COVERAGES = 20
# The part of the error probability that the first coverage tested gets; the others share the rest
FIRST_SHARE = 0.5
# How many times as many images are looked at before "no number of images would do"
MAX_FACTOR = 1000


def risk_coverage(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage and risk of every threshold that tells images apart, from the strictest on; both float64 M, M ≤ N.

    Images of the same probability are accepted together, so that there is one entry for each probability that occurs.
    """
    accepted, wrong, _ = _thresholds(predictions)
    return accepted / len(predictions), wrong / accepted


def coverage_at(predictions: Predictions, error: float) -> float:
    """The largest coverage whose risk is at most `error`; 0.0 if the most confident ones are wrong more often."""
    coverage, risk = risk_coverage(predictions)
    return float(coverage[risk <= error].max(initial=0.0))


def choose_threshold(predictions: Predictions, error: float, confidence: float | None = 0.9) -> Rejection:
    """A threshold that keeps the error rate of accepted predictions on other images of the kind.

    With `confidence`, the error rate is at most `error` in that fraction of all trainings: a bound in the manner of
    Geifman and El-Yaniv's SGR (2017). The hypothesis "the risk is above `error`" is tested at 20 coverages, from the
    smallest that could pass upwards, by the exact binomial tail of Clopper and Pearson. Half of the error probability
    belongs to the first, the others share the rest, and what a rejected hypothesis had passes on to the next (the
    fallback procedure, Wiens and Dmitrienko 2005). The largest coverage that passes is taken.

    Without it, the threshold is the one of the largest coverage at which (mistakes + 1) / (accepted + 1) is at most
    `error`, which holds about on average: every other training exceeds it.

    Parameters
    ----------
    predictions : of images that the network has not learnt from, temperature applied; not the test images. Images are
        counted, without their weights: the exact tail is that of a number of images
    error : target error rate among the accepted predictions, 0 to 1
    confidence : of the promise, above 0 and below 1; None for "on average"

    Raises
    ------
    MissingExtra
        If SciPy, which trainings bring, is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(400) % 2
    >>> predictions = Predictions(8 * np.eye(2, dtype=np.float32)[labels], labels, ("cat", "dog"), held_out=True)
    >>> rejection = choose_threshold(predictions, 0.01)
    >>> round(rejection.threshold, 3), rejection.confidence
    (1.0, 0.9)
    >>> choose_threshold(predictions, 0.001).shortfall.images_without_mistakes
    2995
    """
    accepted, wrong, probabilities = _thresholds(predictions)
    if confidence is None:
        kept = np.flatnonzero((wrong + 1) / (accepted + 1) <= error)
        return Rejection(target_error=error, threshold=float(probabilities[kept[-1]]) if len(kept) else None)
    passed = _largest_passing(accepted, wrong, error, 1 - confidence)
    return Rejection(
        target_error=error,
        threshold=None if passed is None else float(probabilities[passed]),
        confidence=confidence,
        shortfall=_shortfall(accepted, wrong, error, 1 - confidence) if passed is None else None,
    )


class RejectionResult(BaseModel):
    """What a threshold is worth: coverage, the fraction of images that reach it, and the error rate among those.

    `error` is the target error rate, promised with `confidence` (None: not promised), `threshold` the probability that
    a prediction must reach, None where no prediction does; `accepted_error` is None without an accepted image; `n`
    counts the accepted images.
    """

    error: float
    threshold: float | None
    confidence: float | None = None
    coverage: Estimate
    accepted_error: Estimate | None
    n: int


def evaluate_rejection(predictions: Predictions, rejection: Rejection) -> RejectionResult:
    """Coverage and error rate of a model's threshold on these images, by their weights."""
    confident = rejection.is_confident(predictions.probabilities)
    wrong, n = (predictions.predicted != predictions.labels)[confident], int(confident.sum())
    weights = None if predictions.weights is None else predictions.weights[confident]
    counts = n > 0 and (weights is None or weights.any())
    return RejectionResult(
        error=rejection.target_error,
        threshold=rejection.threshold,
        confidence=rejection.confidence,
        coverage=fraction(confident, weights=predictions.weights),
        accepted_error=fraction(wrong, weights=weights) if counts else None,
        n=n,
    )


def promise(rejection: Rejection) -> str:
    """What a model's threshold promises, in words; or why there is none, and what it would take."""
    error, short = _percent(rejection.target_error), rejection.shortfall
    if rejection.threshold is not None and rejection.confidence is not None:
        confidence = _percent(rejection.confidence)
        return f"with {confidence} confidence at most {error} of the accepted answers are wrong, on images of this kind"
    if rejection.threshold is not None:
        return f"about {error} of the accepted answers are wrong on average over trainings; every other exceeds it"
    if short is None or rejection.confidence is None:
        return f"nothing: no threshold keeps an error of {error} on the validation images"
    sentences = [
        f"nothing: {short.images:,} validation images are too few to promise an error of {error} "
        f"with {_percent(rejection.confidence)} confidence"
    ]
    if short.images_without_mistakes is None:
        sentences = ["nothing: no number of validation images can promise that no accepted answer is wrong"]
    elif short.images_needed is None:
        sentences.append(
            f"Without a mistake it takes {short.images_without_mistakes:,}, but even the most confident answers of "
            f"this model are wrong too often"
        )
    elif short.images_needed > 1.1 * short.images_without_mistakes:
        sentences.append(
            f"Without a mistake it takes {short.images_without_mistakes:,}, with mistakes as frequent as among these "
            f"about {short.images_needed:,}"
        )
    else:
        sentences.append(f"Without a mistake it takes {short.images_without_mistakes:,}")
    if short.possible_error is not None:
        sentences.append(f"These can promise {_percent(short.possible_error)}: --reject {short.possible_error:g}")
    return ". ".join(sentences)


def _thresholds(
    predictions: Predictions,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Accepted images, mistakes among them, and threshold, from the highest threshold to the lowest."""
    confidence = predictions.probabilities.max(axis=1)
    order = (-confidence).argsort(kind="stable")
    confidence, wrong = confidence[order], (predictions.predicted != predictions.labels)[order]
    last = np.flatnonzero(np.diff(confidence, append=-1.0))  # of each run of equal probabilities
    return last + 1, wrong.cumsum()[last], confidence[last]


def _largest_passing(accepted: NDArray[np.number], wrong: NDArray[np.number], error: float, alpha: float) -> int | None:
    """Index of the largest coverage that passes, of entries from the strictest threshold on; None if none does."""
    first, n = _images_without_mistakes(error, alpha), accepted[-1]
    if first is None or first > n:
        return None
    tested = np.unique(np.searchsorted(accepted, np.floor(np.linspace(first, n, COVERAGES))))
    shares = np.full(len(tested), (1 - FIRST_SHARE) * alpha / max(len(tested) - 1, 1))
    shares[0] = FIRST_SHARE * alpha
    level, largest = 0.0, None
    for index, share, p in zip(tested, shares, _tail(wrong[tested], accepted[tested], error), strict=True):
        level += share
        if p <= level:
            largest = int(index)
        else:
            level = 0.0
    return largest


def _tail(wrong: NDArray[np.number], accepted: NDArray[np.number], error: float) -> NDArray[np.float64]:
    """How probable so few mistakes are at a risk of `error`: the binomial tail, also of fractions of images."""
    right = np.maximum(accepted - wrong, 1e-9)
    tail: NDArray[np.float64] = require("scipy.special", "train").betainc(right, wrong + 1, 1 - error)
    return tail


def _images_without_mistakes(error: float, alpha: float) -> int | None:
    """How many accepted images without a mistake the first test takes; None for an error of 0."""
    return ceil(log(FIRST_SHARE * alpha) / log1p(-error)) if error > 0 else None


def _shortfall(accepted: NDArray[np.int64], wrong: NDArray[np.int64], error: float, alpha: float) -> Shortfall:
    n = int(accepted[-1])
    factors = np.geomspace(1, MAX_FACTOR, 300) if error > 0 else ()
    enough = (f for f in factors if _largest_passing(f * accepted, f * wrong, error, alpha) is not None)
    factor = next(enough, None)
    errors = (step / 10**digits for digits in (4, 3, 2) for step in range(10, 100))
    possible = (other for other in errors if other > error and other <= 0.5)
    return Shortfall(
        images=n,
        images_without_mistakes=_images_without_mistakes(error, alpha),
        images_needed=None if factor is None else int(float(f"{factor * n:.2g}")),
        possible_error=next((e for e in possible if _largest_passing(accepted, wrong, e, alpha) is not None), None),
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g} %"
