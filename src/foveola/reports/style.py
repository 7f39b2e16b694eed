"""Shared by all plots: colours, figures without a window, the style of axes, and names that can be drawn."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveola.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# From Okabe and Ito's palette, red darkened to be read as text: told apart with every kind of colour blindness.
BLUE, ORANGE, RED, INK, GREY = "#0072b2", "#e69f00", "#b84300", "#222222", "#8a8a8a"


def new_figure(width: float, height: float) -> "Figure":
    require("matplotlib", "plots")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    padding = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), layout=padding, facecolor="white")


def column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """A column of the history, N, NaN where a row lacks it."""
    values = (row.get(key) for row in history)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def line(axes: "Axes", x: NDArray[np.float64], y: NDArray[np.float64], name: str, colour: str) -> None:
    # Columns need not be filled in the same rows: each line joins the points that it has.
    filled = np.isfinite(y)
    marker = "o" if filled.sum() <= 30 else ""
    axes.plot(x[filled], y[filled], color=colour, label=name, linewidth=1.8, marker=marker, markersize=4)


def style_axes(axes: "Axes", title: str, x: str = "", y: str = "") -> None:
    """Title, axis labels, a light grid, and no frame above and at the right."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)


def name_ticks(axes: "Axes", class_names: Sequence[str]) -> None:
    readable, fonts = drawable_names(class_names)
    positions, names = range(len(class_names)), [short(readable[name]) for name in class_names]
    style: dict[str, Any] = {"fontfamily": fonts, "parse_math": False, "fontsize": 9 if len(names) <= 20 else 6}
    axes.set_xticks(positions, names, rotation=90 if max(map(len, names), default=0) > 2 else 0, **style)
    axes.set_yticks(positions, names, **style)


def short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def drawable_names(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
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
