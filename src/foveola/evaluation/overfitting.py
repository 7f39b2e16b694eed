"""Whether a model is no better than guessing, or has memorised its training images, and what to do about it."""

from collections.abc import Sequence

from foveola.predictions import Estimate
from foveola.recipe import Recipe

# A training accuracy of at least so much, and a test accuracy that is certainly lower by at least so much
MEMORISED_ACCURACY, MEMORISED_GAP = 0.98, 0.1


def is_guessing(accuracy: Estimate, supports: Sequence[int]) -> bool:
    """Whether the interval of an accuracy holds, or lies below, what always predicting the most frequent class reaches.

    Parameters
    ----------
    accuracy : over all images
    supports : number of images of each class, K; with images of a single class, nothing can be said
    """
    present = [support for support in supports if support]
    return accuracy.is_defined and len(present) > 1 and accuracy.low <= max(present) / sum(present)


def guessing_text(supports: Sequence[int], source: str) -> str:
    """The sentence for a model that is guessing; `source` is its data, as the command line takes it."""
    share = max(supports) / sum(supports)
    return (
        f"No better than guessing: always predicting the most frequent class reaches {100 * share:.1f} %. Check that "
        f"the labels belong to the images, and that the classes can be told apart in them: foveola audit {source}"
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
