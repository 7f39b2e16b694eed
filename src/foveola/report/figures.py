"""Figures of the report, to be drawn into the page. Classes go by colour: their names stand in the page's own text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveola.report.plots import PANELS
from foveola.report.style import BLUE, GREY, INK, ORANGE, column, dress, line, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette and two more: as many colours as can be told apart
CLASS_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a5195", "#8c6d1f", "#222222", "#9aa400",
)  # fmt: skip
PALE = "#d0d4d9"
WIDTH, HEIGHT = 4.6, 3.5


def training_curves(history: Sequence[Mapping[str, Any]], x: str) -> "dict[str, Figure]":
    """A figure for each panel of `foveola.report.plots.PANELS` that the history, a row an epoch, has values for."""
    present = {key for row in history for key, value in row.items() if value is not None}
    figures = {}
    for title, columns in PANELS.items():
        if not present & columns.keys():
            continue
        figures[title] = figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        for key in [key for key in columns if key in present]:
            line(axes, column(history, x), column(history, key), *columns[key])
        if len(history) == 1:
            axes.set_xlim(history[0][x] - 1, history[0][x] + 1)
        if title == "Learning rate":
            axes.set_ylim(bottom=0)
        dress(axes, title, x, legend=len(columns) > 1)
    return figures


def roc_curves(curves: Sequence[Mapping[str, Any]], colours: Mapping[int, str], reach: float = 1.0) -> "Figure":
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
        axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=colour, linewidth=1.5)
    if reach == 1:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    margin = 0.02
    axes.set_xlim(-margin * reach, reach * (1 + margin))
    lowest = 0.0 if reach == 1 else _lowest_inside(curves, reach)
    axes.set_ylim(lowest - margin * (1 - lowest), 1 + margin * (1 - lowest))
    title = "ROC, each class against the rest" if reach == 1 else "The same, upper left corner"
    _plain(axes, title, "False-positive rate", "True-positive rate")
    return figure


def reliability(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], scaled: bool) -> "Figure":
    """Share of right answers over confidence, by bins of confidence, low, accuracy and high.

    Parameters
    ----------
    before, after : the bins without and with the temperature
    scaled : whether there is a temperature, so that the two differ
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
    lowest = min(0.9, *(bin["confidence"] for bin in (*before, *after)), *(bin["low"] for bin in after))
    axes.set(xlim=(lowest - 0.02, 1.02), ylim=(lowest - 0.02, 1.02))
    _plain(axes, "Reliability", "Confidence: probability of the answer", "Share of right answers")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def risk_coverage(coverage: ArrayLike, risk: ArrayLike) -> "Figure":
    """Share of wrong answers among those that are given, over the share of images that are answered."""
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    axes.plot(100 * np.asarray(coverage), 100 * np.asarray(risk), color=BLUE, linewidth=1.8)
    axes.axhline(1, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlim(-2, 102)
    axes.set_ylim(bottom=0)
    _plain(axes, "Risk and coverage", "Images answered, surest first (%)", "Wrong among them (%)")
    return figure


def plane(points: NDArray[np.float64], labels: NDArray[np.int64], colours: Mapping[int, str], title: str) -> "Figure":
    """Points, N×2, coloured by class; classes without a colour are pale and lie behind.

    The axes have no ticks: in such a plane only nearness means something.
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
    _plain(axes, title, "", "")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _plain(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)


def _bins(bins: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float], NDArray[np.float64]]:
    """Confidence, accuracy, and how far the interval reaches below and above, 2×B."""
    accuracy = [bin["accuracy"] for bin in bins]
    reach = np.array([[bin["accuracy"] - bin["low"], bin["high"] - bin["accuracy"]] for bin in bins]).T
    return [bin["confidence"] for bin in bins], accuracy, reach.clip(min=0)


def _lowest_inside(curves: Sequence[Mapping[str, Any]], reach: float) -> float:
    """Where the lowest curve enters the corner: below it there is nothing to see."""
    heights = [
        float(np.interp(reach / 10, curve["false_positive_rate"], curve["true_positive_rate"]))
        for curve in curves
        if curve["false_positive_rate"]
    ]
    return min(min(heights, default=0.0), 0.99)
