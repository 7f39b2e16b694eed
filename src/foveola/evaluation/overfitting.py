"""Whether a model is no better than guessing, or has memorised its training images, and what to do about it."""

from collections.abc import Sequence

from foveola.predictions import Estimate
from foveola.recipe import Recipe

# A training accuracy of at least so much, and a test accuracy that is certainly lower by at least so much
MEMORISED_ACCURACY, MEMORISED_GAP = 0.98, 0.1


def is_guessing(accuracy: Estimate, supports: Sequence[int]) -> bool:
    """Whether an accuracy is that of guessing, which is what always predicting the most frequent class reaches.

    So it is if its interval holds this accuracy or lies below it, and its value is nearer to guessing than to 1. An
    interval alone does not tell: that of a perfect score holds guessing, too, if the images are few, or come in few
    groups (`is_undecided`).

    Parameters
    ----------
    accuracy : over all images
    supports : number of images of each class, K; with images of a single class, nothing can be said

    Examples
    --------
    >>> is_guessing(Estimate(0.55, 0.45, 0.65, 100, "Wilson"), [50, 50])
    True
    >>> is_guessing(Estimate(1.0, 0.34, 1.0, 18, "Wilson, effective sample size of 2 groups"), [8, 10])
    False
    """
    return _may_be_guessing(accuracy, supports) and accuracy.value < (1 + guessing_accuracy(supports)) / 2


def is_undecided(accuracy: Estimate, supports: Sequence[int]) -> bool:
    """Whether the images are too few to tell a good accuracy from guessing; parameters as of `is_guessing`."""
    return _may_be_guessing(accuracy, supports) and not is_guessing(accuracy, supports)


def guessing_accuracy(supports: Sequence[int]) -> float:
    """The accuracy of always predicting the most frequent class."""
    return max(supports) / sum(supports)


def _may_be_guessing(accuracy: Estimate, supports: Sequence[int]) -> bool:
    several = sum(support > 0 for support in supports) > 1
    return accuracy.is_defined and several and accuracy.low <= guessing_accuracy(supports)


def guessing_text(supports: Sequence[int], source: str) -> str:
    """The sentence for a model that is guessing; `source` is its data, as the command line takes it."""
    share = guessing_accuracy(supports)
    return (
        f"No better than guessing: always predicting the most frequent class reaches {100 * share:.1f} %. Check that "
        f"the labels belong to the images, and that the classes can be told apart in them: foveola audit {source}"
    )


def undecided_text(accuracy: Estimate, supports: Sequence[int]) -> str:
    """The sentence for a test that is too small."""
    return (
        f"The test is too small to tell the model from guessing: its interval begins at {100 * accuracy.low:.1f} %, "
        f"and always predicting the most frequent class reaches {100 * guessing_accuracy(supports):.1f} %. Test with "
        f"more images, and if they come in groups, with more groups."
    )


def has_memorised(training_accuracy: float | None, accuracy: Estimate) -> bool:
    """Whether a model classifies its training images correctly, but other images clearly worse."""
    return (
        training_accuracy is not None
        and accuracy.is_defined
        and training_accuracy >= MEMORISED_ACCURACY
        and accuracy.high <= training_accuracy - MEMORISED_GAP
    )


def memorised_text(training_accuracy: float, accuracy: Estimate, recipe: Recipe, image_side: int, command: str) -> str:
    """The sentence for a model that has memorised its training images, with what may help as a command.

    Parameters
    ----------
    recipe : whose settings are still free to help: shifted images, a blanked square, the best weights
    image_side : the shorter side of the images, in pixels
    command : that repeats the training
    """
    settings = []
    if not recipe.augment.shift:
        settings.append(f"augment.shift={max(round(image_side / 14), 1)}")
    if not recipe.augment.cutout:
        settings.append(f"augment.cutout={max(round(image_side / 4), 2)}")
    if recipe.keep == "last" and recipe.validation:
        settings.append("keep=best")
    more = f"; {command} {' '.join(f'--set {setting}' for setting in settings)}" if settings else ""
    return (
        f"It has memorised its training images: {100 * training_accuracy:.1f} % of them are classified correctly, but "
        f"only {100 * accuracy.value:.1f} % of the test images. What may help: more images; correct labels, where "
        f"foveola audit doubts them{more}"
    )
