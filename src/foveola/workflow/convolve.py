"""A convolution or a pooling of one picture, shown step by step."""

from pathlib import Path
from typing import Any

import numpy as np

from foveola.decoding import is_animated, read_image, resize, to_channels
from foveola.errors import DataError, OutputError, UserError, unknown
from foveola.explanation import convolution
from foveola.explanation.convolution import LETTERS, Matrix, Pooling, Sliding, read_kernel
from foveola.files import write_atomically
from foveola.images import shape_text
from foveola.layers import Padding
from foveola.report import filter_lab
from foveola.report.filter_lab import Lab

LETTER = "letter:"
# Larger pictures have pixels too small to be looked at one by one
LARGEST = 32


def convolve(
    image: str | Path,
    kernel: str | None = None,
    *,
    stride: int | None = None,
    padding: Padding = "valid",
    pool: Pooling | None = None,
    size: int = 2,
    position: tuple[int, int] | None = None,
    out: str | Path,
) -> dict[str, Any]:
    """Slide a kernel, a pooling window, or one after the other over a picture, and write down every step.

    Parameters
    ----------
    image : a picture file, or "letter:A", "letter:E"; colour becomes grey, 0 is black and 1 white
    kernel : a key of `KERNELS`, or rows of numbers as JSON; "vertical-edge" where nothing is pooled either
    stride, padding : of the kernel, or of the pooling where there is no kernel
    pool : "max" or "average", of what the kernel gives, or else of the picture
    size : side of the pooling window
    position : row and column of the output to show; by default that of the highest absolute value
    out : an interactive .html page, a .gif animation or a .png picture

    Returns
    -------
    The document of `foveola convolve --json`: image, notes, out, and for each stage its sizes, output, and the values,
    products and sum at the position.

    Raises
    ------
    UserError
        If picture, kernel, sizes, position or file cannot be used; nothing is written then.
    """
    path = Path(out)
    if path.suffix.lower() not in filter_lab.WRITERS:
        known = ", ".join(filter_lab.WRITERS)
        raise OutputError(
            f"{path} does not end in a format of the filter lab: {known}. Choose another name with --out."
        )
    pixels, notes = _read(str(image))
    stages = _stages(pixels, kernel, stride, padding, pool, size)
    lab = Lab(str(image), tuple(notes), tuple(stages), _positions(stages, position))
    content = filter_lab.WRITERS[path.suffix.lower()](lab)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}. Choose another file with --out.") from None
    return {"image": str(image), "notes": notes, **filter_lab.described(lab), "out": str(path)}


def _read(image: str) -> tuple[Matrix, list[str]]:
    """The picture, float64 H×W from 0 to 1, and what was done to it."""
    if image.startswith(LETTER):
        letter = image.removeprefix(LETTER)
        if letter not in LETTERS:
            raise DataError(unknown("letter", letter, LETTERS))
        return LETTERS[letter], []
    pixels = read_image(image)
    notes = []
    if is_animated(image):
        notes.append("The file is an animation; this is its first frame.")
    if pixels.shape[2] == 3:
        pixels = to_channels(pixels, 1)
        notes.append("The colours were turned into grey.")
    height, width = pixels.shape[:2]
    if max(height, width) > LARGEST:
        share = LARGEST / max(height, width)
        pixels = resize(pixels, max(round(height * share), 1), max(round(width * share), 1))
        notes.append(f"The picture was reduced from {height}×{width} to {shape_text(pixels.shape[:2])} pixels.")
    return pixels[:, :, 0] / 255, notes


def _stages(
    image: Matrix, kernel: str | None, stride: int | None, padding: Padding, pool: Pooling | None, size: int
) -> list[Sliding]:
    if pool is None or kernel is not None:
        weights = read_kernel(kernel or "vertical-edge")
        convolved = convolution.convolve(image, weights, 1 if stride is None else stride, padding)
        return [convolved] if pool is None else [convolved, convolution.pool(convolved.output, pool, size)]
    return [convolution.pool(image, pool, size, stride, padding)]


def _positions(stages: list[Sliding], chosen: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    """Where to look in the output of each stage: the pooling shows the window that holds the convolution's output."""
    first = stages[0].output
    if chosen is None:
        row, column = divmod(int(np.abs(first).argmax()), first.shape[1])
    else:
        row, column = chosen
        if not (0 <= row < first.shape[0] and 0 <= column < first.shape[1]):
            raise UserError(
                f"There is no output {row},{column}: the output is {shape_text(first.shape)}, counted from 0,0. "
                f"Choose a position inside it."
            )
    positions = [(row, column)]
    for stage in stages[1:]:
        places = zip(positions[-1], stage.output.shape, strict=True)
        down, across = (min(place // stage.stride, count - 1) for place, count in places)
        positions.append((down, across))
    return tuple(positions)
