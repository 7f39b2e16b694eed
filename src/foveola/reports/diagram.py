"""A network drawn from top to bottom, one box a layer, in the manner of Keras' plot_model."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from foveola.arrays import shape_text
from foveola.errors import OutputError, require
from foveola.files import write_atomically, writing
from foveola.models.shapes import LayerInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# The formats, each with what it would tell of the moment and the program: equal networks give equal files.
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
STYLE: dict[Any, Any] = {  # matplotlib types the names of its settings one by one
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that texts are equally wide everywhere
    "svg.fonttype": "path",
    "svg.hashsalt": "foveola",
}

# Fill and edge of a box: tints of Okabe and Ito's palette, told apart with every kind of colour blindness.
BLUE, GREEN, ORANGE, WHITE = (
    ("#e3f0f8", "#0072b2"),
    ("#e0f3ed", "#009e73"),
    ("#fcf0d9", "#c98500"),
    ("white", "#8a8a8a"),
)
COLOURS = {
    "Conv2D": BLUE,
    "DepthwiseConv2D": BLUE,
    "Residual": BLUE,
    "MaxPool2D": GREEN,
    "AveragePool2D": GREEN,
    "GlobalMaxPool2D": GREEN,
    "GlobalAveragePool2D": GREEN,
    "Dense": ORANGE,
}
INK, GREY = "#222222", "#5f5f5f"

# Lengths in inches, letters in points of 1/72 inch
BOX, GAP, MARGIN, INSET, TITLE, MIN_WIDTH = 0.54, 0.28, 0.2, 0.14, 0.5, 3.8
LARGE, MIDDLE, SMALL = 13.0, 9.5, 8.0
LETTER = 0.66  # width of a letter as a fraction of its size, rather too much than too little
DPI, MAX_PIXELS = 160, 60_000  # matplotlib draws at most 65,535 pixels a side


class _Box(NamedTuple):
    type: str
    name: str
    settings: str
    shape: str
    parameters: str


def draw(name: str, input_shape: tuple[int, ...], infos: Sequence[LayerInfo], path: Path) -> None:
    """Draw a traced stack of layers: name, settings, output shape and parameters of each.

    Parameters
    ----------
    name : the title
    input_shape : height, width, channels of what the first layer gets
    infos : the layers, as `foveola.models.shapes.infer_shapes` gives them
    path : a .svg, .png or .pdf file; equal networks give equal files

    Raises
    ------
    OutputError
        If the file has another ending, or cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in METADATA:
        raise OutputError(
            f"{path} has {f'the ending {path.suffix}' if path.suffix else 'no ending'}, in which no diagram can be "
            f"drawn. Name the file with one of these endings: {', '.join(f'.{known}' for known in METADATA)}."
        )
    content = _draw(name, _boxes(input_shape, infos), sum(info.parameters for info in infos), kind)
    with writing(path, "Choose another place for the diagram."):
        write_atomically(path, content)


def _boxes(input_shape: tuple[int, ...], infos: Sequence[LayerInfo]) -> list[_Box]:
    boxes = [_Box("Input", "input", "height × width × channels", shape_text(input_shape), "")]
    for info in infos:
        parameters = f"{info.parameters:,} parameters" if info.parameters else ""
        boxes.append(
            _Box(info.layer.type, info.name, info.layer.settings_text(), shape_text(info.output_shape), parameters)
        )
    return boxes


def _draw(title: str, boxes: Sequence[_Box], parameters: int, kind: str) -> bytes:
    """The diagram as a file's content."""
    require("matplotlib", "plots")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    total = f"{parameters:,} parameters"
    width = 2 * MARGIN + max(MIN_WIDTH, _width(title, LARGE, total, SMALL), *map(_box_width, boxes))
    height = 2 * MARGIN + TITLE + len(boxes) * (BOX + GAP) - GAP
    content = io.BytesIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))  # inches, downwards
        axes.set_axis_off()
        _write(axes, MARGIN, MARGIN + 0.12, title, LARGE, weight="bold")
        _write(axes, width - MARGIN, MARGIN + 0.12, total, SMALL, ha="right", color=GREY)
        for number, box in enumerate(boxes):
            top = MARGIN + TITLE + number * (BOX + GAP)
            if number:
                _arrow(axes, width / 2, top - GAP, top)
            _draw_box(axes, box, top, width)
        figure.savefig(content, format=kind, dpi=min(DPI, MAX_PIXELS / height), metadata=METADATA[kind])
    return content.getvalue()


def _draw_box(axes: "Axes", box: _Box, top: float, width: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, edge = COLOURS.get(box.type, WHITE)
    shape = FancyBboxPatch(
        (MARGIN, top), width - 2 * MARGIN, BOX, boxstyle="round,pad=0,rounding_size=0.06", fc=fill, ec=edge, lw=1.1
    )
    axes.add_patch(shape)
    left, right = MARGIN + INSET, width - MARGIN - INSET
    middle, upper, lower = top + BOX / 2, top + 0.33 * BOX, top + 0.7 * BOX
    _write(axes, left, upper if box.settings else middle, box.name, MIDDLE, weight="bold")
    _write(axes, left, lower, box.settings, SMALL, color=GREY)
    _write(axes, right, upper if box.parameters else middle, box.shape, MIDDLE, ha="right")
    _write(axes, right, lower, box.parameters, SMALL, ha="right", color=GREY)


def _arrow(axes: "Axes", x: float, start: float, end: float) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>,head_width=0.22,head_length=0.4", "color": GREY, "lw": 1.1}
    axes.annotate("", (x, end), (x, start), arrowprops=style | {"shrinkA": 0, "shrinkB": 0})


def _write(axes: "Axes", x: float, y: float, text: str, size: float, **style: Any) -> None:
    axes.text(x, y, text, fontsize=size, va="center", parse_math=False, **{"color": INK} | style)


def _box_width(box: _Box) -> float:
    lines = _width(box.name, MIDDLE, box.shape, MIDDLE), _width(box.settings, SMALL, box.parameters, SMALL)
    return 2 * INSET + max(lines)


def _width(left: str, left_size: float, right: str, right_size: float) -> float:
    """Inches that two texts on one line need, with air between them."""
    return LETTER / 72 * (len(left) * left_size + len(right) * right_size) + 0.3
