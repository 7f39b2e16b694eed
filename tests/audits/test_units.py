"""Units: copies and groups are joined; groups that are too large for the folds are refused."""

import numpy as np
import pytest

from foveola.audits.units import find_units
from foveola.datasets.duplicates import DuplicateGroup, find_duplicates
from foveola.errors import DataError
from foveola.images import ImageSet


def image_set(count=12, groups=None):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % 2, ("a", "b"), groups)


def units_of(images, folds=3, learnt=None, copies=None):
    learnt = np.ones(len(images), dtype=bool) if learnt is None else learnt
    return find_units(images, learnt, find_duplicates(images.images) if copies is None else copies, folds)


def together(units):
    """The sets of images with the same number, without single ones."""
    sets = [tuple(np.flatnonzero(units == unit)) for unit in np.unique(units)]
    return [members for members in sets if len(members) > 1]


def test_copies_are_a_unit_in_any_split():
    images = image_set()
    images.images[[4, 11]] = images.images[1]
    assert together(units_of(images, learnt=np.arange(12) < 8)) == [(1, 4, 11)]


def test_copies_join_groups():
    images = image_set(groups=np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]))
    images.images[2] = images.images[0]
    assert together(units_of(images)) == [(0, 1, 2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]


def test_near_copies_that_connect_a_class_are_kept_apart_but_exact_ones_are_not():
    images = image_set()
    images.images[2] = images.images[0]
    video = DuplicateGroup(tuple(range(0, 12, 2)), exact=False)
    assert together(units_of(images, copies=[video])) == [(0, 2)]


def test_fewer_groups_than_folds_are_refused_with_the_number_that_would_do():
    images = image_set(groups=np.arange(12) // 6)
    with pytest.raises(DataError, match=r"in 2 groups .* cannot make 3 folds\. Use --folds 2, or smaller groups"):
        units_of(images)
    assert len(np.unique(units_of(images, folds=2))) == 2


def test_a_single_group_is_refused_without_offering_one_fold():
    with pytest.raises(DataError, match=r"in 1 group .*\. Give smaller groups, or none\."):
        units_of(image_set(groups=np.zeros(12, np.int64)), folds=2)


def test_a_class_in_one_group_is_refused_by_name():
    images = image_set(groups=np.where(np.arange(12) % 2, 99, np.arange(12)))
    with pytest.raises(DataError, match=r"class 'b' are in one group"):
        units_of(images)
