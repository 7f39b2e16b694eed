"""A comparison as one HTML page: verdicts, figures with intervals, and the images that the models disagree on."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foveola.decoding import resize
from foveola.evaluation.comparison import p_text
from foveola.images import Images, ImageSet, shape_text
from foveola.report.html import drawing, picture, render
from foveola.report.style import BLUE, GREY, INK, ORANGE, RED, legible, new_figure

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

# What each figure is called, and which way is better
FIGURES = {
    "accuracy": ("accuracy", "higher"),
    "auc_macro_ovr": ("AUC (one-vs-rest, macro)", "higher"),
    "log_loss": ("log loss", "lower"),
    "brier": ("Brier score", "lower"),
    "ece": ("calibration error (ECE)", "lower"),
}
PICTURES_A_GROUP = 24
PICTURE_SIDE = 96


def comparison_page(document: Mapping[str, Any], test: ImageSet) -> str:
    """The page of what `foveola.compare` returns.

    Parameters
    ----------
    document : the comparison
    test : the test images that it was made on, in their order
    """
    runs = list({run["name"]: run for run in document["runs"]}.values())
    return render(
        "comparison.html",
        title=" against ".join(run["name"] for run in document["runs"]),
        document=document,
        p_text=p_text,
        runs=runs,
        accuracies=_accuracies(runs),
        pairs=[_pair(pair, test) for pair in document["pairs"]],
        scaling=_scaling(document["scaling"]) if document["scaling"] else None,
    )


def _pair(pair: Mapping[str, Any], test: ImageSet) -> dict[str, Any]:
    """A pair's rows and pictures, as the template needs them."""
    estimates = {"accuracy": pair["accuracy_difference"], **pair["differences"]}
    rows = [
        {"name": name, "better": better, **estimates[key]}
        for key, (name, better) in FIGURES.items()
        if estimates[key]["value"] is not None
    ]
    images = pair["disagreeing_images"]
    groups = [
        _group(f"Only {pair['first']} is right", [one for one in images if one["first"] == one["true"]], test),
        _group(f"Only {pair['second']} is right", [one for one in images if one["second"] == one["true"]], test),
        _group("Both are wrong", [one for one in images if one["true"] not in (one["first"], one["second"])], test),
    ]
    return {**pair, "rows": rows, "groups": [group for group in groups if group["count"]]}


def _group(title: str, images: Sequence[Mapping[str, Any]], test: ImageSet) -> dict[str, Any]:
    shown = [{**one, "source": _small(test.images[one["index"]])} for one in images[:PICTURES_A_GROUP]]
    return {"title": title, "count": len(images), "images": shown}


def _small(image: Images) -> str:
    """A picture no larger than it is shown, so that the page stays small."""
    height, width = image.shape[:2]
    scale = PICTURE_SIDE / max(height, width)
    if scale < 1:
        image = resize(image, max(round(height * scale), 1), max(round(width * scale), 1))
    return picture(image)


def _accuracies(runs: Sequence[Mapping[str, Any]]) -> "Markup":
    """A line a run: its accuracy with the interval, and its other trainings as rings."""
    figure = new_figure(6, 0.9 + 0.45 * len(runs))
    axes = figure.add_subplot()
    for row, run in enumerate(runs):
        accuracy = run["accuracy"]
        axes.plot([accuracy["low"], accuracy["high"]], [row, row], color=BLUE, linewidth=2)
        axes.plot(accuracy["value"], row, "o", color=BLUE, markersize=7)
        others = [training["accuracy"] for training in run["trainings"][1:]]
        axes.plot(others, [row] * len(others), "o", markerfacecolor="none", markeredgecolor=ORANGE, markersize=7)
    readable, fonts = legible([run["name"] for run in runs])
    axes.set_yticks(range(len(runs)), [readable[run["name"]] for run in runs], fontfamily=fonts, parse_math=False)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    _dress(axes, "Accuracy on the test images, 95 % interval")
    return drawing(figure, "Accuracy of each run with its 95 % interval")


def _scaling(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters against image size: a drawing, and the table behind it."""
    names = [network["name"] for network in rows[0]["networks"]]
    convolutional = [
        name for name, column in zip(names, zip(*(row["networks"] for row in rows), strict=True), strict=True)
        if any(network["before_dense"] for network in column)
    ]  # fmt: skip
    readable, fonts = legible(names)
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    for position, name in enumerate(names):
        points = [
            (math.prod(row["image_shape"]), network["parameters"], network["before_dense"])
            for row in rows
            if (network := row["networks"][position])["parameters"] is not None
        ]
        values, parameters, before_dense = zip(*points, strict=True)
        colour, label = (RED, BLUE, ORANGE, INK)[position % 4], readable[name]
        axes.plot(values, parameters, "o-", color=colour, label=label, markersize=4)
        if name in convolutional:
            axes.plot(values, before_dense, "--", color=colour, label=f"{label}: convolutions alone")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("values of an image: height × width × channels", color=INK)
    _dress(axes, "Parameters")
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    for text in legend.get_texts():
        text.set(parse_math=False, fontfamily=fonts)
    largest = rows[-1]
    return {
        "drawing": drawing(figure, "Parameters of each network against the size of the image"),
        "names": names,
        "convolutional": convolutional,
        "rows": [{"shape": shape_text(row["image_shape"]), "networks": row["networks"]} for row in rows],
        "largest": shape_text(largest["image_shape"]),
        "worst": max(largest["networks"], key=lambda network: network["parameters"] or 0),
    }


def _dress(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
