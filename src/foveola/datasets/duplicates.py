"""Duplicate images: the same pixels, or nearly the same pixels, also when shifted by one pixel.

Two images are near duplicates if, at the best shift by up to one pixel each way, the root mean square difference of
their pixels is at most 5 grey levels of 255, and at most a tenth of the contrast (standard deviation) of the fainter
image. This keeps different images of similar classes apart: on Fashion-MNIST, it finds other photographs of the same
garment, not other trousers.

The search is exact. A projection never lengthens a distance, so every pair that is close in all pixels is also close in
the first principal components. There, images are sorted into boxes, only images of near boxes are compared, and the
pixels then decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.components import first_connected
from foveola.images import Images
from foveola.lazy import blocks

Indices = NDArray[np.int64]

MAX_DIFFERENCE = 5.0  # root mean square over the pixels that both images share, in grey levels of 255
MAX_CONTRAST_FRACTION = 0.1
# Each pair is compared both ways, so these five cover all nine shifts by up to one pixel
SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
# Smaller images are not shifted: one pixel is too large a part of them
MIN_SHIFTED_SIDE = 8

_COMPONENTS = 16
# Images, and values in them, that the components are fitted to; any other choice would find the same pairs
_FIT_IMAGES, _FIT_VALUES = 10_000, 2**22
_BOX = 64  # images
_MAX_VALUES = 2**22  # in memory at once


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are each a duplicate of at least one other image of the group.

    `members` are ascending indices; `exact` tells whether all have the same pixels.
    """

    members: tuple[int, ...]
    exact: bool


