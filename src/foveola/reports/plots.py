"""Plots of a run: PNG files beside it, and figures for its page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveola.evaluation.curves import ReliabilityBin, RocCurve
from foveola.evaluation.metrics import confusion
from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.reports.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    column,
    drawable_names,
    line,
    name_ticks,
    new_figure,
    short,
    style_axes,
)
from foveola.tasks import label_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 120

# Each panel's title, and the history's columns with what the legend calls them and their colour.
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Loss": {"loss": ("training", BLUE), "val_loss": ("validation", ORANGE)},
    "Accuracy": {"accuracy": ("training", BLUE), "val_accuracy": ("validation", ORANGE)},
    "AUC, one-vs-rest, macro": {"val_auc": ("validation", ORANGE)},
    "Learning rate": {"learning_rate": ("learning rate", GREY)},
}

# Okabe and Ito's palette and two more: as many colours as can be told apart
CLASS_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a5195", "#8c6d1f", "#222222", "#9aa400",
)  # fmt: skip
PALE = "#d0d4d9"
WIDTH, HEIGHT = 4.6, 3.5


def plot_run(
    folder: Path,
    history: Sequence[Mapping[str, float]],
    train: ImageSet,
    test: ImageSet | None,
    predictions: Predictions | None,
    *,
    x: str = "epoch",
) -> None:
    """Plot curves and samples; of a measured test split, mistakes and, of one class an image, the confusion matrix.

    Parameters
    ----------
    folder : for curves.png, samples.png, mistakes.png, confusion.png
    history : one row an epoch
    test, predictions : the test images and their predictions, or None
    x : the column of the history along which curves run
    """
    plot_curves(history, folder / "curves.png", x=x)
    plot_samples(train, folder / "samples.png")
    if test is not None and predictions is not None:
        plot_mistakes(test, predictions, folder / "mistakes.png")
        if predictions.task == "multiclass":
            plot_confusion(confusion(predictions), predictions.class_names, folder / "confusion.png")


def plot_curves(history: Sequence[Mapping[str, Any]], path: str | Path, x: str = "epoch") -> None:
    """Plot loss, accuracy, AUC and learning rate over a training.

    Parameters
    ----------
    history : rows with `x` and any columns of PANELS; a panel whose columns no row has is left out, values that are
        missing, None or not finite are skipped
    path : the PNG file
    x : "epoch", or "step" if the rows are not whole epochs
    """
    panels = _panels(history)
    rows = 2 if len(panels) == 4 else 1
    across = max(len(panels) // rows, 1)
    figure = new_figure(4.6 * across, 3.4 * rows)
    for position, title in enumerate(panels, start=1):
        _plot_panel(figure.add_subplot(rows, across, position), history, title, x)
    figure.savefig(path, format="png", dpi=DPI)


def curve_figures(history: Sequence[Mapping[str, Any]], x: str) -> "dict[str, Figure]":
    """A figure for each panel of PANELS that the history, one row an epoch, has values for."""
    figures = {}
    for title in _panels(history):
        figures[title] = new_figure(WIDTH, HEIGHT)
        _plot_panel(figures[title].add_subplot(), history, title, x)
    return figures


def _panels(history: Sequence[Mapping[str, Any]]) -> list[str]:
    present = {key for row in history for key, value in row.items() if value is not None}
    return [title for title, columns in PANELS.items() if present & columns.keys()]


def _plot_panel(axes: "Axes", history: Sequence[Mapping[str, Any]], title: str, x: str) -> None:
    from matplotlib.ticker import MaxNLocator

    columns = PANELS[title]
    for key, (name, colour) in columns.items():
        if any(row.get(key) is not None for row in history):
            line(axes, column(history, x), column(history, key), name, colour)
    if len(history) == 1:
        axes.set_xlim(history[0][x] - 1, history[0][x] + 1)
    if title == "Learning rate":
        axes.set_ylim(bottom=0)
    style_axes(axes, title, x.capitalize())
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if len(columns) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def plot_samples(
    image_set: ImageSet,
    path: str | Path,
    count: int = 25,
    seed: int = 0,
    predicted: Sequence[str] | None = None,
) -> None:
    """Plot a square grid of images with their class names beneath.

    Parameters
    ----------
    image_set : N images; `count` of them are chosen at random, or all, in their order, if there are no more
    path : the PNG file
    count : number of images to show
    seed : of the random choice
    predicted : N predicted class names; wrong ones are shown in red, as true → predicted
    """
    n = len(image_set)
    chosen = np.arange(n) if n <= count else np.random.default_rng(seed).choice(n, count, replace=False)
    trues = {index: label_text(image_set.labels[index], image_set.class_names) for index in chosen}
    readable, fonts = drawable_names([*image_set.class_names, *trues.values(), *(predicted or ())])
    across = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / across)
    height, width, _ = image_set.image_shape
    figure = new_figure(1.65 * across, (1.65 * min(max(height / width, 0.4), 2.0) + 0.25) * rows)
    for position, index in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, across, position)
        axes.imshow(image_set.images[index], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        true = trues[index]
        given = true if predicted is None else predicted[index]
        caption = short(readable[true]) if given == true else f"{short(readable[true])}\n→ {short(readable[given])}"
        axes.set_xlabel(
            caption, color=INK if given == true else RED, fontsize=8.5, fontfamily=fonts, parse_math=False, labelpad=4
        )
    figure.savefig(path, format="png", dpi=DPI)


def plot_mistakes(image_set: ImageSet, predictions: Predictions, path: str | Path, count: int = 25) -> None:
    """Plot the first images, at most `count`, whose prediction is wrong; `predictions` are those of `image_set`."""
    first = np.flatnonzero(~predictions.right)[:count]
    if len(first) > 0:
        predicted = [label_text(label, predictions.class_names) for label in predictions.predicted[first]]
        plot_samples(image_set.take(first), path, count, predicted=predicted)
    else:
        figure = new_figure(5, 1.5)
        figure.text(0.5, 0.5, f"None of {len(image_set):,} predictions is wrong.", ha="center", va="center", color=INK)
        figure.savefig(path, format="png", dpi=DPI)


def plot_confusion(confusion: ArrayLike, class_names: Sequence[str], path: str | Path) -> None:
    """Plot the confusion matrix, true classes in rows, predicted classes in columns.

    A cell's colour is the square root of its fraction of the row: rare classes count as much as frequent ones, and rare
    confusions stay visible. Counts are written up to 20 classes, names up to 100.

    Parameters
    ----------
    confusion : integers K×K
    class_names : K names
    path : the PNG file
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


