"""The HTML page of a comparison: verdicts, metrics with intervals, and the images that the models disagree on."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foveola.arrays import shape_text
from foveola.documents import ComparedPair, ComparedRun, Comparison, Disagreement
from foveola.evaluation.comparison import p_text
from foveola.evaluation.costs import ParametersByImageSize
from foveola.evaluation.metrics import METRICS
from foveola.images import ImageSet
from foveola.inputs.resize import shrink
from foveola.reports.html import image_uri, render, svg
from foveola.reports.style import BLUE, INK, ORANGE, RED, drawable_names, new_figure, style_axes

if TYPE_CHECKING:
    from markupsafe import Markup


IMAGES_A_GROUP = 24
IMAGE_SIDE = 96


def comparison_page(comparison: Comparison, test: ImageSet) -> str:
    """The page as self-contained HTML.

    Parameters
    ----------
    comparison : what `foveola.compare` returns
    test : the test images that it was made on, in their order
    """
    runs = list({run.name: run for run in comparison.runs}.values())
    return render(
        "comparison.html",
        title=" against ".join(run.name for run in comparison.runs),
        document=comparison,
        p_text=p_text,
        runs=runs,
        accuracies=_accuracies(runs),
        pairs=[_pair(pair, test) for pair in comparison.pairs],
        scaling=_scaling(comparison.scaling) if comparison.scaling else None,
    )


def _pair(pair: ComparedPair, test: ImageSet) -> dict[str, Any]:
    """A pair with the rows of its table and its images."""
    estimates = {"accuracy": pair.accuracy_difference, **pair.differences}
    rows = [{"metric": METRICS[key], "difference": one} for key, one in estimates.items() if one.is_defined]
    images = pair.disagreeing_images
    groups = [
        _group(f"Only {pair.first} is right", [one for one in images if one.first == one.true], test),
        _group(f"Only {pair.second} is right", [one for one in images if one.second == one.true], test),
        _group("Both are wrong", [one for one in images if one.true not in (one.first, one.second)], test),
    ]
    return {**vars(pair), "rows": rows, "groups": [group for group in groups if group["count"]]}


def _group(title: str, images: Sequence[Disagreement], test: ImageSet) -> dict[str, Any]:
    shown = [
        vars(one) | {"source": image_uri(shrink(test.images[one.index], IMAGE_SIDE))} for one in images[:IMAGES_A_GROUP]
    ]
    return {"title": title, "count": len(images), "images": shown}


def _accuracies(runs: Sequence[ComparedRun]) -> "Markup":
    """The accuracy of each run with its interval, and its other seeds as rings."""
    figure = new_figure(6, 0.9 + 0.45 * len(runs))
    axes = figure.add_subplot()
    for row, run in enumerate(runs):
        axes.plot([run.accuracy.low, run.accuracy.high], [row, row], color=BLUE, linewidth=2)
        axes.plot(run.accuracy.value, row, "o", color=BLUE, markersize=7)
        others = [training.accuracy for training in run.trainings[1:]]
        axes.plot(others, [row] * len(others), "o", markerfacecolor="none", markeredgecolor=ORANGE, markersize=7)
    readable, fonts = drawable_names([run.name for run in runs])
    axes.set_yticks(range(len(runs)), [readable[run.name] for run in runs], fontfamily=fonts, parse_math=False)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    style_axes(axes, "Accuracy on the test images, 95 % interval")
    return svg(figure, "Accuracy of each run with its 95 % interval")


def _scaling(rows: Sequence[ParametersByImageSize]) -> dict[str, Any]:
    """Parameters against image size: a plot, and the table behind it."""
    names = [network.name for network in rows[0].networks]
    convolutional = [
        name for name, column in zip(names, zip(*(row.networks for row in rows), strict=True), strict=True)
        if any(network.before_dense for network in column)
    ]  # fmt: skip
    readable, fonts = drawable_names(names)
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    for position, name in enumerate(names):
        points = [
            (math.prod(row.image_shape), network.parameters, network.before_dense)
            for row in rows
            if (network := row.networks[position]).parameters is not None
        ]
        values, parameters, before_dense = zip(*points, strict=True)
        colour, label = (RED, BLUE, ORANGE, INK)[position % 4], readable[name]
        axes.plot(values, parameters, "o-", color=colour, label=label, markersize=4)
        if name in convolutional:
            axes.plot(values, before_dense, "--", color=colour, label=f"{label}: convolutions alone")
    axes.set_xscale("log")
    axes.set_yscale("log")
    style_axes(axes, "Parameters", x="values of an image: height × width × channels")
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    for text in legend.get_texts():
        text.set(parse_math=False, fontfamily=fonts)
    largest = rows[-1]
    return {
        "drawing": svg(figure, "Parameters of each network against the size of the image"),
        "names": names,
        "convolutional": convolutional,
        "rows": [{"shape": shape_text(row.image_shape), "networks": row.networks} for row in rows],
        "largest": shape_text(largest.image_shape),
        "worst": max(largest.networks, key=lambda network: network.parameters or 0),
    }
