"""Pictures of a run, as PNG: its curves, sample images, its confusions and its mistakes.

Figures are drawn without pyplot, so that no window is opened and no global state is touched.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveola.errors import require
from foveola.images import ImageSet
from foveola.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
# From Okabe and Ito's palette, red darkened to be read as text: told apart with every kind of colour blindness.
BLUE, ORANGE, RED, INK, GREY = "#0072b2", "#e69f00", "#b84300", "#222222", "#8a8a8a"

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
    figure = _figure(4.6 * across, 3.4 * rows)
    for position, (title, columns) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, across, position)
        for key in [key for key in columns if key in present]:
            name, colour = columns[key]
            _line(axes, _column(history, x), _column(history, key), name, colour)
        if len(history) == 1:
            axes.set_xlim(history[0][x] - 1, history[0][x] + 1)
        if title == "Learning rate":
            axes.set_ylim(bottom=0)
        _dress(axes, title, x, legend=len(columns) > 1)
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
    legible, fonts = _legible([*image_set.class_names, *(predicted or ())])
    across = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / across)
    figure = _figure(1.65 * across, 1.9 * rows)
    for position, index in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, across, position)
        axes.imshow(image_set.images[index], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        true = image_set.class_names[image_set.labels[index]]
        given = true if predicted is None else predicted[index]
        caption = _short(legible[true]) if given == true else f"{_short(legible[true])}\n→ {_short(legible[given])}"
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
        figure = _figure(5, 1.5)
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
    figure = _figure(side, side)
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
    _name_ticks(axes, class_names if classes <= 100 else ())
    figure.savefig(path, format="png", dpi=DPI)


def _figure(width: float, height: float) -> "Figure":
    require("matplotlib", "train")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    padding = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), layout=padding, facecolor="white")


def _column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """A column of the history, N, NaN where a row lacks it."""
    values = (row.get(key) for row in history)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _line(axes: "Axes", x: NDArray[np.float64], y: NDArray[np.float64], name: str, colour: str) -> None:
    # Columns need not be filled in the same rows: each line joins the points that it has.
    filled = np.isfinite(y)
    marker = "o" if filled.sum() <= 30 else ""
    axes.plot(x[filled], y[filled], color=colour, label=name, linewidth=1.8, marker=marker, markersize=4)


def _dress(axes: "Axes", title: str, x: str, legend: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.set_xlabel(x.capitalize(), color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    if legend:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _name_ticks(axes: "Axes", class_names: Sequence[str]) -> None:
    legible, fonts = _legible(class_names)
    positions, names = range(len(class_names)), [_short(legible[name]) for name in class_names]
    style: dict[str, Any] = {"fontfamily": fonts, "parse_math": False, "fontsize": 9 if len(names) <= 20 else 6}
    axes.set_xticks(positions, names, rotation=90 if max(map(len, names), default=0) > 2 else 0, **style)
    axes.set_yticks(positions, names, **style)


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def _legible(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Each name as it can be drawn, and the fonts to draw it with.

    The bundled font has no Chinese or Japanese characters: a font of the system helps out where one has all that is
    missing. Where none has, kana are romanised and other such names become the number of the class.
    """
    from matplotlib.font_manager import findfont, fontManager

    bundled = "DejaVu Sans"
    missing = _undrawable("".join(names), findfont(bundled))
    if not missing:
        return {name: name for name in names}, [bundled]
    for entry in fontManager.ttflist:
        # Last Resort has a glyph for everything: the same empty box.
        if "LastResort" not in entry.name.replace(" ", "") and not _undrawable(missing, entry.fname):
            return {name: name for name in names}, [bundled, entry.name]
    return {
        name: name if missing.isdisjoint(name) else _romanised(name) or f"#{index}"
        for index, name in enumerate(dict.fromkeys(names))
    }, [bundled]


def _undrawable(characters: Iterable[str], font: str) -> set[str]:
    """The characters that a font file has no glyph for."""
    from matplotlib.font_manager import get_font

    try:
        known = get_font(font)
    except (OSError, RuntimeError):  # matplotlib's list of fonts is cached, and may be older than the fonts
        return set(characters)
    return {character for character in characters if not known.get_char_index(ord(character))}


def _romanised(name: str) -> str | None:
    """Kana in Latin letters, as Unicode names them in Hepburn's spelling; None if other characters are among them."""
    hepburn = {"si": "shi", "ti": "chi", "tu": "tsu", "hu": "fu", "zi": "ji"}
    official = [unicodedata.name(character, "").partition(" LETTER ") for character in name]
    if not all(script in ("HIRAGANA", "KATAKANA") for script, _, _ in official):
        return None
    syllables = [syllable.removeprefix("SMALL ").lower() for _, _, syllable in official]
    return "".join(hepburn.get(syllable, syllable) for syllable in syllables)
