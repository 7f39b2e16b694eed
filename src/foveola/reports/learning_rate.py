"""The page and the plot of a learning-rate range test: loss over learning rate, with the suggestion."""

import io
from typing import TYPE_CHECKING

import numpy as np

from foveola.documents import LearningRateCurve
from foveola.reports import html
from foveola.reports.plots import DPI
from foveola.reports.style import BLUE, GREY, INK, ORANGE, RED, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_rate_page(curve: LearningRateCurve) -> str:
    """The page as self-contained HTML."""
    label = f"Training loss over learning rate, {curve.recipe} on {curve.data}"
    return html.render("learning_rate.html", curve=curve, plot=html.svg(_figure(curve), label))


def learning_rate_png(curve: LearningRateCurve) -> bytes:
    """The plot as PNG."""
    content = io.BytesIO()
    _figure(curve).savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def _figure(curve: LearningRateCurve) -> "Figure":
    rates, losses, smoothed = map(np.array, (curve.learning_rates, curve.losses, curve.smoothed))
    figure = new_figure(7.0, 4.0)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=GREY, linewidth=0.8, alpha=0.6, label="each batch")
    axes.plot(rates, smoothed, color=BLUE, linewidth=1.8, label="smoothed")
    style_axes(axes, f"{curve.recipe} on {curve.data}", "Learning rate", "Training loss")
    axes.set_xscale("log")
    if len(smoothed):
        # What diverges would press the rest flat
        axes.set_ylim(0, 1.5 * max(smoothed[0], losses[:10].max()))
    if curve.lowest is not None:
        axes.axvline(curve.lowest, color=ORANGE, linewidth=1.2, label=f"lowest loss: {curve.lowest:.2g}")
    if curve.suggestion is not None:
        axes.axvline(curve.suggestion, color=RED, linewidth=1.8, label=f"suggestion: {curve.suggestion:g}")
    own = curve.recipe_learning_rate
    axes.axvline(own, color=INK, linewidth=1.0, linestyle=":", label=f"the recipe's: {own:g}")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure
