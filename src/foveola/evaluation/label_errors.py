"""Labels that are likely wrong, ranked by the probability that held-out predictions give them.

Ranked by self-confidence, counted by confident learning: Northcutt, Jiang and Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 2021 (arXiv:1911.00068), as the library cleanlab computes both.
"""

from dataclasses import dataclass

import numpy as np

from foveola.errors import DataError
from foveola.predictions import Predictions


@dataclass(frozen=True)
class Suspect:
    """An image whose label the model doubts.

    `given` and `suggested` are classes, by their index; `score` is the probability of the given class.
    """

    index: int
    given: int
    suggested: int
    score: float


@dataclass(frozen=True)
class LabelErrors:
    """All images whose most probable class is another than the given one, the least probable label first.

    `likely` is how many labels are wrong by confident learning's estimate: the first ones are the likely errors, the
    others are rather hard images.
    """

    suspects: tuple[Suspect, ...]
    likely: int


def find_label_errors(predictions: Predictions) -> LabelErrors:
    """Rank the images whose label held-out predictions doubt.

    Raises
    ------
    DataError
        If the model has learnt from these images: it has then learnt their wrong labels as well.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_self_confidence_for_each_label

    if not predictions.held_out:
        raise DataError(
            "These predictions are of images that the model has learnt from, wrong labels included, so that they "
            "cannot tell which labels are wrong. Give cross-fitted predictions: of each image by a model that has "
            "never seen it."
        )
    labels, suggested = predictions.labels, predictions.predicted
    score = get_self_confidence_for_each_label(labels, predictions.probabilities)
    doubted = np.flatnonzero(suggested != labels)
    ranked = doubted[score[doubted].argsort(kind="stable")]
    # One process: the work is short, and fresh processes would each load what this one has loaded
    issues = find_label_issues(labels, predictions.probabilities, filter_by="low_self_confidence", n_jobs=1)
    suspects = (Suspect(int(i), int(labels[i]), int(suggested[i]), float(score[i])) for i in ranked)
    return LabelErrors(tuple(suspects), min(int(issues.sum()), len(ranked)))
