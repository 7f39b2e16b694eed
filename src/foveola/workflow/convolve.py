"""Convolve: a convolution or a pooling of one image, shown step by step."""

from pathlib import Path
from typing import Any

import numpy as np

from foveola.arrays import shape_text
from foveola.errors import DataError, OutputError, UserError, unknown
from foveola.explanation import convolution
from foveola.explanation.convolution import LETTERS, Matrix, Pooling, SlidingWindow, read_kernel
from foveola.files import write_atomically, writing
from foveola.inputs.find import as_names, find_images
from foveola.inputs.resize import shrink, to_channels
from foveola.models.layers import Padding
from foveola.reports import filter_lab
from foveola.reports.filter_lab import Lab

LETTER = "letter:"
# Larger images have cells too small to be read
MAX_SIDE = 32


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
    """Slide a kernel, a pooling window, or both in turn over an image, and record every step.

    Parameters
    ----------
    image : an image file, "-" for standard input, or "letter:A", "letter:E"; colour becomes grey, 0 is black, 1 white
    kernel : a key of `KERNELS`, or rows of numbers as JSON; by default "vertical-edge", unless only `pool` is given
    stride, padding : of the kernel, or of the pooling if there is no kernel
    pool : "max" or "average", of the kernel's output, or else of the image
    size : side of the pooling window
    position : row and column of the output to show; by default that of the largest absolute value
    out : an interactive .html page, a .gif animation or a .png image

    Returns
    -------
    The document of `foveola convolve --json`: image, notes, out, and for each stage its sizes, output, and the values,
    products and sum at the position.

    Raises
    ------
    UserError
        If image, kernel, sizes, position or file cannot be used; nothing is written then.

    Examples
    --------
    >>> document = foveola.convolve("letter:A", "[[1, -1]]", out="lab.png")
    >>> document["stages"][0]["output_size"]
    [9, 8]
    """
    path = Path(out)
    if path.suffix.lower() not in filter_lab.WRITERS:
        known = ", ".join(filter_lab.WRITERS)
        raise OutputError(
            f"{path} does not end in a format that can be written: {known}. Choose another name with --out."
        )
    name = next(iter(as_names(image)), "")
    pixels, notes = _read(str(name))
    stages = _stages(pixels, kernel, stride, padding, pool, size)
    lab = Lab(str(image), tuple(notes), tuple(stages), _positions(stages, position))
    content = filter_lab.WRITERS[path.suffix.lower()](lab)
    with writing(path):
        write_atomically(path, content)
    return {"image": str(image), "notes": notes, **filter_lab.lab_document(lab), "out": str(path)}


def _read(image: str) -> tuple[Matrix, list[str]]:
    """The image, float64 H×W from 0 to 1, and notes on what was done to it."""
    if image.startswith(LETTER):
        letter = image.removeprefix(LETTER)
        if letter not in LETTERS:
            raise DataError(unknown("letter", letter, LETTERS))
        return LETTERS[letter], []
    files = find_images([image])
    if len(files) > 1:
        raise DataError(f"{image} stands for {len(files):,} images, but one is shown. Give one file.")
    frame = files[0].read()
    pixels, notes = frame.pixels, []
    if frame.animated:
        notes.append("The file is an animation; this is its first frame.")
    if frame.on_black:
        notes.append("Transparent pixels were put on black, because on white nothing would be left.")
    if pixels.shape[2] == 3:
        pixels = to_channels(pixels, 1)
        notes.append("Colours were converted to grey.")
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_SIDE:
        pixels = shrink(pixels, MAX_SIDE)
        notes.append(f"The image was reduced from {height}×{width} to {shape_text(pixels.shape[:2])} pixels.")
    return pixels[:, :, 0] / 255, notes


def _stages(
    image: Matrix, kernel: str | None, stride: int | None, padding: Padding, pool: Pooling | None, size: int
) -> list[SlidingWindow]:
    if pool is None or kernel is not None:
        weights = read_kernel(kernel or "vertical-edge")
        convolved = convolution.convolve(image, weights, 1 if stride is None else stride, padding)
        return [convolved] if pool is None else [convolved, convolution.pool(convolved.output, pool, size)]
    return [convolution.pool(image, pool, size, stride, padding)]


def _positions(stages: list[SlidingWindow], chosen: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    """The position to show in the output of each stage; pooling shows the window around the convolution's position."""
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
