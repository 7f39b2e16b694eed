"""Arrays as people have them: taken where their meaning is plain, refused with a cure elsewhere."""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.text import class_name

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_MIN_FLAT_SIDE = 4  # pixels: rows of 16 values could be flattened images of 4×4


def is_tensor(data: object) -> bool:
    """A tensor of PyTorch; if PyTorch was never imported, there is none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, torch.Tensor)


def shape_text(shape: Sequence[int]) -> str:
    """A shape as text, such as 28×28×1."""
    return "×".join(map(str, shape))


def to_pixels(array: NDArray[Any]) -> Images:
    """Values of images as uint8, 0 to 255.

    Parameters
    ----------
    array : of any shape: integers or whole floats from 0 to 255, floats from 0 to 1 (scaled and rounded), or booleans

    Raises
    ------
    DataError
        If the values are others; the message says how to convert them.
    """
    kind = array.dtype.kind
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    if kind not in "uifb":
        raise DataError(f"images must be numbers, not {array.dtype}. Save them as uint8, 0 to 255.")
    low, high = array.min(), array.max()
    if kind == "b" or (kind == "f" and low >= 0 and high <= 1):
        return _scaled(array)
    if low >= 0 and high <= 255 and (kind != "f" or _is_whole(array)):
        return array.astype(np.uint8)
    raise DataError(
        f"images must have values from 0 to 255, or floats from 0 to 1; these have {low} to {high} ({array.dtype}). "
        f"{_value_cure(kind, float(low), float(high))}"
    )


def to_images(array: NDArray[Any]) -> Images:
    """Images as uint8, N×H×W×C, of values as `to_pixels` takes them; grey ones, N×H×W, get their channel.

    Raises
    ------
    DataError
        If the values are others. Other shapes are left as they are, for `foveola.images.ImageSet` to refuse.
    """
    images = np.ascontiguousarray(to_pixels(array))
    return images[..., None] if images.ndim == 3 and images.shape[2] != 1 else images


def _scaled(array: NDArray[Any]) -> Images:
    """Values from 0 to 1 as 0 to 255, image by image: a copy of floats would take eight times as much memory."""
    if array.ndim < 2:
        return np.rint(array * np.float64(255)).astype(np.uint8)
    scaled = np.empty(array.shape, np.uint8)
    for image, target in zip(array, scaled, strict=True):
        target[:] = np.rint(image * np.float64(255))
    return scaled


def _is_whole(array: NDArray[Any]) -> bool:
    return all(bool((np.rint(part) == part).all()) for part in np.atleast_1d(array))


def _value_cure(kind: str, low: float, high: float) -> str:
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        return "Replace the values that are not finite."
    if kind == "f" and -1 <= low < -0.5 and high <= 1:
        return "If -1 is black and 1 is white, save ((images + 1) * 127.5).round().astype('uint8')."
    if kind == "f" and low >= 0 and high <= 255:
        return "Save them rounded: images.round().astype('uint8')."
    if low < 0:
        return "Save the images as they were before they were centred or standardised, with 0 as black."
    white = 2 ** math.ceil(math.log2(high + 1)) - 1
    return f"If {white} is white, save (images * (255 / {white})).round().astype('uint8')."


def to_labels(array: NDArray[Any]) -> NDArray[Any]:
    """Labels as int64 N or, where they are names of classes, as strings, N.

    Parameters
    ----------
    array : N or N×1: integers, whole floats, booleans, strings or bytes

    Raises
    ------
    DataError
        If there is not one label for each image; the message says how to get one.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(_labels_cure(array))
    if array.dtype.kind == "S":
        array = np.array([label.decode("utf-8", "surrogateescape") for label in array.tolist()])
    if array.dtype.kind == "U":
        return np.array([class_name(label) for label in array.tolist()])
    if array.dtype.kind == "f" and not bool((np.rint(array) == array).all() and (np.abs(array) < 2**53).all()):
        odd = array[~(np.rint(array) == array) | ~(np.abs(array) < 2**53)][0]
        raise DataError(f"labels must be whole numbers or names of classes; these hold {odd}. Number the classes.")
    if array.dtype.kind not in "uifb":
        raise DataError(f"labels must be whole numbers or names of classes, not {array.dtype}. Convert them.")
    return array.astype(np.int64)


