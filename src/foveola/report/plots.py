"""Pictures of a run, as PNG: its curves, sample images, its confusions and its mistakes.

Figures are drawn without pyplot, so that no window is opened and no global state is touched.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.report.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    column,
    dress,
    legible,
    line,
    name_ticks,
    new_figure,
    short,
)

DPI = 120

# Each panel's title, and the history's columns with what the legend calls them and their colour.
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Loss": {"loss": ("training", BLUE), "val_loss": ("validation", ORANGE)},
    "Accuracy": {"accuracy": ("training", BLUE), "val_accuracy": ("validation", ORANGE)},
    "AUC, one-vs-rest, macro": {"val_auc": ("validation", ORANGE)},
    "Learning rate": {"learning_rate": ("learning rate", GREY)},
}


def curves(history: Sequence[Mapping[str, Any]], path: str | Path, x: str = "epoch") -> None:
    """Draw loss, accuracy, AUC and learning rate over a training.

    Parameters
    ----------
    history : rows with `x` and any of loss, accuracy, val_loss, val_accuracy, val_auc, learning_rate; a column that
        no row has gets no panel, values that are missing, None or not finite are passed over
    path : where the picture goes
    x : "epoch", or "steps" where the rows are not whole epochs
    """
    present = {key for row in history for key, value in row.items() if value is not None}
    panels = {title: columns for title, columns in PANELS.items() if present & columns.keys()}
    rows = 2 if len(panels) == 4 else 1
    across = max(len(panels) // rows, 1)
    figure = new_figure(4.6 * across, 3.4 * rows)
    for position, (title, columns) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, across, position)
        for key in [key for key in columns if key in present]:
            name, colour = columns[key]
            line(axes, column(history, x), column(history, key), name, colour)
        if len(history) == 1:
            axes.set_xlim(history[0][x] - 1, history[0][x] + 1)
        if title == "Learning rate":
            axes.set_ylim(bottom=0)
        dress(axes, title, x, legend=len(columns) > 1)
    figure.savefig(path, format="png", dpi=DPI)


def samples(
    image_set: ImageSet,
    path: str | Path,
    count: int = 25,
    seed: int = 0,
    predicted: Sequence[str] | None = None,
) -> None:
    """Draw a square grid of images with their class names beneath.

    Parameters
    ----------
    image_set : N images; `count` of them are drawn by lot, or all, in their order, where there are no more
    path : where the picture goes
    count : number of images to show
    seed : the same seed draws the same images
    predicted : N class names that a model gives; wrong ones are shown in red, as true → predicted
    """
    n = len(image_set)
    chosen = np.arange(n) if n <= count else np.random.default_rng(seed).choice(n, count, replace=False)
    readable, fonts = legible([*image_set.class_names, *(predicted or ())])
    across = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / across)
    figure = new_figure(1.65 * across, 1.9 * rows)
    for position, index in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, across, position)
        axes.imshow(image_set.images[index], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        true = image_set.class_names[image_set.labels[index]]
        given = true if predicted is None else predicted[index]
        caption = short(readable[true]) if given == true else f"{short(readable[true])}\n→ {short(readable[given])}"
        axes.set_xlabel(
            caption, color=INK if given == true else RED, fontsize=8.5, fontfamily=fonts, parse_math=False, labelpad=4
        )
    figure.savefig(path, format="png", dpi=DPI)


def wrong(image_set: ImageSet, predictions: Predictions, path: str | Path, count: int = 25) -> None:
    """Draw the first images, at most `count`, whose prediction is wrong; `predictions` are those of `image_set`."""
    first = np.flatnonzero(predictions.predicted != image_set.labels)[:count]
    if len(first) > 0:
        predicted = [predictions.class_names[label] for label in predictions.predicted[first]]
        samples(image_set.take(first), path, count, predicted=predicted)
    else:
        figure = new_figure(5, 1.5)
        figure.text(0.5, 0.5, f"None of {len(image_set):,} predictions is wrong.", ha="center", va="center", color=INK)
        figure.savefig(path, format="png", dpi=DPI)


def confusion_matrix(confusion: ArrayLike, class_names: Sequence[str], path: str | Path) -> None:
    """Draw how many images of each true class (rows) were given each class (columns).

    Colours show shares of a row, so that rare classes count as much as frequent ones, by their square root, so that
    rare confusions can be seen at all. Counts are written up to 20 classes, names up to 100.

    Parameters
    ----------
    confusion : integers K×K
    class_names : K names
    path : where the picture goes
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(class_names)
    side = min(2 + 0.5 * classes, 12)
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set_xlabel("Predicted class", color=INK)
    axes.set_ylabel("True class", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)
    if classes <= 20:
        for row, column in np.ndindex(classes, classes):
            ink = "white" if shares[row, column] > 0.3 else INK if counts[row, column] else GREY
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=ink)
    name_ticks(axes, class_names if classes <= 100 else ())
    figure.savefig(path, format="png", dpi=DPI)
