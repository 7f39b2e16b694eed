"""Suspicious labels, ranked by the probability that held-out predictions give to each label.

The ranking is by self-confidence, the number of errors is estimated by confident learning; cleanlab computes both.
Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021
(arXiv:1911.00068).

The number is an estimate only where the networks know the classes. Otherwise most suspects are images that are hard for
them, and the ranking is all that can be said.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.predictions import Predictions

# The number is relied on if, beside the images that confident learning counts, the networks contradict at most this
# share of the labels. With 1 % wrong labels planted in thirteen sets of predictions, 86 to 100 % of the counted images
# were wrong in the six sets below it, and 10 to 81 % in the seven above (docs/benchmarks.md).
MAX_HARD_SHARE = 0.04


@dataclass(frozen=True)
class Suspect:
    """An image whose label differs from the predicted class.

    `given` and `suggested` are class indices; `score` is the predicted probability of the given class.
    """

    index: int
    given: int
    suggested: int
    score: float


@dataclass(frozen=True)
class LabelErrors:
    """All images whose predicted class differs from their label, the least probable label first.

    `likely` is the number of wrong labels that confident learning estimates; `countable` says whether it can be relied
    on. If so, as many of the first suspects are likely errors, and the others are more likely hard images.
    """

    suspects: tuple[Suspect, ...]
    likely: int
    countable: bool


def find_label_errors(predictions: Predictions, judged: NDArray[np.bool_] | None = None) -> LabelErrors:
    """Rank the images whose label differs from the held-out prediction.

    Parameters
    ----------
    judged : which images the predictions can judge, N; None: all. The others are not suspects.

    Raises
    ------
    DataError
        If the model was trained on these images, because it has then learnt their wrong labels as well.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_self_confidence_for_each_label

    if not predictions.held_out:
        raise DataError(
            "These are predictions on training images. They cannot reveal wrong labels, because the model has learnt "
            "those labels too. Give cross-fitted predictions: for each image, from a model that was not trained on it."
        )
    labels, suggested = predictions.labels, predictions.predicted
    judged = np.ones(len(labels), dtype=bool) if judged is None else judged
    score = get_self_confidence_for_each_label(labels, predictions.probabilities)
    different = np.flatnonzero((suggested != labels) & judged)
    ranked = different[score[different].argsort(kind="stable")]
    # One process: the work is short, and each new process would import everything again
    issues = find_label_issues(labels, predictions.probabilities, filter_by="low_self_confidence", n_jobs=1)
    likely = min(int((issues & judged).sum()), len(ranked))
    suspects = (Suspect(int(i), int(labels[i]), int(suggested[i]), float(score[i])) for i in ranked)
    countable = len(ranked) - likely <= MAX_HARD_SHARE * len(labels)
    return LabelErrors(tuple(suspects), likely, countable)