def label_matrix(array: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Several labels an image, bool N×K: a column for each label; None if an array is something else.

    Zeros and ones of which every row has a single one are taken for the one-hot form of one class an image, unless they
    are booleans.

    >>> label_matrix(np.array([[1, 1, 0], [0, 0, 0]])).tolist(), label_matrix(np.array([[0, 1], [1, 0]])) is None
    ([[True, True, False], [False, False, False]], True)
    """
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "uifb" or not array.size:
        return None
    if array.dtype.kind == "b":
        return array
    if not bool(np.isin(array, (0, 1)).all()) or bool((array.sum(axis=1) == 1).all()):
        return None
    return array.astype(bool)


def labels_of_lists(
    lists: Iterable[str | Iterable[str]], names: Sequence[str] = (), separator: str = ";"
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Several labels an image, bool N×K, from a list of names for each image, and the K names.

    Parameters
    ----------
    lists : for each image its labels, as a list or as one text; spaces around a name do not count, nor do empty ones
    names : all labels, in the order of the columns; by default those that occur, sorted
    separator : between the names of a text

    Raises
    ------
    DataError
        If a label is not among the names.

    Examples
    --------
    >>> matrix, names = labels_of_lists(["cat; dog", "", "dog"])
    >>> matrix.tolist(), names
    ([[True, True], [False, False], [False, True]], ('cat', 'dog'))
    """
    texts = [
        [class_name(text) for part in (one.split(separator) if isinstance(one, str) else one) if (text := part.strip())]
        for one in lists
    ]
    found = {text for row in texts for text in row}
    known = tuple(map(class_name, names)) or tuple(sorted(found))
    if unknown := sorted(found.difference(known)):
        raise DataError(
            f"Labels {', '.join(map(repr, unknown[:5]))} are not among the names ({', '.join(known[:10])}). Name all."
        )
    column = {name: number for number, name in enumerate(known)}
    matrix = np.zeros((len(texts), len(known)), bool)
    for row, own in zip(matrix, texts, strict=True):
        row[[column[text] for text in own]] = True
    return matrix, known


def _labels_cure(array: NDArray[Any]) -> str:
    """Why labels with several values an image cannot be used, and what to save instead."""
    shape = shape_text(array.shape)
    if array.ndim == 2 and array.size and array.dtype.kind in "uifb":
        ones = array.sum(axis=1)
        if bool(np.isin(array, (0, 1)).all()):
            if bool((ones == 1).all()):
                return f"labels are one-hot, {shape}: one number per image is needed. Save labels.argmax(axis=1)."
            return (
                f"labels are {shape} zeros and ones with {int(ones.min())} to {int(ones.max())} ones a row: several "
                f"labels an image, while other labels of the data are one class an image. Save all in one form."
            )
        if array.dtype.kind == "f" and bool((array >= 0).all()) and np.allclose(ones, 1, atol=1e-3):
            return (
                f"labels are probabilities, {shape}: one number per image is needed. "
                f"Save the most probable class, labels.argmax(axis=1)."
            )
    return (
        f"labels must be one number or name per image; these have the shape {shape or '()'}. Save one for each image."
    )


def shape_cure(shape: Sequence[int]) -> str:
    """What turns an array of another shape into images, N×H×W×C with C = 1 or 3; a sentence."""
    match tuple(shape):
        case (rows, columns):
            return _cure_of_two_axes(rows, columns)
        case (first, second, last):
            return _cure_of_three_axes(first, second, last)
        case (first, second, third, last):
            return _cure_of_four_axes(first, second, third, last)
    return "Give an array with four axes: images, rows, columns, channels."


def _cure_of_four_axes(first: int, second: int, third: int, last: int) -> str:
    if second in (1, 3):
        return "Move the channels to the end: images.transpose(0, 2, 3, 1)."
    if third in (1, 3):
        return "Move the images to the front: images.transpose(3, 0, 1, 2)."
    if first in (1, 3) and last > 4:
        return "Move the images to the front and the channels to the end: images.transpose(3, 1, 2, 0)."
    if last in (2, 4):
        return f"Leave out the transparency: images[..., :{last - 1}]."
    return "Leave one channel (grey) or three (red, green, blue)."


def _cure_of_three_axes(first: int, second: int, last: int) -> str:
    if last == 1 and _square_side(second):
        return _flat_cure(second)
    if last in (1, 3):
        return "If this is one image: images[None]."
    if last == 4:
        return "If this is one image with transparency: images[None, ..., :3]; if grey images: images[..., None]."
    if first in (1, 3):
        return (
            "If this is one image, channels first: images.transpose(1, 2, 0)[None]; "
            "if these are several grey images: images[..., None]."
        )
    return "Add the channel of grey images: images[..., None]."


def _cure_of_two_axes(rows: int, columns: int) -> str:
    one = "If this is one grey image: images[None, ..., None]."
    if rows == columns:
        return one
    alike = 1 / 3 < rows / columns < 3
    if _square_side(columns) or _square_side(columns, 3):
        return f"{one} {_flat_cure(columns)}" if alike else _flat_cure(columns)
    if _square_side(columns - 1) and not alike:
        flat = _flat_cure(columns - 1).replace("images.reshape", "images[:, 1:].reshape")
        return f"If the first column holds labels, as in Kaggle's tables, leave it out. {flat}"
    return one


def _flat_cure(columns: int) -> str:
    if side := _square_side(columns):
        return f"If each row is a grey image of {side}×{side}: images.reshape(-1, {side}, {side}, 1)."
    side = _square_side(columns, 3)
    return (
        f"If each row is a colour image of {side}×{side}: images.reshape(-1, {side}, {side}, 3), or, where all red "
        f"values come first, images.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1)."
    )


def _square_side(columns: int, channels: int = 1) -> int:
    """Side of a square image with so many values, or 0."""
    side = math.isqrt(columns // channels)
    return side if side >= _MIN_FLAT_SIDE and side * side * channels == columns else 0
