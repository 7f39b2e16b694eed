"""Outlier images: blank, inverted, of another size or off-center compared with the rest of their set.

Typical values are medians, and spreads are median absolute deviations (MAD, scaled by 1.4826 to a standard deviation),
so outliers themselves hardly shift either. Sizes and positions are compared within each class. All kinds but blank
images and placeholders (foveola.audits.placeholders) need a plain background.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveola.images import ImageSet, Labels, Polarity, polarity

Kind = Literal["blank", "placeholder", "inverted", "mis-sized", "off-centre"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Foreground pixels differ from the background by more than this, in grey levels of 255
MIN_CONTRAST = 16
# An image in which no larger a fraction of pixels stands out is blank
MAX_BLANK_FRACTION = 0.005
# Darker or brighter borders are background; as in foveola.images.polarity
DARK, BRIGHT = 85, 170
# An inverted image correlates with the mean of its class less than this; a bright bag that fills the frame does not
MAX_INVERTED_CORRELATION = -0.3
# Size and position are outliers beyond this many standard deviations …
MIN_DEVIATIONS = 5.0
# … and beyond a factor of the typical size, or a fraction of the image's side and a number of pixels
MIN_SIZE_RATIO, MIN_OFFSET_FRACTION, MIN_OFFSET_PIXELS = 1.3, 0.15, 2
# A class with fewer images is compared with the whole set
MIN_CLASS_IMAGES = 10


@dataclass(frozen=True)
class Outlier:
    """An image that differs from the rest of its set; `detail` says how, `score` by how much (larger is further)."""

    index: int
    kind: Kind
    detail: str
    score: float


def find_outliers(image_set: ImageSet) -> list[Outlier]:
    """Find outliers, sorted by kind and score.

    A blank or inverted image has no other kind; the others may be both mis-sized and off-center.
    """
    images, labels = image_set.images.mean(axis=3, dtype=np.float32), image_set.labels
    background = polarity(image_set.images)
    usual = np.ones(len(images), dtype=bool)
    outliers = list(_find_blank(images))
    usual[[outlier.index for outlier in outliers]] = False
    if background != "mixed":
        inverted = list(_find_inverted(images, labels, usual, background))
        usual[[outlier.index for outlier in inverted]] = False
        sizes, rows, columns = _measure_foreground(images, background)
        outliers += inverted
        outliers += _find_mis_sized(sizes, labels, usual)
        outliers += _find_off_center(rows, columns, images.shape[1:], labels, usual)
    return rank(outliers)


def rank(outliers: Sequence[Outlier]) -> list[Outlier]:
    """Outliers by kind, then by score; of a blank or inverted image, or a placeholder, only the first kind."""
    ranked = sorted(outliers, key=lambda outlier: (KINDS.index(outlier.kind), -outlier.score, outlier.index))
    exclusive: dict[int, Kind] = {}
    for outlier in ranked:
        if outlier.kind in ("blank", "placeholder", "inverted"):
            exclusive.setdefault(outlier.index, outlier.kind)
    return [outlier for outlier in ranked if exclusive.get(outlier.index, outlier.kind) == outlier.kind]


def _find_blank(images: Values) -> Iterator[Outlier]:
    median = np.median(images, axis=(1, 2), keepdims=True)
    visible = (np.abs(images - median) > MIN_CONTRAST).mean(axis=(1, 2))
    for index in np.flatnonzero(visible <= MAX_BLANK_FRACTION):
        yield Outlier(
            int(index), "blank", f"{100 * visible[index]:.1f} % of its pixels stand out", float(1 - visible[index])
        )


def _find_inverted(images: Values, labels: Labels, usual: Mask, background: Polarity) -> Iterator[Outlier]:
    edges = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    border = np.median(np.concatenate(edges, axis=1), axis=1)
    opposite = border > BRIGHT if background == "light on dark" else border < DARK
    for index in np.flatnonzero(opposite & usual):
        mean = images[_peers(labels, usual, labels[index])].mean(axis=0)
        correlation = _correlation(images[index], mean)
        if correlation < MAX_INVERTED_CORRELATION:
            yield Outlier(int(index), "inverted", f"most images are {background}", -correlation)


def _measure_foreground(images: Values, background: Polarity) -> tuple[Values, Values, Values]:
    """The foreground's bounding box in each image: its longer side, center row and center column, in pixels, N."""
    light_on_dark = background == "light on dark"
    foreground: Mask = images > MIN_CONTRAST if light_on_dark else images < 255 - MIN_CONTRAST
    top, bottom = _extent(np.any(foreground, axis=2))
    left, right = _extent(np.any(foreground, axis=1))
    return np.maximum(bottom - top, right - left), (top + bottom) / 2, (left + right) / 2