def find_duplicates(images: Images) -> list[DuplicateGroup]:
    """Find groups of exact and near duplicates in images, uint8 N×H×W×C, ordered by their first members."""
    first = first_copies(images)
    distinct = np.flatnonzero(first == np.arange(len(images)))
    group = distinct[_near_components(images[distinct])][np.searchsorted(distinct, first)]
    order = group.argsort(kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    duplicates = [
        DuplicateGroup(tuple(map(int, members)), exact=bool((first[members] == first[members[0]]).all()))
        for members in groups
        if len(members) > 1
    ]
    return sorted(duplicates, key=lambda group: group.members)


def reduced(images: Images, factor: int) -> Images:
    """Images, uint8 N×H×W×C, with sides divided by a whole number: means of squares of pixels; a rest is left out."""
    if factor == 1:
        return images[:]
    count, (height, width), channels = len(images), (side // factor for side in images.shape[1:3]), images.shape[3]
    small, done = np.empty((count, height, width, channels), np.uint8), 0
    for block in blocks(images):
        squares = block[:, : height * factor, : width * factor].reshape(-1, height, factor, width, factor, channels)
        small[done : done + len(block)] = squares.mean(axis=(2, 4), dtype=np.float32).round()
        done += len(block)
    return small


def first_copies(images: Images) -> Indices:
    """For each image, uint8 N×H×W×C, the index of the first image with the same pixels, N."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(image.tobytes(), index) for index, image in enumerate(images)], dtype=np.int64)


def _near_components(images: Images) -> Indices:
    """For each image, the first one of its connected component of near duplicates, N."""
    component = np.arange(len(images))
    for left, right in _near_pairs(images, component):
        component[:] = first_connected(len(images), component[left], component[right])[component]
    return component


def _near_pairs(images: Images, component: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of indices of near duplicates, in batches; without those whose components, N, are the same by then."""
    shifts = SHIFTS if min(images.shape[1:3]) >= MIN_SHIFTED_SIDE else SHIFTS[:1]
    margin = int(len(shifts) > 1)
    limit = np.minimum(MAX_DIFFERENCE, MAX_CONTRAST_FRACTION * _contrast(images))
    center = _window(images, margin, (0, 0))
    sample = center[:: max(len(center) // _FIT_IMAGES, center.size // _FIT_VALUES, 1)]
    origin = sample.mean(axis=0)
    axes = _principal_axes(sample - origin, min(_COMPONENTS, *sample.shape))
    points = _project(center, axes) - axes @ origin
    boxes = _boxes(points, np.arange(len(points)))
    # Slightly wider, to allow for rounding
    radius = 1.001 * limit * center.shape[1] ** 0.5 + 1e-2
    for shift in shifts:
        shifted = _window(images, margin, shift)
        projected = _project(shifted, axes) - axes @ origin
        for left, right in _pairs_within(projected, points, boxes, radius):
            if (component == component[0]).all():
                return
            while (apart := component[left] != component[right]).any():
                left, right = left[apart], right[apart]
                some = slice(0, max(_MAX_VALUES // center.shape[1], 1))
                near = _difference(shifted, center, left[some], right[some])
                near = near <= np.minimum(limit[left[some]], limit[right[some]])
                if near.any():
                    yield left[some][near], right[some][near]
                left, right = left[some.stop :], right[some.stop :]


def _principal_axes(centered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Orthonormal axes, count×D, along which centered rows, N×D, nearly differ most (Halko et al. 2011)."""
    axes = np.random.default_rng(0).normal(size=(centered.shape[1], count))
    for _ in range(3):
        axes = np.linalg.qr(centered.T @ (centered @ axes))[0]
    return axes.T


def _boxes(points: NDArray[np.float64], members: Indices) -> list[Indices]:
    """The indices of points, N×K, in parts of at most _BOX that lie together, halved along their widest axes."""
    if len(members) <= _BOX:
        return [members]
    axis, half = int(np.ptp(points[members], axis=0).argmax()), len(members) // 2
    order = members[points[members, axis].argpartition(half)]
    return [*_boxes(points, order[:half]), *_boxes(points, order[half:])]


def _pairs_within(
    queries: NDArray[np.float64], points: NDArray[np.float64], boxes: Sequence[Indices], radius: NDArray[np.float64]
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of indices, of a query and of a point, N×K each, that are at most the query's radius, N, apart."""
    lowest, highest = (np.stack([side(points[box], axis=0) for box in boxes]) for side in (np.min, np.max))
    # |q - p|² - |q|² is the product of (-2 q, 1) and (p, |p|²)
    left_factors = np.column_stack([-2 * queries, np.ones(len(queries))])
    right_factors = np.column_stack([points, np.square(points).sum(axis=1)])
    at_once = _MAX_VALUES // _BOX**2
    for members in boxes:
        own, limit = queries[members], np.square(radius[members])
        gaps = np.maximum(lowest - own.max(axis=0), own.min(axis=0) - highest).clip(min=0)
        near = np.flatnonzero(np.square(gaps).sum(axis=1) <= limit.max())
        within = (limit - np.square(own).sum(axis=1))[:, None]
        for start in range(0, len(near), at_once):
            others = np.concatenate([boxes[box] for box in near[start : start + at_once]])
            left, right = np.nonzero(left_factors[members] @ right_factors[others].T <= within)
            yield members[left], others[right]


def _contrast(images: Images) -> NDArray[np.float64]:
    """Standard deviation of each image, N."""
    return np.array([image.std() for image in images])


def _window(images: Images, margin: int, shift: tuple[int, int]) -> Images:
    """The pixels of each image, shifted, that remain inside it at every shift up to the margin, uint8 N×D."""
    height, width = images.shape[1:3]
    down, right = margin + shift[0], margin + shift[1]
    inner = images[:, down : height - 2 * margin + down, right : width - 2 * margin + right]
    return inner.reshape(len(images), -1)


def _project(flat: Images, axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project rows, N×D, on orthonormal axes, K×D; the coordinates, N×K."""
    rows = max(_MAX_VALUES // flat.shape[1], 1)
    return np.concatenate([flat[start : start + rows] @ axes.T for start in range(0, len(flat), rows)])


def _difference(first: Images, second: Images, left: Indices, right: Indices) -> NDArray[np.float64]:
    """Root mean square difference of each pair of rows, in grey levels of 255."""
    gaps = first[left].astype(np.float32) - second[right]
    differences: NDArray[np.float64] = np.sqrt(np.square(gaps).mean(axis=1)).astype(np.float64)
    return differences
