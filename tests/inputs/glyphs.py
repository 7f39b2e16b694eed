"""Drawn glyphs: training images like those of MNIST, and photographs of handwriting."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from foveola.models.metadata import OriginalImages

SHAPE = (28, 28, 1)
ORIGINALS = OriginalImages.of(np.array([28]), np.array([28]))
STROKES = (  # (x, y) in a box of 1×1, y downwards
    [(0.1, 0.0), (0.9, 0.0), (0.3, 1.0)],
    [(0.6, 0.0), (0.1, 0.6), (0.9, 0.6), (0.6, 0.3), (0.6, 1.0)],
    [(0.5, 0.0), (0.5, 1.0)],
    [(0.9, 0.1), (0.2, 0.3), (0.2, 0.9), (0.8, 0.8), (0.7, 0.5), (0.2, 0.6)],
)


def draw_glyph(kind, side, width, rotation=0):
    """A glyph that fills a box of about side×side pixels, float 0 to 1."""
    image = Image.new("L", (4 * side, 4 * side))
    points = [((x * 0.88 + 0.06) * 4 * side, (y * 0.88 + 0.06) * 4 * side) for x, y in STROKES[kind]]
    ImageDraw.Draw(image).line(points, fill=255, width=round(4 * side * width), joint="curve")
    image = image.rotate(rotation, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32) / 255


def training_image(kind, width):
    """A glyph as in MNIST, uint8 28×28×1: light on black, 20 pixels large, center of mass in the middle."""
    canvas, glyph = np.zeros((60, 60), np.float32), draw_glyph(kind, 22, width)
    canvas[20:42, 20:42] = glyph
    y, x = (np.average(np.arange(60) + 0.5, weights=canvas.sum(axis=axis)) for axis in (1, 0))
    top, left = round(y - 14), round(x - 14)
    return (255 * canvas[top : top + 28, left : left + 28]).astype(np.uint8)[..., None]


def photograph(kind, seed):
    """Dark ink on tinted paper under uneven light, off center and noisy, uint8 H×W×3."""
    random = np.random.default_rng(seed)
    height, width = random.integers(200, 360, 2)
    side = round(min(height, width) * random.uniform(0.25, 0.5))
    glyph = draw_glyph(kind, side, random.uniform(0.05, 0.16), random.uniform(-8, 8))
    top, left = (round((length - side) * random.choice([0.05, 0.95])) for length in (height, width))
    sheet = np.zeros((height, width), np.float32)
    sheet[top : top + side, left : left + side] = glyph
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    light = 1 - 0.12 * (x**2 + y**2) + 0.15 * random.choice([-1, 1]) * x
    paper, colour = random.uniform(170, 220) * np.array([1, 0.97, 0.9]), np.array([40, 45, 90])
    pixels = (paper + (colour - paper) * sheet[..., None]) * light[..., None] + random.normal(0, 5, (height, width, 1))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    return np.asarray(image)
