"""The pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from foveola.evaluation.metrics import confusion
from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.report import plots


def draw_pictures(
    folder: Path,
    history: Sequence[Mapping[str, float]],
    train: ImageSet,
    test: ImageSet | None,
    predictions: Predictions | None,
    *,
    x: str = "epoch",
) -> None:
    """Draw curves and samples, and, of a measured test split, mistakes and confusion matrix.

    Parameters
    ----------
    folder : gets curves.png, samples.png, mistakes.png, confusion.png
    history : a row an epoch
    test, predictions : the test images and what the model says of them, or None
    x : the column of the history along which curves run
    """
    plots.curves(history, folder / "curves.png", x=x)
    plots.samples(train, folder / "samples.png")
    if test is not None and predictions is not None:
        plots.wrong(test, predictions, folder / "mistakes.png")
        plots.confusion_matrix(confusion(predictions), predictions.class_names, folder / "confusion.png")
