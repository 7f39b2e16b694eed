"""Arrays as pixels: colormaps for maps and filters, thumbnails, grids, PNG bytes."""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveola.images import Images
from foveola.inputs.resize import shrink

# Okabe and Ito's blue and orange: told apart with every kind of colour blindness
BLUE, ORANGE = np.array([0, 114, 178]), np.array([230, 120, 0])
Values = NDArray[np.floating]


def shaded(values: Values, highest: float) -> Images:
    """Values from 0 to `highest` from black to white, uint8 H×W."""
    return _bytes(255 * np.clip(values / (highest or 1), 0, 1))


def signed(values: Values, highest: float) -> Images:
    """0 is white, `highest` orange, -`highest` blue; uint8 H×W×3."""
    strength = np.clip(values / (highest or 1), -1, 1)[..., None]
    return _bytes(255 + np.abs(strength) * (np.where(strength > 0, ORANGE, BLUE) - 255))


def coloured(values: Values, highest: float) -> Images:
    """Weights of red, green and blue, H×W×3: 0 is middle grey, `highest` full colour; uint8 H×W×3."""
    return _bytes(127.5 + 127.5 * np.clip(values / (highest or 1), -1, 1))


def overlay(image: Images, heat: Values) -> Images:
    """Heat, -1 to 1, H×W, over an image, uint8 H×W×C: orange above 0, blue below; uint8 H×W×3."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    # Kept off black and white, so that colours are seen on both
    base = 40 + 0.7 * grey
    opacity = 0.85 * np.abs(np.clip(heat, -1, 1))[..., None]
    return _bytes(base + opacity * (np.where(heat[..., None] > 0, ORANGE, BLUE) - base))


def enlarge(image: Images, side: int) -> Images:
    """The image in whole multiples of its pixels, the longer side at least `side` pixels where it is smaller."""
    times = max(-(-side // max(image.shape[:2])), 1)
    return image.repeat(times, axis=0).repeat(times, axis=1)


def labelled_grid(tiles: Sequence[Images], labels: Sequence[str], title: str) -> Images:
    """Tiles of one size in rows of eight, each with its label beneath, the title above; uint8 H×W×3."""
    tiles = [enlarge(tile, 64) for tile in tiles]
    height, width = tiles[0].shape[:2]
    across = min(len(tiles), 8)
    step, line, gap = width + 8, height + 22, 8
    font, large = ImageFont.load_default(12), ImageFont.load_default(16)
    size = max(across * step + gap, round(large.getlength(title)) + 2 * gap), 36 + -(-len(tiles) // across) * line
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((gap, gap), title.replace("×", "x"), "black", large)  # Pillow's font has no ×
    for number, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, top = gap + number % across * step, 36 + number // across * line
        canvas.paste(Image.fromarray(tile), (left, top))
        draw.text((left, top + height + 2), label, "black", font)
    return np.asarray(canvas)


def _bytes(values: Values) -> Images:
    return values.round().astype(np.uint8)


# Pixels: what a page shows of an image, so that a page with a hundred of them stays light
MAX_SIDE = 64
_TILE_GAP, _TILE_GREY = 2, 128


def png_bytes(image: Images) -> bytes:
    """An image, uint8 H×W, H×W×1 or H×W×3, as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(
        content, "png", optimize=True
    )
    return content.getvalue()


def thumbnail(image: Images) -> Images:
    """An image, uint8 H×W×C, of at most 64 pixels a side."""
    return shrink(image, MAX_SIDE)


def map_sheet(maps: NDArray[np.float32], count: int, across: int) -> Images:
    """The `count` strongest maps of a layer, H×W×M, in their order and on one scale, with thin lines between; uint8."""
    strongest = np.sort(np.argsort(-np.abs(maps).max(axis=(0, 1)), kind="stable")[:count])
    maps = maps[..., strongest]
    draw, highest = shaded if maps.min() >= 0 else signed, float(np.abs(maps).max())
    drawn = [draw(maps[..., index], highest) for index in range(maps.shape[2])]
    tiles = [enlarge(thumbnail(tile if tile.ndim == 3 else tile[..., None]), 24) for tile in drawn]
    height, width, channels = tiles[0].shape
    rows, columns = math.ceil(len(tiles) / across), min(across, len(tiles))
    shape = (rows * (height + _TILE_GAP) - _TILE_GAP, columns * (width + _TILE_GAP) - _TILE_GAP, channels)
    whole = np.full(shape, _TILE_GREY, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // across * (height + _TILE_GAP), place % across * (width + _TILE_GAP)
        whole[top : top + height, left : left + width] = tile
    return whole
