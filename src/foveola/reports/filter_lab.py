"""The filter lab as an interactive page, an animation (GIF) and an image (PNG): a window slides over an image."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from foveola.arrays import shape_text
from foveola.explanation.convolution import Matrix, SlidingWindow
from foveola.images import Images
from foveola.reports import html
from foveola.reports.pixels import png_bytes, shaded, signed

# Positions in an animation, evenly spread
MAX_FRAMES = 200
# Pixels: sides of a panel and of a cell, the gap between panels, and the width of a frame
PANEL_SIDE, MAX_CELL, GAP, MIN_WIDTH = 300, 44, 24, 640
# Points
SMALL_FONT, LARGE_FONT = 13, 15
# Lines of arithmetic, the same in all frames of an animation
SUM_LINES = 4
# Longer sums are given by their number of terms; as in sliding.js
MAX_TERMS = 25
# The server page's modules that compute and write the sums of this page too
SHARED_MODULES = ("pixels.js", "sliding.js")
ACCENT, LINE, EMPTY = (184, 67, 0), (200, 200, 200), (238, 238, 238)


@dataclass(frozen=True, eq=False)
class Lab:
    """The contents of the filter lab.

    Parameters
    ----------
    image : the image's name
    notes : what was done to the image beforehand
    stages : each has the output of the one before as its input
    positions : row and column of the output to show, for each stage
    """

    image: str
    notes: tuple[str, ...]
    stages: tuple[SlidingWindow, ...]
    positions: tuple[tuple[int, int], ...]


def lab_document(lab: Lab) -> dict[str, Any]:
    """The stages as plain numbers; padding is None in `values`."""
    return {"stages": [_stage_document(*each) for each in zip(lab.stages, lab.positions, strict=True)]}


def filter_lab_page(lab: Lab) -> str:
    """The page as self-contained HTML: buttons and a slider move the window."""
    document = lab_document(lab)["stages"]
    for stage, row in zip(lab.stages, document, strict=True):
        row["image"] = stage.image.tolist()
    return html.render(
        "filter_lab.html",
        image=lab.image,
        notes=lab.notes,
        stages=document,
        still=html.image_uri(_still(lab)),
        shared_modules=_shared_modules(),
    )


def still(lab: Lab) -> bytes:
    """The chosen position of every stage, below each other, as PNG."""
    return png_bytes(_still(lab))


def animation(lab: Lab) -> bytes:
    """The window of every stage sliding over its input, as GIF."""
    frames, durations = [], []
    for stage in lab.stages:
        total = stage.output.size
        shown = np.unique(np.linspace(0, total - 1, min(total, MAX_FRAMES)).round().astype(int)).tolist()
        for number in shown:
            row, column = divmod(number, stage.output.shape[1])
            frames.append(_frame(stage, (row, column), number + 1))
            durations.append(500 if len(shown) <= 50 else 150)
        durations[-1] = 2500
    size = max(frame.width for frame in frames), max(frame.height for frame in frames)
    # One palette for all frames: only what changes between frames is stored
    palette = _on_canvas(frames[-1], size).quantize(64)
    quantized = [_on_canvas(frame, size).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    content = io.BytesIO()
    quantized[0].save(
        content, "gif", save_all=True, append_images=quantized[1:], duration=durations, loop=0, optimize=True
    )
    return content.getvalue()


WRITERS: dict[str, Callable[[Lab], bytes | str]] = {".html": filter_lab_page, ".gif": animation, ".png": still}


def _shared_modules() -> str:
    """The shared modules as one classic script, in which imports are left out and exports are plain declarations."""
    # Read as files, because this layer may not import the server's package
    page = resources.files("foveola") / "serving" / "page"
    source = "\n".join((page / name).read_text("utf-8") for name in SHARED_MODULES)
    return re.sub(r"^(import .*;\n|export )", "", source, flags=re.MULTILINE)


# Text


def _stage_document(stage: SlidingWindow, position: tuple[int, int]) -> dict[str, Any]:
    row, column = position
    top, left = stage.corner(row, column)
    field = stage.field(row, column)
    return {
        "title": _title(stage),
        "operation": stage.operation,
        "kernel": None if stage.kernel is None else stage.kernel.tolist(),
        "window": list(stage.window),
        "stride": stage.stride,
        "padding": stage.padding,
        "edges": list(stage.pad_widths),
        "image_size": list(stage.image.shape),
        "output_size": list(stage.output.shape),
        "output": stage.output.tolist(),
        "output_text": [[number_text(value) for value in values] for values in stage.output],
        "position": [row, column],
        "receptive_field": {"top": top, "left": left},
        "values": [[None if np.isnan(value) else float(value) for value in values] for values in field],
        "products": None if stage.kernel is None else stage.products(row, column).tolist(),
        "sum": _sum(stage, row, column),
    }


def _title(stage: SlidingWindow) -> str:
    name = {"convolution": "Convolution", "max": "Max pooling", "average": "Average pooling"}[stage.operation]
    sizes = f"{shape_text(stage.image.shape)} → {shape_text(stage.output.shape)}"
    return f"{name} {shape_text(stage.window)}, stride {stage.stride}, {stage.padding}: {sizes}"


def _sum(stage: SlidingWindow, row: int, column: int) -> str:
    """The arithmetic of one output as one writes it; equal to `arithmetic` in sliding.js."""
    field, result = stage.field(row, column), number_text(stage.output[row, column])
    if stage.kernel is not None:
        values = np.nan_to_num(field)
        if values.size > MAX_TERMS:
            return f"sum of {values.size} products = {result}"
        terms = [_product(*each) for each in zip(values.flat, stage.kernel.flat, strict=True)]
        return f"{' + '.join(terms)} = {result}"
    inside = [number_text(value) for value in field[~np.isnan(field)]]
    if len(inside) > MAX_TERMS:
        return f"{'largest' if stage.operation == 'max' else 'mean'} of {len(inside)} values = {result}"
    if stage.operation == "max":
        return f"largest of {', '.join(inside)} = {result}"
    return f"({' + '.join(_bracketed(value) for value in field[~np.isnan(field)])}) / {len(inside)} = {result}"


def number_text(value: float) -> str:
    """A number with at most two decimals and no more digits than needed, or with two digits from 10,000 on.

    Equal to `numberText` in pixels.js.
    """
    if abs(value) >= 10_000:
        return f"{value:.2g}"
    return f"{round(float(value), 2) + 0:.2f}".rstrip("0").rstrip(".")


def _product(value: float, weight: float) -> str:
    return f"{number_text(value)}×{_bracketed(weight)}"


def _bracketed(value: float) -> str:
    text = number_text(value)
    return f"({text})" if text.startswith("-") else text


# Drawings


def _shades(values: Matrix, scale: Matrix) -> Images:
    """Uint8 H×W×3: from black to white, or, if `scale` has negative values, from blue over white to orange."""
    highest = float(np.abs(scale).max())
    if scale.min() < 0:
        return signed(values, highest)
    return shaded(values, max(highest, 1.0))[..., None].repeat(3, axis=2)


def _still(lab: Lab) -> Images:
    """Uint8 H×W×3: the frame of each stage with its whole output, below each other."""
    frames = [_frame(*each) for each in zip(lab.stages, lab.positions, strict=True)]
    canvas = Image.new("RGB", (max(frame.width for frame in frames), sum(frame.height for frame in frames)), "white")
    top = 0
    for frame in frames:
        canvas.paste(frame, (0, top))
        top += frame.height
    return np.asarray(canvas)


def _on_canvas(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, "white")
    canvas.paste(frame)
    return canvas


def _frame(stage: SlidingWindow, position: tuple[int, int], revealed: int | None = None) -> Image.Image:
    """Input, window and output side by side, the arithmetic below; outputs from number `revealed` on are hidden."""
    row, column = position
    top, left, bottom, right = stage.pad_widths
    padded = np.pad(stage.image, ((top, bottom), (left, right)), constant_values=np.nan)
    output = stage.output.copy()
    if revealed is not None:
        output.flat[revealed:] = np.nan
    panels = {
        "input": _panel(
            padded, stage.image, _texts(padded), marked=(row * stage.stride, column * stage.stride, *stage.window)
        ),
        "window": _panel(stage.field(row, column), stage.image, _terms(stage, row, column), max_cell=72),
        f"output, row {row}, column {column}": _panel(output, stage.output, _texts(output), marked=(row, column, 1, 1)),
    }
    font, large = ImageFont.load_default(SMALL_FONT), ImageFont.load_default(LARGE_FONT)
    steps = [GAP + max(panel.width, round(font.getlength(name))) for name, panel in panels.items()]
    width = max(sum(steps) + GAP, MIN_WIDTH)
    bottom_of_panels = 60 + max(panel.height for panel in panels.values())
    lines = _wrapped(_drawable(_sum(stage, row, column)), width - 2 * GAP, font)
    frame = Image.new(
        "RGB", (width, bottom_of_panels + 18 * (len(lines) if revealed is None else SUM_LINES) + GAP), "white"
    )
    draw = ImageDraw.Draw(frame)
    draw.text((GAP, 12), _drawable(_title(stage)), "black", large)
    x = GAP
    for (name, panel), step in zip(panels.items(), steps, strict=True):
        draw.text((x, 40), name, "black", font)
        frame.paste(panel, (x, 60))
        x += step
    for number, line in enumerate(lines):
        draw.text((GAP, bottom_of_panels + 10 + 18 * number), line, ACCENT, font)
    return frame


def _panel(
    values: Matrix,
    scale: Matrix,
    texts: Sequence[str],
    *,
    max_cell: int = MAX_CELL,
    marked: tuple[int, int, int, int] | None = None,
) -> Image.Image:
    """A matrix as cells, coloured by the range of `scale`, NaN as empty cells, with texts that fit.

    Parameters
    ----------
    max_cell : maximum side of a cell in pixels
    marked : row, column, height and width of the frame around some cells
    """
    side = max(min(PANEL_SIDE // max(values.shape), max_cell), 8)
    rows, columns = values.shape
    panel = Image.new("RGB", (columns * side + 1, rows * side + 1), "white")
    draw = ImageDraw.Draw(panel)
    colours = _shades(np.nan_to_num(values), scale)
    font = ImageFont.load_default(min(0.34 * side, SMALL_FONT))
    for (row, column), text in zip(np.ndindex(rows, columns), texts, strict=True):
        colour = EMPTY if np.isnan(values[row, column]) else tuple(colours[row, column].tolist())
        box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
        draw.rectangle(box, fill=colour, outline=LINE)
        if font.getlength(text) < side - 2 and side >= 20:
            dark = np.dot(colour, (0.299, 0.587, 0.114)) < 128
            draw.text(
                ((column + 0.5) * side, (row + 0.5) * side), text, "white" if dark else "black", font, anchor="mm"
            )
    if marked is not None:
        row, column, height, width = marked
        draw.rectangle(
            (column * side, row * side, (column + width) * side, (row + height) * side), outline=ACCENT, width=3
        )
    return panel


def _texts(values: Matrix) -> list[str]:
    return ["" if np.isnan(value) else number_text(value) for value in values.flat]


def _terms(stage: SlidingWindow, row: int, column: int) -> list[str]:
    """The products of a convolution, or the values of a pooling, cell by cell."""
    field = stage.field(row, column)
    if stage.kernel is None:
        return _texts(field)
    return [_drawable(_product(*each)) for each in zip(np.nan_to_num(field).flat, stage.kernel.flat, strict=True)]


def _drawable(text: str) -> str:
    """The text without the characters that Pillow's font lacks."""
    return text.replace("→", "to").replace("×", "x")


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """The text in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
