"""Occlusion: heat maps of the pixels that speak for a class, from predictions on partly covered images.

It works with any model, without PyTorch. Heat maps have the size of the given images.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.images import Images, Labels, Polarity, check_images
from foveola.predictions import Predictor
from foveola.tasks import probabilities

# By default, a square covers a fiftieth of the image
SQUARES_PER_SIDE = 7
# Covered copies of an image that are in memory at once
BATCH = 256


def occlusion(
    predictor: Predictor,
    polarity: Polarity,
    images: Images,
    classes: Labels,
    size: int | None = None,
    stride: int | None = None,
) -> NDArray[np.float32]:
    """Measure the drop in a class's probability when a square of the image is covered (Zeiler and Fergus, 2014).

    The square has the colour of the background: black if the model was trained on light on dark, white if on dark on
    light, otherwise the mean of the image. The drop of a pixel is the mean over all squares that cover it.

    Parameters
    ----------
    predictor : a live classifier or a reopened export
    polarity : of its training images, as in its metadata
    images : uint8 N×H×W×C
    classes : int64 N, the class to explain for each image
    size : side of the square in pixels, by default a seventh of the image's longer side
    stride : pixels from one square to the next, by default half their side

    Returns
    -------
    float32 N×H×W, -1 to 1; pixels above 0 speak for the class

    Raises
    ------
    DataError
        If images, classes, size or stride cannot be used.
    """
    check_explained(images, classes, len(predictor.class_names))
    height, width = images.shape[1:3]
    squares = _squares(height, width, size, stride)
    counts = np.zeros((height, width))
    for square in squares:
        counts[square] += 1
    before = _probabilities(predictor, images, classes)
    drops = np.zeros(images.shape[:3])
    for index, drop in enumerate(drops):
        for start in range(0, len(squares), BATCH):
            batch = squares[start : start + BATCH]
            covered = _cover(images[index], batch, polarity)
            after = _probabilities(predictor, covered, np.full(len(batch), classes[index]))
            for square, probability in zip(batch, after, strict=True):
                drop[square] += before[index] - probability
    return (drops / counts).astype(np.float32)


def check_explained(images: Images, classes: Labels, class_count: int) -> None:
    """Refuse arrays that are not images, or classes that are not one valid index for each image.

    Raises
    ------
    DataError
        If images or classes cannot be used.
    """
    check_images(images)
    if np.shape(classes) != (len(images),) or not 0 <= np.min(classes) <= np.max(classes) < class_count:
        raise DataError(
            f"The classes to explain do not fit the images. Give each of the {len(images)} images a class, as a number "
            f"from 0 to {class_count - 1}."
        )


def _squares(height: int, width: int, size: int | None, stride: int | None) -> list[tuple[slice, slice]]:
    """Every square as slices of rows and columns, row by row."""
    size = max(round(max(height, width) / SQUARES_PER_SIDE), 1) if size is None else size
    stride = max(size // 2, 1) if stride is None else stride
    if size < 1 or not 1 <= stride <= size:
        raise DataError(
            f"Squares of {size} pixels with a stride of {stride} do not cover the image. Choose 1 ≤ stride ≤ size."
        )
    return [
        np.s_[top : top + size, left : left + size]
        for top in _starts(height, size, stride)
        for left in _starts(width, size, stride)
    ]


def _starts(side: int, size: int, stride: int) -> list[int]:
    """First pixels of the squares; the last square ends at the border."""
    last = max(side - size, 0)
    return [*range(0, last, stride), last]


def _probabilities(predictor: Predictor, images: Images, classes: Labels) -> NDArray[np.float64]:
    """Probability of the given class for each image, float64 N."""
    every = probabilities(predictor.predict_logits(images), predictor.metadata.task)
    return every[np.arange(len(images)), classes]


def _cover(image: Images, squares: Sequence[tuple[slice, slice]], polarity: Polarity) -> Images:
    """Copies of the image, uint8 N×H×W×C, each with one square covered."""
    background = image.mean(axis=(0, 1)).round() if polarity == "mixed" else 255 * (polarity == "dark on light")
    images = np.repeat(image[None], len(squares), axis=0)
    for copy, square in zip(images, squares, strict=True):
        copy[square] = background
    return images
