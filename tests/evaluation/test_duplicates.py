"""Duplicates: planted ones are found, others are not, and the fast search finds what comparing all pairs finds."""

import numpy as np
import pytest

from foveola.evaluation.duplicates import MAX_DIFFERENCE, MAX_SHARE_OF_CONTRAST, Group, find_duplicates


def smooth(count, side=16, channels=1, seed=0):
    """Random pictures without hard edges, uint8 N×H×W×C, full contrast each."""
    coarse = np.random.default_rng(seed).normal(size=(count, 6, 6, channels))
    rows = np.array([np.interp(np.linspace(0, 5, side), range(6), row) for row in np.eye(6)]).T
    images = np.einsum("yi,nijc,xj->nyxc", rows, coarse, rows)
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return (255 * (images - low) / (high - low)).astype(np.uint8)


def test_distinct_images_have_no_duplicates():
    assert find_duplicates(smooth(300)) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_are_exact_duplicates_wherever_they_stand(channels):
    images = smooth(50, channels=channels)
    images = np.concatenate([images, images[[7, 3, 7]]])
    assert find_duplicates(images) == [Group((3, 51), exact=True), Group((7, 50, 52), exact=True)]


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_a_shift_by_a_pixel_is_a_near_duplicate_whatever_fills_the_edge(down, right):
    images = smooth(50)
    moved = np.roll(images[:1], (down, right), axis=(1, 2))
    if down or right:
        assert find_duplicates(np.concatenate([images, moved])) == [Group((0, 50), exact=False)]


def test_faint_noise_is_a_near_duplicate_with_a_shift_as_well():
    images = smooth(50)
    noise = np.random.default_rng(1).integers(-3, 4, images.shape)
    noisy = np.clip(np.roll(images, 1, axis=2) + noise, 0, 255).astype(np.uint8)
    found = find_duplicates(np.concatenate([images, noisy]))
    assert found == [Group((index, index + 50), exact=False) for index in range(50)]


def test_a_shift_by_two_pixels_is_another_image():
    images = smooth(20)
    assert find_duplicates(np.concatenate([images, np.roll(images, 2, axis=1)])) == []


def test_a_copy_of_a_near_duplicate_joins_the_group():
    images = smooth(10)
    moved = np.roll(images[:1], 1, axis=1)
    found = find_duplicates(np.concatenate([images, moved, moved, images[:1]]))
    assert found == [Group((0, 10, 11, 12), exact=False)]


def test_what_is_faint_must_agree_better():
    """A difference of 4 of 255 is a copy of a picture full of contrast, and another picture where all is faint."""
    strong = np.zeros((1, 16, 16, 1), np.uint8)
    strong[:, 4:12] = 200
    faint = strong // 20
    speckle = 4 * np.random.default_rng(0).integers(0, 2, strong.shape, dtype=np.uint8)
    assert find_duplicates(np.concatenate([strong, strong + speckle])) == [Group((0, 1), exact=False)]
    assert find_duplicates(np.concatenate([faint, faint + speckle])) == []


def test_the_search_finds_what_comparing_all_pairs_finds():
    """Pictures in clusters of all distances around the limit."""
    random = np.random.default_rng(3)
    images = smooth(40).repeat(4, axis=0).astype(float)
    images = images + random.normal(size=images.shape) * random.uniform(0, 6, (len(images), 1, 1, 1))
    images = np.clip(images, 0, 255).astype(np.uint8)
    wide = images.astype(float)
    contrast = wide.std(axis=(1, 2, 3))
    near = np.zeros((len(images), len(images)), bool)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = wide[:, 1 + down : 15 + down, 1 + right : 15 + right]
            gaps = np.sqrt(((moved[:, None] - wide[None, :, 1:15, 1:15]) ** 2).mean(axis=(2, 3, 4)))
            near |= gaps <= np.minimum(MAX_DIFFERENCE, MAX_SHARE_OF_CONTRAST * np.minimum.outer(contrast, contrast))
    reached = near | near.T
    for _ in range(10):
        reached = reached @ reached
    expected = {tuple(map(int, np.flatnonzero(row))) for row in reached if row.sum() > 1}
    assert 10 < len(expected) < 40
    assert {group.members for group in find_duplicates(images)} == expected


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (2, 1, 1, 1), (5, 3, 3, 3), (3, 9, 200, 1)])
def test_images_of_any_size_and_number(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert find_duplicates(images) == []
    doubled = find_duplicates(np.concatenate([images, images]))
    assert doubled == [Group((index, index + len(images)), exact=True) for index in range(len(images))]


def test_blank_images_are_copies_of_the_same_blank_only():
    blank = np.zeros((2, 8, 8, 1), np.uint8)
    assert find_duplicates(np.concatenate([blank, blank + 1])) == [Group((0, 1), True), Group((2, 3), True)]


def test_images_that_differ_at_their_edge_alone():
    images = np.full((2, 16, 16, 1), 9, np.uint8)
    images[:, 4:12] = 200
    images[1, 0, 0] = 12
    assert find_duplicates(images) == [Group((0, 1), exact=False)]
