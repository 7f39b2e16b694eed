"""Splits of images with several labels: every label in proportion and on both sides, groups together."""

import numpy as np
import pytest

from foveola.errors import DataError
from foveola.stratified import hold_out

NAMES = tuple("abcde")


def some_labels(n=500, seed=0):
    return np.random.default_rng(seed).random((n, 5)) < (0.5, 0.3, 0.1, 0.05, 0.02)


@pytest.mark.parametrize("seed", range(5))
def test_every_label_is_in_proportion(seed):
    labels = some_labels(seed=seed)
    held_out = hold_out(labels, None, NAMES, 0.2, seed)
    assert abs(held_out.sum() - 100) <= 10
    wanted = 0.2 * labels.sum(axis=0)
    assert (abs(labels[held_out].sum(axis=0) - wanted) <= np.maximum(0.1 * wanted, 2)).all()
    np.testing.assert_array_equal(held_out, hold_out(labels, None, NAMES, 0.2, seed))
    assert (held_out != hold_out(labels, None, NAMES, 0.2, seed + 1)).any()


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_labels_are_on_both_sides(seed):
    labels, groups = some_labels(seed=seed), np.arange(500) // 4
    held_out = hold_out(labels, groups, NAMES, 0.2, seed)
    for group in range(125):
        assert len(set(held_out[groups == group])) == 1
    assert labels[held_out].any(axis=0).all()
    assert labels[~held_out].any(axis=0).all()
    assert abs(held_out.mean() - 0.2) < 0.05


def test_rare_labels_that_come_together_are_on_both_sides():
    labels = np.zeros((40, 3), bool)
    labels[:20, 0] = True
    labels[[3, 4], 1] = True
    labels[[3, 4], 2] = True
    for seed in range(10):
        held_out = hold_out(labels, None, ("a", "b", "c"), 0.2, seed)
        assert held_out[3] != held_out[4]


def test_a_label_of_one_image_or_one_group_is_refused():
    labels = some_labels()
    labels[:, 4] = False
    labels[7, 4] = True
    with pytest.raises(DataError, match="Class 'e' has a single image"):
        hold_out(labels, None, NAMES, 0.2, 0)
    labels[6, 4] = True
    with pytest.raises(DataError, match="2 images of class 'e' are of a single group"):
        hold_out(labels, np.arange(500) // 4, NAMES, 0.2, 0)
