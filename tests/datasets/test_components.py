"""Connected components against SciPy's."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foveola.datasets.components import first_connected, join


def scipys(count, left, right):
    links = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def random_links(count, links, seed):
    random = np.random.default_rng(seed)
    return random.integers(count, size=links), random.integers(count, size=links)


def path(count, seed):
    """A path through all nodes in random order: the longest way from one to another."""
    order = np.random.default_rng(seed).permutation(count)
    return order[:-1], order[1:]


@pytest.mark.parametrize(
    ("count", "links"),
    [
        (1, ([], [])),
        (4, ([0, 2], [0, 2])),
        (5, ([4, 0, 0, 4], [0, 4, 2, 2])),
        (1000, random_links(1000, 300, 0)),
        (1000, random_links(1000, 1500, 1)),
        (5000, path(5000, 2)),
        (5000, (np.arange(4999), np.arange(1, 5000))),
        (5000, (np.full(4999, 4999), np.arange(4999))),
    ],
    ids=["alone", "loops", "twice", "sparse", "dense", "path", "chain", "star"],
)
def test_components_and_their_order_are_scipys(count, links):
    left, right = (np.asarray(ends, np.int64) for ends in links)
    first = first_connected(count, left, right)
    np.testing.assert_array_equal(np.unique(first, return_inverse=True)[1], scipys(count, left, right))
    np.testing.assert_array_equal(first[first], first)
    assert (first <= np.arange(count)).all()


@pytest.mark.parametrize("seed", range(5))
def test_images_that_share_a_group_or_a_key_are_joined(seed):
    random = np.random.default_rng(seed)
    groups, keys = random.integers(-50, 200, 300), random.integers(1000, 1200, 300)
    joined = join(groups, keys)
    images = np.arange(300)
    links = [np.nonzero(numbers[:, None] == numbers) for numbers in (groups, keys)]
    left, right = np.concatenate(links, axis=1)
    np.testing.assert_array_equal(joined, scipys(len(images), left, right))
