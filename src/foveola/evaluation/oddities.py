"""Images unlike the rest of their set: blank, inverted, of another size, off the centre.

What is usual is a median, and how far images usually lie from it the median of their distances (MAD, scaled by 1.4826
to a standard deviation), so that the odd ones themselves hardly shift either. Sizes and places are compared within
each class. They need a plain background: of photographs, only blank ones are found.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveola.images import ImageSet, Labels, Polarity, polarity

Kind = Literal["blank", "inverted", "mis-sized", "off-centre"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Values = NDArray[np.float64]

# A pixel that differs from its surroundings by more, of 255, is seen: ink is what differs so from the background, and
# an image with no larger a share of such pixels than this is blank
VISIBLE, BLANK_SHARE = 16, 0.005
# A border this bright or dark is background; as in foveola.images.polarity
DARK, BRIGHT = 85, 170
# An image this much like the negative of its class is an inverted one: a bright bag that fills the frame is not
NEGATIVE = -0.3
# How far is far: so many standard deviations, and so much at all, as a factor of the size or a share of the side
FAR, SIZE_FACTOR, SIDE_SHARE = 5.0, 1.3, 0.15
FEWEST_PIXELS = 2
# A class with fewer images is compared with the whole set
FEWEST = 10


@dataclass(frozen=True)
class Oddity:
    """An image that looks wrong; `detail` says how, `score` how far it is from usual (larger is odder)."""

    index: int
    kind: Kind
    detail: str
    score: float


def find_oddities(image_set: ImageSet) -> list[Oddity]:
    """What looks wrong, by kind, then by score; an image is blank, or inverted, or any of the other two."""
    images, labels = image_set.images.mean(axis=3, dtype=np.float32), image_set.labels
    background = polarity(image_set.images)
    usual = np.ones(len(images), dtype=bool)
    found = list(_blank(images))
    usual[[oddity.index for oddity in found]] = False
    if background != "mixed":
        inverted = list(_inverted(images, labels, usual, background))
        usual[[oddity.index for oddity in inverted]] = False
        sizes, rows, columns = _ink(images, background)
        found += inverted
        found += _mis_sized(sizes, labels, usual)
        found += _off_centre(rows, columns, images.shape[1:], labels, usual)
    return sorted(found, key=lambda oddity: (KINDS.index(oddity.kind), -oddity.score, oddity.index))


def _blank(images: Values) -> Iterator[Oddity]:
    middle = np.median(images, axis=(1, 2), keepdims=True)
    visible = (np.abs(images - middle) > VISIBLE).mean(axis=(1, 2))
    for index in np.flatnonzero(visible <= BLANK_SHARE):
        yield Oddity(
            int(index), "blank", f"{100 * visible[index]:.1f} % of its pixels stand out", float(1 - visible[index])
        )


def _inverted(images: Values, labels: Labels, usual: NDArray[np.bool_], background: Polarity) -> Iterator[Oddity]:
    edges = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    border = np.median(np.concatenate(edges, axis=1), axis=1)
    opposite = border > BRIGHT if background == "light on dark" else border < DARK
    for index in np.flatnonzero(opposite & usual):
        mean = images[_peers(labels, usual, labels[index])].mean(axis=0)
        likeness = _correlation(images[index], mean)
        if likeness < NEGATIVE:
            yield Oddity(int(index), "inverted", f"most are {background}", -likeness)


def _ink(images: Values, background: Polarity) -> tuple[Values, Values, Values]:
    """Of the box around each image's ink, the longer side and the row and column of its centre, in pixels, N."""
    ink: NDArray[np.bool_] = images > VISIBLE if background == "light on dark" else images < 255 - VISIBLE
    top, bottom = _extent(np.any(ink, axis=2))
    left, right = _extent(np.any(ink, axis=1))
    return np.maximum(bottom - top, right - left), (top + bottom) / 2, (left + right) / 2


def _mis_sized(sizes: Values, labels: Labels, usual: NDArray[np.bool_]) -> Iterator[Oddity]:
    """Images whose ink is much longer or shorter than that of their class; `sizes` are longer sides, in pixels."""
    logarithms = np.log(np.maximum(sizes, 1))
    for members, peers in _classes(labels, usual):
        middle = np.median(logarithms[peers])
        spread = 1.4826 * np.median(np.abs(logarithms[peers] - middle))
        distance = np.abs(logarithms[members] - middle)
        for index in members[distance > max(FAR * spread, np.log(SIZE_FACTOR))]:
            usually = float(np.exp(middle))
            detail = f"its ink is {sizes[index]:.0f} pixels long; usual are {usually:.0f}"
            yield Oddity(int(index), "mis-sized", detail, float(abs(np.log(sizes[index] / usually))))


def _off_centre(
    rows: Values, columns: Values, shape: tuple[int, ...], labels: Labels, usual: NDArray[np.bool_]
) -> Iterator[Oddity]:
    """Images whose ink lies far from where it usually lies in their class."""
    least = max(SIDE_SHARE * max(shape), FEWEST_PIXELS)
    for members, peers in _classes(labels, usual):
        down, right = rows - np.median(rows[peers]), columns - np.median(columns[peers])
        distance = np.hypot(down, right)
        # of a normal distribution in the plane, half lies within 1.1774 standard deviations
        spread = np.median(distance[peers]) / 1.1774
        for index in members[distance[members] > max(FAR * spread, least)]:
            detail = f"its ink lies {_direction(down[index], right[index])}"
            yield Oddity(int(index), "off-centre", detail, float(distance[index] / max(shape)))


def _classes(labels: Labels, usual: NDArray[np.bool_]) -> Iterator[tuple[Labels, NDArray[np.bool_]]]:
    """Of each class, its usual images, and a mask of those to compare them with."""
    for label in np.unique(labels[usual]):
        yield np.flatnonzero((labels == label) & usual), _peers(labels, usual, label)


def _peers(labels: Labels, usual: NDArray[np.bool_], label: int) -> NDArray[np.bool_]:
    peers: NDArray[np.bool_] = (labels == label) & usual
    return peers if np.count_nonzero(peers) >= FEWEST else usual


def _extent(occupied: NDArray[np.bool_]) -> tuple[Values, Values]:
    """Where the first True of each row begins, and where its last one ends, N."""
    begin, end = occupied.argmax(axis=1), occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    return begin.astype(np.float64), end.astype(np.float64)


def _correlation(first: Values, second: Values) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / max(np.sqrt((first**2).sum() * (second**2).sum()), 1e-9))


def _direction(down: float, right: float) -> str:
    """Such as "5 pixels too low, 3 pixels too far left"."""
    vertical = f"{abs(down):.0f} pixels too {'low' if down > 0 else 'high'}"
    horizontal = f"{abs(right):.0f} pixels too far {'right' if right > 0 else 'left'}"
    return ", ".join(part for part in (vertical, horizontal) if not part.startswith("0 "))
