"""False alarms: of a model's own kind of images, how many it calls unlike anything it was trained on."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from foveola.evaluation.intervals import wilson
from foveola.models.metadata import Unfamiliarity
from foveola.predictions import Estimate


class UnfamiliarityResult(BaseModel):
    """What a threshold of unfamiliarity costs.

    `false_alarms` is the fraction of these images above the `threshold`, `promised` the one that it was chosen for on
    the validation images.
    """

    threshold: float
    promised: float
    false_alarms: Estimate


def evaluate_unfamiliarity(scores: NDArray[np.float32], measure: Unfamiliarity) -> UnfamiliarityResult:
    """The false alarms among images of the model's classes, by their scores, N."""
    return UnfamiliarityResult(
        threshold=measure.threshold,
        promised=measure.false_alarms,
        false_alarms=wilson(int((scores > measure.threshold).sum()), len(scores)),
    )
