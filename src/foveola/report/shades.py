"""Numbers as colours: feature maps, filters and heat maps as uint8 pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveola.images import Images

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


def laid_over(image: Images, heat: Values) -> Images:
    """Heat, -1 to 1, H×W, over an image, uint8 H×W×C: orange above 0, blue below; uint8 H×W×3."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    # Kept off black and white, so that colours are seen on both
    base = 40 + 0.7 * grey
    opacity = 0.85 * np.abs(np.clip(heat, -1, 1))[..., None]
    return _bytes(base + opacity * (np.where(heat[..., None] > 0, ORANGE, BLUE) - base))


def enlarged(image: Images, side: int) -> Images:
    """The image in whole multiples of its pixels, the longer side at least `side` pixels where it is smaller."""
    times = max(-(-side // max(image.shape[:2])), 1)
    return image.repeat(times, axis=0).repeat(times, axis=1)


def labelled_grid(tiles: Sequence[Images], labels: Sequence[str], title: str) -> Images:
    """Tiles of one size in rows of eight, each with its label beneath, the title above; uint8 H×W×3."""
    tiles = [enlarged(tile, 64) for tile in tiles]
    height, width = tiles[0].shape[:2]
    across = min(len(tiles), 8)
    step, line, gap = width + 8, height + 22, 8
    font, large = ImageFont.load_default(12), ImageFont.load_default(16)
    size = max(across * step + gap, round(large.getlength(title)) + 2 * gap), 36 + -(-len(tiles) // across) * line
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((gap, gap), title.replace("×", "x"), "black", large)  # Pillow's font has no ×
    for number, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, top = gap + number % across * step, 36 + number // across * line
        picture.paste(Image.fromarray(tile), (left, top))
        draw.text((left, top + height + 2), label, "black", font)
    return np.asarray(picture)


def _bytes(values: Values) -> Images:
    return values.round().astype(np.uint8)
