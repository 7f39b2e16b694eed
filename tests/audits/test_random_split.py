"""Expected leaks: equal to the mean over random splits, and to values worked out by hand."""

import numpy as np
import pytest

from foveola.audits.random_split import expected_leaks
from foveola.datasets.duplicates import DuplicateGroup
from foveola.images import ImageSet


def group(*members):
    return DuplicateGroup(members, exact=True)


def test_a_pair_in_one_class():
    """Of ten images, two are held out: one copy is and the other is not with probability 2 · 2/10 · 8/9."""
    groups, images = expected_leaks(np.zeros(10, np.int64), [group(3, 7)], 0.2)
    assert (groups, images) == pytest.approx((16 / 45, 16 / 45))


def test_a_pair_in_two_classes_is_drawn_independently():
    labels = np.repeat([0, 1], [10, 5])
    groups, _ = expected_leaks(labels, [group(0, 12)], 0.2)
    assert groups == pytest.approx(0.2 * 0.8 + 0.8 * 0.2)


def test_no_copies_leak_nothing():
    assert expected_leaks(np.arange(10) % 2, [], 0.2) == (0, 0)


def test_the_mean_over_random_splits():
    labels = np.repeat([0, 1, 2], [20, 33, 7])
    copies = [group(0, 1, 21), group(2, 3), group(54, 55, 56, 57, 58), group(59, 40)]
    image_set = ImageSet(np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1), labels, ("a", "b", "c"))
    both_sides, images = [], []
    for seed in range(1500):
        held_out = set(image_set.split(0.2, seed)[1].images.ravel().tolist())
        counts = [(len(held_out & set(one.members)), len(one.members)) for one in copies]
        both_sides.append(sum(0 < count < size for count, size in counts))
        images.append(sum(count for count, size in counts if count < size))
    for expected, drawn in zip(expected_leaks(labels, copies, 0.2), (both_sides, images), strict=True):
        assert abs(np.mean(drawn) - expected) < 3 * np.std(drawn) / 1500**0.5
