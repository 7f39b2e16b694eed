"""Connected components: images that belong together, directly or through others."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def first_connected(count: int, left: Indices, right: Indices) -> Indices:
    """For each of `count` nodes, the first node that links connect it with, directly or through others.

    Every round puts the first node of a component below the first of those that it has links to, and then lets all
    nodes point to the first of theirs: algorithm S of Liu and Tarjan (2022), which takes O(log² count) rounds.

    Parameters
    ----------
    count : number of nodes
    left, right : the ends of the links, from 0 to count - 1, int64 L each

    Returns
    -------
    int64 array, of `count`

    Examples
    --------
    >>> first_connected(5, np.array([3, 1]), np.array([1, 4])).tolist()
    [0, 1, 2, 1, 1]
    """
    first = np.arange(count)
    while (apart := first[left] != first[right]).any():
        left, right = left[apart], right[apart]
        ends = first[left], first[right]
        np.minimum.at(first, np.maximum(*ends), np.minimum(*ends))
        while (further := first[first] != first).any():
            first[further] = first[first[further]]
    return first


def join(groups: Indices, keys: Indices) -> Indices:
    """Numbers, from 0 on, of what arises if images that share a group or a key, int64 N each, belong together; N.

    Examples
    --------
    >>> join(np.array([7, 7, 8, 9]), np.array([1, 2, 2, 3])).tolist()
    [0, 0, 0, 1]
    """
    _, starts, group = np.unique(groups, return_index=True, return_inverse=True)
    _, key_starts, key = np.unique(keys, return_index=True, return_inverse=True)
    images = np.arange(len(groups))
    links = np.concatenate([starts[group], key_starts[key]])
    numbers: Indices = np.unique(first_connected(len(groups), np.tile(images, 2), links), return_inverse=True)[1]
    return numbers
