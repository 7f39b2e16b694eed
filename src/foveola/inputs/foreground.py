"""Segmentation of an image into foreground and background, and measurements of both.

The foreground covers what an image shows: strokes, a garment. Model metadata and finding codes call it "ink".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.images import Images
from foveola.inputs.resize import shrink, to_channels

# Larger images are reduced to this side in pixels before they are measured, which also averages out noise
MEASURED_SIDE = 128

_MAD_TO_STD = 1.4826  # median absolute deviation → standard deviation, for a normal distribution
_MIN_FOREGROUND_STDS = 5.0  # robust standard deviations from the background that make a pixel foreground
_MIN_DIFFERENCE = 12.0  # grey levels; JPEG artefacts stay below
_MAX_FLAT_DEVIATION = 4.0  # grey levels; a border that varies no more is even
_FOREGROUND_THRESHOLD = 0.33  # fraction of the contrast: includes the soft edge of a stroke, excludes a shadow

Grey = NDArray[np.floating]


@dataclass(frozen=True)
class Segmentation:
    """Background of an image, and how far each pixel differs from it in the direction of the foreground, H×W.

    `noise` is the largest difference that still counts as background; `contrast` is the difference of full-strength
    foreground.
    """

    light_on_dark: bool
    background: Grey
    difference: Grey
    noise: float
    contrast: float


@dataclass(frozen=True)
class Measurements:
    """Measurements of one image, as defined in ImageStatistics, which calls `foreground` "ink".

    `box` is top, left, bottom, right of the foreground, `center` its center of mass (y, x), as fractions of the sides.
    """

    light_on_dark: bool
    background: float
    unevenness: float
    contrast: float
    foreground: float
    stroke: float
    box: tuple[float, float, float, float]
    center: tuple[float, float]

    @property
    def size(self) -> float:
        top, left, bottom, right = self.box
        return max(bottom - top, right - left)


def measure(grey: Grey) -> Measurements | None:
    """Measurements of an image, float H×W; None if nothing stands out from its background."""
    segmentation = segment(grey)
    if segmentation is None:
        return None
    foreground = segmentation.difference >= max(_FOREGROUND_THRESHOLD * segmentation.contrast, segmentation.noise)
    weights = np.where(foreground, segmentation.difference, 0.0)
    (top, bottom, y), (left, right, x) = (_extent(weights.sum(axis=axis)) for axis in (1, 0))
    longer = max((bottom - top) * len(grey), (right - left) * grey.shape[1])
    return Measurements(
        light_on_dark=segmentation.light_on_dark,
        background=float(np.median(segmentation.background)),
        unevenness=float(np.ptp(segmentation.background)),
        contrast=segmentation.contrast,
        foreground=float(foreground.mean()),
        stroke=_stroke_width(np.minimum(weights / segmentation.contrast, 1.0)) / longer,
        box=(top, left, bottom, right),
        center=(y, x),
    )


def _extent(profile: NDArray[np.floating]) -> tuple[float, float, float]:
    """Start, end and center of mass of a profile, N, as fractions of its length; specks at the ends are ignored."""
    mass = profile.cumsum() / profile.sum()
    start, end = int(np.searchsorted(mass, 0.003)), int(np.searchsorted(mass, 0.997)) + 1
    center = float(profile @ (np.arange(len(profile)) + 0.5) / profile.sum())
    return start / len(profile), min(end / len(profile), 1.0), center / len(profile)


def _stroke_width(foreground: Grey) -> float:
    """Mean stroke width in pixels, of foreground between 0 and 1.

    A long stroke has two edges: its width is twice its area divided by the length of all edges. The area is the sum
    of the values and the length of the edges their total variation, which needs no threshold for soft edges.
    """
    padded = np.pad(foreground, 1)
    down, across = np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1]
    return float(2 * foreground.sum() / np.hypot(down, across).sum())


def segment(grey: Grey) -> Segmentation | None:
    """Separate foreground from background, float H×W; None if nothing stands out."""
    background = estimate_background(grey)
    difference = grey - background
    std = _MAD_TO_STD * float(np.median(np.abs(difference[_border(grey.shape)])))
    noise = max(_MIN_FOREGROUND_STDS * std, _MIN_DIFFERENCE)
    lighter, darker = difference[difference > noise], -difference[difference < -noise]
    light_on_dark = lighter.sum() >= darker.sum()
    foreground = lighter if light_on_dark else darker
    if len(foreground) < max(2, grey.size / 4000):
        return None
    difference = difference if light_on_dark else -difference
    return Segmentation(bool(light_on_dark), background, difference, noise, float(np.quantile(foreground, 0.9)))


def estimate_background(grey: Grey) -> Grey:
    """Estimated background of an image, float H×W: the grey level of its border, or a quadratic surface.

    If the border is uneven, a quadratic surface is fitted to it, then refitted several times to all pixels near the
    surface, which leaves out the foreground.
    """
    small = shrink(grey[..., None].round().astype(np.uint8), MEASURED_SIDE)[..., 0].astype(np.float32)
    border = _border(small.shape)
    level = float(np.median(small[border]))
    flat = np.abs(small[border] - level) <= _MAX_FLAT_DEVIATION
    if flat.mean() >= 0.75 or min(small.shape) < 16:
        return np.full_like(grey, level)
    terms = _quadratic_terms(*small.shape)
    fitted = border & (np.abs(small - level) <= 3 * _MAD_TO_STD * np.median(np.abs(small[border] - level)))
    for _ in range(6):
        coefficients, *_ = np.linalg.lstsq(terms[fitted.ravel()], small[fitted], rcond=None)
        residual = np.abs(small - (terms @ coefficients).reshape(small.shape))
        fitted = residual <= max(3 * _MAD_TO_STD * float(np.median(residual[fitted])), _MAX_FLAT_DEVIATION)
    surface: Grey = (_quadratic_terms(*grey.shape) @ coefficients).reshape(grey.shape).clip(0, 255).astype(np.float32)
    return surface


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask of the pixels near the edge of an image, H×W."""
    margin = max(min(shape) // 16, 1)
    border = np.ones(shape, bool)
    border[margin:-margin, margin:-margin] = False
    return border


def _quadratic_terms(height: int, width: int) -> NDArray[np.float64]:
    """1, x, y, x², xy, y² of every pixel, (H·W)×6, with x and y from -1 to 1."""
    y, x = (2 * (np.arange(side) + 0.5) / side - 1 for side in (height, width))
    y, x = (axis.ravel() for axis in np.meshgrid(y, x, indexing="ij"))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def as_grey(image: Images) -> Grey:
    """The grey levels of an image, float32 H×W."""
    return to_channels(image, 1)[..., 0].astype(np.float32)
