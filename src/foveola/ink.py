"""A picture taken apart: what is its background, and what stands on it, here called ink, whatever it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.decoding import resize, to_channels
from foveola.images import Images

# Larger pictures are reduced to this side in pixels before they are measured, which averages noise
MEASURED_SIDE = 128

_TO_SPREAD = 1.4826  # of a median of absolute values: then it is the standard deviation, if they are normal
_NOISE_SPREADS = 5.0  # how many robust standard deviations make ink of a pixel
_LEAST_DIFFERENCE = 12.0  # grey levels; below lie the artefacts of JPEG
_FLAT = 4.0  # grey levels; a border that varies no more is even
_INK_FROM = 0.33  # share of the full difference: the soft edge of a stroke belongs to it, a shadow does not

Grey = NDArray[np.floating]


@dataclass(frozen=True)
class Parts:
    """A picture taken apart: what the background is, and how far each pixel lies from it towards the ink, H×W.

    `noise` is the largest such distance in the background; `contrast` that of full ink.
    """

    light: bool
    background: Grey
    difference: Grey
    noise: float
    contrast: float


@dataclass(frozen=True)
class Measures:
    """One picture, measured as Statistics describes; `box` is top, left, bottom, right as shares of the sides."""

    light: bool
    background: float
    unevenness: float
    contrast: float
    ink: float
    stroke: float
    box: tuple[float, float, float, float]
    centre: tuple[float, float]

    @property
    def size(self) -> float:
        top, left, bottom, right = self.box
        return max(bottom - top, right - left)


def measure(grey: Grey) -> Measures | None:
    """Measure a picture, float H×W; None if nothing stands out from its background."""
    parts = take_apart(grey)
    if parts is None:
        return None
    ink = parts.difference >= max(_INK_FROM * parts.contrast, parts.noise)
    weights = np.where(ink, parts.difference, 0.0)
    (top, bottom, y), (left, right, x) = (_extent(weights.sum(axis=axis)) for axis in (1, 0))
    longer = max((bottom - top) * len(grey), (right - left) * grey.shape[1])
    return Measures(
        light=parts.light,
        background=float(np.median(parts.background)),
        unevenness=float(np.ptp(parts.background)),
        contrast=parts.contrast,
        ink=float(ink.mean()),
        stroke=_stroke_width(np.minimum(weights / parts.contrast, 1.0)) / longer,
        box=(top, left, bottom, right),
        centre=(y, x),
    )


def _extent(profile: NDArray[np.floating]) -> tuple[float, float, float]:
    """Start, end and centre of mass of a profile, N, as shares of its length; specks at the ends do not count."""
    mass = profile.cumsum() / profile.sum()
    start, end = int(np.searchsorted(mass, 0.003)), int(np.searchsorted(mass, 0.997)) + 1
    centre = float(profile @ (np.arange(len(profile)) + 0.5) / profile.sum())
    return start / len(profile), min(end / len(profile), 1.0), centre / len(profile)


def _stroke_width(ink: Grey) -> float:
    """In pixels, of ink between 0 and 1: a long stroke has two edges, so that its width is twice its area by its edge.

    Area is the sum, the length of all edges the total variation, so that soft edges need no threshold.
    """
    padded = np.pad(ink, 1)
    down, across = np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1]
    return float(2 * ink.sum() / np.hypot(down, across).sum())


def take_apart(grey: Grey) -> Parts | None:
    """Tell ink from background, float H×W; None if nothing stands out."""
    background = background_of(grey)
    difference = grey - background
    spread = _TO_SPREAD * float(np.median(np.abs(difference[_border(grey.shape)])))
    noise = max(_NOISE_SPREADS * spread, _LEAST_DIFFERENCE)
    above, below = difference[difference > noise], -difference[difference < -noise]
    light = above.sum() >= below.sum()
    ink = above if light else below
    if len(ink) < max(2, grey.size / 4000):
        return None
    difference = difference if light else -difference
    return Parts(bool(light), background, difference, noise, float(np.quantile(ink, 0.9)))


def background_of(grey: Grey) -> Grey:
    """The background of a picture under its ink, float H×W: the level of its border, or a surface of second degree.

    The surface is fitted to the border first, then again and again to all that lies near it, ink left out.
    """
    small = at_most(grey[..., None].round().astype(np.uint8), MEASURED_SIDE)[..., 0].astype(np.float32)
    border = _border(small.shape)
    level = float(np.median(small[border]))
    flat = np.abs(small[border] - level) <= _FLAT
    if flat.mean() >= 0.75 or min(small.shape) < 16:
        return np.full_like(grey, level)
    terms = _terms(*small.shape)
    inside = border & (np.abs(small - level) <= 3 * _TO_SPREAD * np.median(np.abs(small[border] - level)))
    for _ in range(6):
        coefficients, *_ = np.linalg.lstsq(terms[inside.ravel()], small[inside], rcond=None)
        residual = np.abs(small - (terms @ coefficients).reshape(small.shape))
        inside = residual <= max(3 * _TO_SPREAD * float(np.median(residual[inside])), _FLAT)
    surface: Grey = (_terms(*grey.shape) @ coefficients).reshape(grey.shape).clip(0, 255).astype(np.float32)
    return surface


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    margin = max(min(shape) // 16, 1)
    border = np.ones(shape, bool)
    border[margin:-margin, margin:-margin] = False
    return border


def _terms(height: int, width: int) -> NDArray[np.float64]:
    """1, x, y, x², xy, y² of every pixel, (H·W)×6, with x and y from -1 to 1."""
    y, x = (2 * (np.arange(side) + 0.5) / side - 1 for side in (height, width))
    y, x = (axis.ravel() for axis in np.meshgrid(y, x, indexing="ij"))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def as_grey(picture: Images) -> Grey:
    return to_channels(picture, 1)[..., 0].astype(np.float32)


def at_most(picture: Images, side: int) -> Images:
    """The picture with its longer side of at most so many pixels."""
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(round(scale * length), 1) for length in picture.shape[:2])
    return resize(picture, height, width)