def _find_mis_sized(sizes: Values, labels: Labels, usual: Mask) -> Iterator[Outlier]:
    """Images whose foreground is much longer or shorter than is typical of their class; `sizes` are in pixels."""
    logarithms = np.log(np.maximum(sizes, 1))
    for members, peers in _classes(labels, usual):
        median = np.median(logarithms[peers])
        spread = 1.4826 * np.median(np.abs(logarithms[peers] - median))
        distance = np.abs(logarithms[members] - median)
        for index in members[distance > max(MIN_DEVIATIONS * spread, np.log(MIN_SIZE_RATIO))]:
            typical = float(np.exp(median))
            detail = f"its foreground is {sizes[index]:.0f} pixels long; {typical:.0f} are typical"
            yield Outlier(int(index), "mis-sized", detail, float(abs(np.log(sizes[index] / typical))))


def _find_off_center(
    rows: Values, columns: Values, shape: tuple[int, ...], labels: Labels, usual: Mask
) -> Iterator[Outlier]:
    """Images whose foreground is far from its typical position in their class."""
    min_offset = max(MIN_OFFSET_FRACTION * max(shape), MIN_OFFSET_PIXELS)
    for members, peers in _classes(labels, usual):
        down, right = rows - np.median(rows[peers]), columns - np.median(columns[peers])
        distance = np.hypot(down, right)
        # Half of a normal distribution in the plane lies within 1.1774 standard deviations
        spread = np.median(distance[peers]) / 1.1774
        for index in members[distance[members] > max(MIN_DEVIATIONS * spread, min_offset)]:
            detail = f"its foreground is {_describe_offset(down[index], right[index])}"
            yield Outlier(int(index), "off-centre", detail, float(distance[index] / max(shape)))


def _classes(labels: Labels, usual: Mask) -> Iterator[tuple[Labels, Mask]]:
    """For each class, the indices of its usual images, and the mask of the images to compare them with."""
    for label in np.unique(labels[usual]):
        yield np.flatnonzero((labels == label) & usual), _peers(labels, usual, label)


def _peers(labels: Labels, usual: Mask, label: int) -> Mask:
    peers: Mask = (labels == label) & usual
    return peers if np.count_nonzero(peers) >= MIN_CLASS_IMAGES else usual


def _extent(occupied: Mask) -> tuple[Values, Values]:
    """Where the first True of each row begins, and where its last one ends, N."""
    begin, end = occupied.argmax(axis=1), occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    return begin.astype(np.float64), end.astype(np.float64)


def _correlation(first: Values, second: Values) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / max(np.sqrt((first**2).sum() * (second**2).sum()), 1e-9))


def _describe_offset(down: float, right: float) -> str:
    """Such as "5 pixels too low, 3 pixels too far left"."""
    vertical = f"{abs(down):.0f} pixels too {'low' if down > 0 else 'high'}"
    horizontal = f"{abs(right):.0f} pixels too far {'right' if right > 0 else 'left'}"
    return ", ".join(offset for offset in (vertical, horizontal) if not offset.startswith("0 "))
