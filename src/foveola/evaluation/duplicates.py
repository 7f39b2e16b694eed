"""Images that are there more than once: the same pixels, or nearly, also when shifted by one pixel.

Two images are near duplicates if, at the best of the shifts by up to one pixel each way, their pixels differ by a
root mean square of at most 5 of 255, and of at most a tenth of the fainter one's contrast (its standard deviation).
Classes whose members look alike stay apart by this: on Fashion-MNIST, it finds other photographs of the same garment,
not other trousers.

The search misses nothing. A projection never lengthens a distance, so that every pair that is close in all pixels is
close in its first principal components as well, where a k-d tree finds it; the pixels then decide.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.images import Images

Indices = NDArray[np.int64]

MAX_DIFFERENCE = 5.0  # root mean square over the pixels that both images have, of 255
MAX_SHARE_OF_CONTRAST = 0.1
# With the roles of two images exchanged, these are all nine shifts by up to one pixel
SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
# Of smaller images, a pixel is too large a part
SMALLEST_SHIFTED = 8

_COMPONENTS = 16
_FITTED_ON = 10_000  # images that the components are chosen by; any other choice would find the same pairs
_QUERIES = 512
_VALUES = 2**22  # compared at once


@dataclass(frozen=True)
class Group:
    """Images that are duplicates of each other, each of at least one other.

    `members` are ascending indices; `exact` says whether all have the same pixels.
    """

    members: tuple[int, ...]
    exact: bool


def find_duplicates(images: Images) -> list[Group]:
    """Groups of exact and near duplicates among images, uint8 N×H×W×C, in the order of their first members."""
    first = first_copies(images)
    distinct = np.flatnonzero(first == np.arange(len(images)))
    group = distinct[_near_components(images[distinct])][np.searchsorted(distinct, first)]
    order = group.argsort(kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    found = [
        Group(tuple(map(int, members)), exact=bool((first[members] == first[members[0]]).all()))
        for members in groups
        if len(members) > 1
    ]
    return sorted(found, key=lambda duplicates: duplicates.members)


def first_copies(images: Images) -> Indices:
    """Of each image, uint8 N×H×W×C, the index of the first image with the same pixels, N."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(image.tobytes(), index) for index, image in enumerate(images)], dtype=np.int64)


def _near_components(images: Images) -> Indices:
    """Of each image, a representative of those that near duplicates join it with, N."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    component = np.arange(len(images))
    for left, right in _near_pairs(images):
        joined = coo_array((np.ones(len(left)), (component[left], component[right])), shape=2 * (len(images),))
        component = connected_components(joined, directed=False)[1][component]
    _, representative, component = np.unique(component, return_index=True, return_inverse=True)
    return representative[component]


def _near_pairs(images: Images) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of indices of near duplicates, some at a time."""
    from scipy.spatial import cKDTree
    from sklearn.utils.extmath import randomized_svd

    shifts = SHIFTS if min(images.shape[1:3]) >= SMALLEST_SHIFTED else SHIFTS[:1]
    margin = int(len(shifts) > 1)
    limit = np.minimum(MAX_DIFFERENCE, MAX_SHARE_OF_CONTRAST * _contrast(images))
    centre = _window(images, margin, (0, 0))
    sample = centre[:: max(len(centre) // _FITTED_ON, 1)]
    axes = randomized_svd(sample - sample.mean(axis=0), min(_COMPONENTS, *sample.shape), random_state=0)[2]
    tree = cKDTree(_project(centre, axes))
    # a hair wider, for rounding
    radius = 1.001 * limit * centre.shape[1] ** 0.5 + 1e-3
    for shift in shifts:
        shifted = _window(images, margin, shift)
        projected = _project(shifted, axes)
        for start in range(0, len(images), _QUERIES):
            part = slice(start, start + _QUERIES)
            close = tree.query_ball_point(projected[part], radius[part], workers=-1)
            left = start + np.repeat(np.arange(len(close)), [len(found) for found in close])
            right = np.concatenate([np.asarray(found, dtype=np.int64) for found in close])
            left, right = left[left != right], right[left != right]
            near = _difference(shifted, centre, left, right) <= np.minimum(limit[left], limit[right])
            if near.any():
                yield left[near], right[near]


def _contrast(images: Images) -> NDArray[np.float64]:
    """Standard deviation of each image's values, N."""
    return np.array([image.std() for image in images])


def _window(images: Images, margin: int, shift: tuple[int, int]) -> Images:
    """The pixels that an image shares with any other that is shifted by up to the margin, uint8 N×D."""
    height, width = images.shape[1:3]
    down, right = margin + shift[0], margin + shift[1]
    inner = images[:, down : height - 2 * margin + down, right : width - 2 * margin + right]
    return inner.reshape(len(images), -1)


def _project(flat: Images, axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates, N×K, of the rows along orthonormal axes, K×D."""
    rows = max(_VALUES // flat.shape[1], 1)
    return np.concatenate([flat[start : start + rows] @ axes.T for start in range(0, len(flat), rows)])


def _difference(first: Images, second: Images, left: Indices, right: Indices) -> NDArray[np.float64]:
    """Root mean square of the differences of pairs of rows, of 255."""
    rows = max(_VALUES // first.shape[1], 1)
    differences = np.empty(len(left))
    for start in range(0, len(left), rows):
        part = slice(start, start + rows)
        gaps = first[left[part]].astype(np.float32) - second[right[part]]
        differences[part] = np.sqrt(np.square(gaps).mean(axis=1))
    return differences