def roc_figure(curves: Sequence[RocCurve], colours: Mapping[int, str], reach: float = 1.0) -> "Figure":
    """ROC curve of each class against all others.

    Parameters
    ----------
    curves : by class, with false_positive_rate and true_positive_rate
    colours : by class; the others are drawn in a pale grey behind
    reach : how far the axis of false positives goes; below 1, the corner at the upper left is shown
    """
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    for label in sorted(range(len(curves)), key=lambda label: label in colours):
        curve, colour = curves[label], colours.get(label, PALE)
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=colour, linewidth=1.5)
    if reach == 1:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    margin = 0.02
    axes.set_xlim(-margin * reach, reach * (1 + margin))
    lowest = 0.0 if reach == 1 else _lowest_inside(curves, reach)
    axes.set_ylim(lowest - margin * (1 - lowest), 1 + margin * (1 - lowest))
    title = "ROC, each class against the rest" if reach == 1 else "The same, upper left corner"
    style_axes(axes, title, "False-positive rate", "True-positive rate")
    return figure


def reliability_figure(before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], scaled: bool) -> "Figure":
    """Reliability diagram: accuracy over confidence.

    Parameters
    ----------
    before, after : the bins without and with the temperature
    scaled : whether the temperature is not 1
    """
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="perfect")
    if scaled:
        x, y, _ = _bins(before)
        axes.plot(x, y, color=ORANGE, marker="o", markersize=4, linewidth=1.2, label="before temperature")
    x, y, reach = _bins(after)
    style: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 4, "linewidth": 1.5, "elinewidth": 0.9}
    axes.errorbar(x, y, reach, capsize=2, label="after temperature" if scaled else "this model", **style)
    lowest = min(0.9, *(bin.confidence for bin in (*before, *after)), *(bin.low for bin in after))
    axes.set(xlim=(lowest - 0.02, 1.02), ylim=(lowest - 0.02, 1.02))
    style_axes(axes, "Reliability", "Confidence", "Accuracy")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def risk_coverage_figure(coverage: ArrayLike, risk: ArrayLike) -> "Figure":
    """Error rate among the most confident predictions, over the fraction of images that they are."""
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    axes.plot(100 * np.asarray(coverage), 100 * np.asarray(risk), color=BLUE, linewidth=1.8)
    axes.axhline(1, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlim(-2, 102)
    axes.set_ylim(bottom=0)
    style_axes(axes, "Risk and coverage", "Coverage, most confident first (%)", "Error rate among them (%)")
    return figure


def embedding_figure(
    points: NDArray[np.float64], labels: NDArray[np.int64], colours: Mapping[int, str], title: str
) -> "Figure":
    """Points, N×2, coloured by class; classes without a colour are pale and lie behind.

    The axes have no ticks, because only nearness means something in such a plane.
    """
    figure = new_figure(WIDTH, WIDTH)
    axes = figure.add_subplot()
    shown = np.isin(labels, list(colours))
    pale, bright = points[~shown], points[shown]
    axes.scatter(pale[:, 0], pale[:, 1], s=9, color=PALE, linewidths=0)
    # Drawn in the order of the images, so that no class hides another
    colour = [colours[int(label)] for label in labels[shown]]
    axes.scatter(bright[:, 0], bright[:, 1], s=9, c=colour, linewidths=0, alpha=0.8)
    axes.set(xticks=[], yticks=[])
    style_axes(axes, title, "", "")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _bins(bins: Sequence[ReliabilityBin]) -> tuple[list[float], list[float], NDArray[np.float64]]:
    """Confidence, accuracy, and how far the interval reaches below and above, 2×B."""
    accuracy = [bin.accuracy for bin in bins]
    reach = np.array([[bin.accuracy - bin.low, bin.high - bin.accuracy] for bin in bins]).T
    return [bin.confidence for bin in bins], accuracy, reach.clip(min=0)


def _lowest_inside(curves: Sequence[RocCurve], reach: float) -> float:
    """The height at which the lowest curve enters the shown corner."""
    heights = [
        float(np.interp(reach / 10, curve.false_positive_rate, curve.true_positive_rate))
        for curve in curves
        if curve.false_positive_rate
    ]
    return min(min(heights, default=0.0), 0.99)
