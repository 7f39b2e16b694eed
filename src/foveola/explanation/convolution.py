"""Convolution and pooling in NumPy, position by position: the arithmetic of the filter lab.

As in every deep-learning library, "convolution" means cross-correlation: the kernel is not flipped.
"""

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import shape_text
from foveola.errors import UserError, unknown
from foveola.models.layers import Conv2D, Padding, PadWidths

Matrix = NDArray[np.float64]
Pooling = Literal["max", "average"]

KERNELS: dict[str, Matrix] = {
    name: np.array(rows, np.float64) / divisor
    for name, rows, divisor in (
        ("vertical-edge", [[1, 0, -1], [1, 0, -1], [1, 0, -1]], 1),
        ("horizontal-edge", [[1, 1, 1], [0, 0, 0], [-1, -1, -1]], 1),
        ("diagonal", [[-1, -1, 2], [-1, 2, -1], [2, -1, -1]], 1),
        ("sharpen", [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1),
        ("blur", [[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
    )
}

_LETTER_PIXELS = {
    "A": """
        ....#....
        ...#.#...
        ..#...#..
        .#.....#.
        #.......#
        #########
        #.......#
        #.......#
        #.......#
    """,
    "E": """
        .#######.
        .#.......
        .#.......
        .#.......
        .######..
        .#.......
        .#.......
        .#.......
        .#######.
    """,
}
# The tutorial's letters: 1 is foreground, 0 is background
LETTERS: dict[str, Matrix] = {
    letter: np.array([[pixel == "#" for pixel in row] for row in pixels.split()], np.float64)
    for letter, pixels in _LETTER_PIXELS.items()
}


@dataclass(frozen=True, eq=False)
class SlidingWindow:
    """A window that moves over an image, and its output at every position.

    Parameters
    ----------
    image : float64 H×W
    operation : "convolution", or the kind of pooling
    kernel : float64 h×w, None for pooling
    window : height and width, h×w
    stride : pixels from one position to the next
    padding : "valid" stays inside the image, "same" extends it by `pad_widths`
    pad_widths : pixels added above, left, below, right; zeros for a convolution, ignored by pooling
    output : float64 rows×columns
    """

    image: Matrix
    operation: Literal["convolution", Pooling]
    kernel: Matrix | None
    window: tuple[int, int]
    stride: int
    padding: Padding
    pad_widths: PadWidths
    output: Matrix

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Row and column of the upper left pixel of an output's receptive field; negative if it lies in the padding."""
        return row * self.stride - self.pad_widths[0], column * self.stride - self.pad_widths[1]

    def field(self, row: int, column: int) -> Matrix:
        """The receptive field of an output, float64 h×w, NaN where there is only padding."""
        field: Matrix = _windows(self.image, self.window, self.stride, self.pad_widths)[row, column]
        return field.copy()

    def products(self, row: int, column: int) -> Matrix:
        """Every pixel of a convolution's receptive field times its weight, float64 h×w; their sum is the output.

        Raises
        ------
        UserError
            If this is pooling, which has no weights.
        """
        if self.kernel is None:
            raise UserError(f"There are no products: {self.operation} pooling has no kernel. Use field() instead.")
        products: Matrix = np.nan_to_num(self.field(row, column)) * self.kernel
        return products


def convolve(image: Matrix, kernel: Matrix, stride: int = 1, padding: Padding = "valid") -> SlidingWindow:
    """Slide a kernel over an image; each output is the sum of pixel times weight.

    Parameters
    ----------
    image : float64 H×W
    kernel : float64 h×w, at most as large as the image
    stride : pixels from one position to the next
    padding : "valid" gives ⌊(H - h) / stride⌋ + 1 rows, "same" ⌈H / stride⌉ by padding with zeros

    Raises
    ------
    UserError
        If the kernel is larger than the image, or the stride is below 1.
    """
    pad_widths = _pad_widths(image, kernel.shape, stride, padding, "kernel")
    windows = np.nan_to_num(_windows(image, kernel.shape, stride, pad_widths))
    output = np.einsum("rchw,hw->rc", windows, kernel)
    return SlidingWindow(image, "convolution", kernel, kernel.shape, stride, padding, pad_widths, output)


def pool(
    image: Matrix, operation: Pooling, size: int = 2, stride: int | None = None, padding: Padding = "valid"
) -> SlidingWindow:
    """Pool an image: the maximum or the mean of every window, without its padding, as in Keras.

    Parameters
    ----------
    image : float64 H×W
    operation : "max" or "average"
    size : side of the window
    stride : pixels from one position to the next, by default the side of the window

    Raises
    ------
    UserError
        If the window is larger than the image, or size or stride is below 1.
    """
    if size < 1:
        raise UserError(f"A pooling window of {size} pixels is empty. Choose a size of 1 or more.")
    stride = size if stride is None else stride
    pad_widths = _pad_widths(image, (size, size), stride, padding, "window")
    windows = _windows(image, (size, size), stride, pad_widths)
    output = (np.nanmax if operation == "max" else np.nanmean)(windows, axis=(2, 3))
    return SlidingWindow(image, operation, None, (size, size), stride, padding, pad_widths, output)


def read_kernel(text: str) -> Matrix:
    """Read a kernel from its name or from rows of numbers in JSON, such as [[1, 0, -1], [2, 0, -2], [1, 0, -1]].

    Raises
    ------
    UserError
        If it is neither, its rows differ in length, or a number is not finite.
    """
    if text in KERNELS:
        return KERNELS[text]
    if not text.lstrip().startswith("["):
        raise UserError(f"{unknown('kernel', text, KERNELS)} Or give its rows, such as '[[1, -1], [1, -1]]'.")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The kernel {_short(text)} is not valid JSON: {error}. {_EXAMPLE}") from None
    if not all(isinstance(row, list) and row for row in rows) or not rows:
        raise UserError(f"The kernel {_short(text)} is not a list of rows. {_EXAMPLE}")
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise UserError(f"The rows of the kernel have different lengths: {lengths}. Give every row the same length.")
    try:
        kernel = np.array([[_number(value) for value in row] for row in rows], np.float64)
    except (TypeError, OverflowError):
        raise UserError(f"The kernel {_short(text)} contains something that is not a number. {_EXAMPLE}") from None
    if not np.isfinite(kernel).all() or np.abs(kernel).max() > _MAX_WEIGHT:
        raise UserError(
            f"The kernel {_short(text)} has a weight that is not finite or larger than {_MAX_WEIGHT:,}. {_EXAMPLE}"
        )
    return kernel


_EXAMPLE = "Give rows of numbers, such as '[[1, 0, -1], [1, 0, -1], [1, 0, -1]]'."
_MAX_WEIGHT = 1_000_000


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _pad_widths(image: Matrix, window: tuple[int, ...], stride: int, padding: Padding, what: str) -> PadWidths:
    """Pixels that padding adds, by the rule of the layers; `what` names the window in messages."""
    if stride < 1:
        raise UserError(f"The stride is {stride}, but must be at least 1. Choose 1 or more.")
    if window[0] > image.shape[0] or window[1] > image.shape[1]:
        raise UserError(
            f"The {what} is {shape_text(window)}, but the image is only {shape_text(image.shape)}. "
            f"Choose a smaller {what} or a larger image."
        )
    # The layers' rule is for square kernels, so it is applied to height and width separately
    (top, _, bottom, _), (_, left, _, right) = (
        Conv2D(filters=1, kernel=size, stride=stride, padding=padding).pad_widths((side, side, 1))
        for side, size in zip(image.shape, window, strict=True)
    )
    return top, left, bottom, right


def _windows(image: Matrix, window: tuple[int, ...], stride: int, pad_widths: PadWidths) -> Matrix:
    """The receptive field at every position, float64 rows×columns×h×w, NaN where there is only padding."""
    top, left, bottom, right = pad_widths
    padded = np.pad(image, ((top, bottom), (left, right)), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::stride, ::stride]
