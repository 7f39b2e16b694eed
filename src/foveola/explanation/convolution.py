"""What a convolution and a pooling compute, step by step, in NumPy: the arithmetic of the filter lab.

As in every deep-learning library, "convolution" means cross-correlation: the kernel is not turned round.
"""

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveola.errors import UserError, unknown
from foveola.images import shape_text
from foveola.layers import Conv2D, Edges, Padding

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

_DRAWN = {
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
# The tutorial's letters: 1 is ink, 0 is paper
LETTERS: dict[str, Matrix] = {
    letter: np.array([[pixel == "#" for pixel in row] for row in drawn.split()], np.float64)
    for letter, drawn in _DRAWN.items()
}


@dataclass(frozen=True, eq=False)
class Sliding:
    """A window that moves over an image, and what it gives at every place.

    Parameters
    ----------
    image : float64 H×W
    operation : "convolution", or the kind of pooling
    kernel : float64 h×w, None for a pooling
    window : height and width, h×w
    stride : pixels from one place to the next
    padding : "valid" stays inside the image, "same" goes beyond its edges
    edges : pixels added above, left, below, right; 0 for a convolution, left out by a pooling
    output : float64 rows×columns
    """

    image: Matrix
    operation: Literal["convolution", Pooling]
    kernel: Matrix | None
    window: tuple[int, int]
    stride: int
    padding: Padding
    edges: Edges
    output: Matrix

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The upper left pixel of the receptive field of an output; negative where it lies in the padding."""
        return row * self.stride - self.edges[0], column * self.stride - self.edges[1]

    def field(self, row: int, column: int) -> Matrix:
        """The pixels that an output sees, float64 h×w, NaN where there is only padding."""
        field: Matrix = _windows(self.image, self.window, self.stride, self.edges)[row, column]
        return field.copy()

    def products(self, row: int, column: int) -> Matrix:
        """Of a convolution: every pixel of the receptive field times its weight, float64 h×w; their sum is the output.

        Raises
        ------
        UserError
            If this is a pooling, which multiplies nothing.
        """
        if self.kernel is None:
            raise UserError(f"A {self.operation} pooling has no kernel, and so no products. Look at its field.")
        products: Matrix = np.nan_to_num(self.field(row, column)) * self.kernel
        return products


def convolve(image: Matrix, kernel: Matrix, stride: int = 1, padding: Padding = "valid") -> Sliding:
    """Slide a kernel over an image: at every place, the sum of pixel times weight.

    Parameters
    ----------
    image : float64 H×W
    kernel : float64 h×w, at most as large as the image
    stride : pixels from one place to the next
    padding : "valid" gives ⌊(H - h) / stride⌋ + 1 rows, "same" ⌈H / stride⌉, by zeros around the image

    Raises
    ------
    UserError
        If the kernel is larger than the image, or the stride below 1.
    """
    edges = _edges(image, kernel.shape, stride, padding, "kernel")
    windows = np.nan_to_num(_windows(image, kernel.shape, stride, edges))
    output = np.einsum("rchw,hw->rc", windows, kernel)
    return Sliding(image, "convolution", kernel, kernel.shape, stride, padding, edges, output)


def pool(image: Matrix, how: Pooling, size: int = 2, stride: int | None = None, padding: Padding = "valid") -> Sliding:
    """The largest value, or the mean, of every window; padding does not count, as in Keras.

    Parameters
    ----------
    image : float64 H×W
    size : side of the window
    stride : pixels from one place to the next, by default the window's side

    Raises
    ------
    UserError
        If the window is larger than the image, or size or stride below 1.
    """
    if size < 1:
        raise UserError(f"A window of {size} pixels sees nothing. Choose a size of 1 or more.")
    stride = size if stride is None else stride
    edges = _edges(image, (size, size), stride, padding, "window")
    windows = _windows(image, (size, size), stride, edges)
    output = (np.nanmax if how == "max" else np.nanmean)(windows, axis=(2, 3))
    return Sliding(image, how, None, (size, size), stride, padding, edges, output)


def read_kernel(text: str) -> Matrix:
    """A kernel by name, or as rows of numbers in JSON: [[1, 0, -1], [2, 0, -2], [1, 0, -1]].

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
        raise UserError(f"The kernel {_short(text)} is no JSON: {error}. {_EXAMPLE}") from None
    if not all(isinstance(row, list) and row for row in rows) or not rows:
        raise UserError(f"The kernel {_short(text)} is no list of rows. {_EXAMPLE}")
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise UserError(f"The rows of the kernel have different lengths: {lengths}. Give each row as many numbers.")
    try:
        kernel = np.array([[_number(value) for value in row] for row in rows], np.float64)
    except (TypeError, OverflowError):
        raise UserError(f"The kernel {_short(text)} holds something else than numbers. {_EXAMPLE}") from None
    if not np.isfinite(kernel).all() or np.abs(kernel).max() > _LARGEST:
        raise UserError(f"The kernel {_short(text)} has a weight that is not finite or beyond {_LARGEST:,}. {_EXAMPLE}")
    return kernel


_EXAMPLE = "Give rows of numbers, such as '[[1, 0, -1], [1, 0, -1], [1, 0, -1]]'."
_LARGEST = 1_000_000


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _edges(image: Matrix, window: tuple[int, ...], stride: int, padding: Padding, what: str) -> Edges:
    """What padding adds, by the rule of the layers."""
    if stride < 1:
        raise UserError(f"A stride of {stride} does not move. Choose 1 or more.")
    if window[0] > image.shape[0] or window[1] > image.shape[1]:
        raise UserError(
            f"The {what} is {shape_text(window)}, the image only {shape_text(image.shape)}. "
            f"Choose a smaller {what} or a larger image."
        )
    # The rule knows square kernels; each side follows it on its own
    (top, _, bottom, _), (_, left, _, right) = (
        Conv2D(filters=1, kernel=size, stride=stride, padding=padding).edges((side, side, 1))
        for side, size in zip(image.shape, window, strict=True)
    )
    return top, left, bottom, right


def _windows(image: Matrix, window: tuple[int, ...], stride: int, edges: Edges) -> Matrix:
    """What the window sees at every place, float64 rows×columns×h×w, NaN where there is only padding."""
    top, left, bottom, right = edges
    padded = np.pad(image, ((top, bottom), (left, right)), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::stride, ::stride]
