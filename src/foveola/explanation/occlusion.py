"""Which pixels speak for a class, asked of any model: part after part of the image is covered.

It needs only a model's answers, and so no PyTorch. Maps are as large as the images that are given.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.images import Images, Labels, Polarity, check_images
from foveola.predictions import Predictor, softmax

# A square covers about a fiftieth of the image, and moves by half its side
SQUARES_A_SIDE = 7
# Covered copies of an image that are held at once
BATCH = 256


def occlusion(
    predictor: Predictor,
    polarity: Polarity,
    images: Images,
    classes: Labels,
    size: int | None = None,
    stride: int | None = None,
) -> NDArray[np.float32]:
    """How much the class's probability falls when a square of the image is covered (Zeiler and Fergus, 2014).

    The square has the colour of the background: black where the model has learnt from light on dark, white where from
    dark on light, otherwise the image's mean. A pixel's drop is the mean over all squares that cover it.

    Parameters
    ----------
    predictor : a live classifier or a reopened export
    polarity : of the images that it has learnt from, as its card says
    images : uint8 N×H×W×C
    classes : int64 N, the class to explain for each image
    size : side of the square in pixels, by default a seventh of the longer side
    stride : pixels between squares, by default half their side

    Returns
    -------
    float32 N×H×W, -1 to 1; above 0 speaks for the class

    Raises
    ------
    DataError
        If images, classes, size or stride cannot be used.
    """
    check_explained(images, classes, len(predictor.class_names))
    height, width = images.shape[1:3]
    squares = _squares(height, width, size, stride)
    covering = np.zeros((height, width))
    for square in squares:
        covering[square] += 1
    before = _probabilities(predictor, images, classes)
    drops = np.zeros(images.shape[:3])
    for number, drop in enumerate(drops):
        for start in range(0, len(squares), BATCH):
            batch = squares[start : start + BATCH]
            covered = _covered(images[number], batch, polarity)
            after = _probabilities(predictor, covered, np.full(len(batch), classes[number]))
            for square, remaining in zip(batch, after, strict=True):
                drop[square] += before[number] - remaining
    return (drops / covering).astype(np.float32)


def check_explained(images: Images, classes: Labels, known: int) -> None:
    """Refuse images that are none, and classes that are not one of `known` for each image.

    Raises
    ------
    DataError
        If images or classes cannot be used.
    """
    check_images(images)
    if np.shape(classes) != (len(images),) or not 0 <= np.min(classes) <= np.max(classes) < known:
        raise DataError(f"Give each of the {len(images)} images a class to explain, as a number from 0 to {known - 1}.")


def _squares(height: int, width: int, size: int | None, stride: int | None) -> list[tuple[slice, slice]]:
    """Rows and columns of every square, row by row."""
    size = max(round(max(height, width) / SQUARES_A_SIDE), 1) if size is None else size
    stride = max(size // 2, 1) if stride is None else stride
    if size < 1 or not 1 <= stride <= size:
        raise DataError(
            f"A square of {size} pixels that moves by {stride} does not cover the image. Choose 1 ≤ stride ≤ size."
        )
    return [
        np.s_[top : top + size, left : left + size]
        for top in _starts(height, size, stride)
        for left in _starts(width, size, stride)
    ]


def _starts(side: int, size: int, stride: int) -> list[int]:
    """Where squares begin, so that the last one ends at the border."""
    last = max(side - size, 0)
    return [*range(0, last, stride), last]


def _probabilities(predictor: Predictor, images: Images, classes: Labels) -> NDArray[np.float64]:
    """Each image's probability of its class, float64 N."""
    return softmax(predictor.predict_logits(images))[np.arange(len(images)), classes]


def _covered(image: Images, squares: Sequence[tuple[slice, slice]], polarity: Polarity) -> Images:
    """The image once for each square, with that square covered."""
    background = image.mean(axis=(0, 1)).round() if polarity == "mixed" else 255 * (polarity == "dark on light")
    images = np.repeat(image[None], len(squares), axis=0)
    for copy, square in zip(images, squares, strict=True):
        copy[square] = background
    return images
