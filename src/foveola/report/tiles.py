"""Small pictures for pages: thumbnails, and a layer's maps side by side."""

import math

import numpy as np
from numpy.typing import NDArray

from foveola.decoding import resize
from foveola.images import Images
from foveola.report.shades import enlarged, shaded, signed

# Pixels: what a page shows of an image, so that a page with a hundred of them stays light
LARGEST = 64
GAP, GREY = 2, 128


def thumbnail(image: Images) -> Images:
    """An image, uint8 H×W×C, of at most 64 pixels a side."""
    height, width = image.shape[:2]
    if max(height, width) <= LARGEST:
        return image
    scale = LARGEST / max(height, width)
    return resize(image, max(round(scale * height), 1), max(round(scale * width), 1))


def sheet(maps: NDArray[np.float32], count: int, across: int) -> Images:
    """The `count` strongest maps of a layer, H×W×M, in their order and on one scale, with thin lines between; uint8."""
    strongest = np.sort(np.argsort(-np.abs(maps).max(axis=(0, 1)), kind="stable")[:count])
    maps = maps[..., strongest]
    draw, highest = shaded if maps.min() >= 0 else signed, float(np.abs(maps).max())
    drawn = [draw(maps[..., index], highest) for index in range(maps.shape[2])]
    tiles = [enlarged(thumbnail(tile if tile.ndim == 3 else tile[..., None]), 24) for tile in drawn]
    height, width, channels = tiles[0].shape
    rows, columns = math.ceil(len(tiles) / across), min(across, len(tiles))
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels)
    whole = np.full(shape, GREY, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // across * (height + GAP), place % across * (width + GAP)
        whole[top : top + height, left : left + width] = tile
    return whole
