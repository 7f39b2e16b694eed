"""Duplicates: planted duplicates are found, others are not, and the search equals a comparison of all pairs."""

import numpy as np
import pytest

from foveola.datasets.duplicates import MAX_CONTRAST_FRACTION, MAX_DIFFERENCE, DuplicateGroup, find_duplicates, reduced


def smooth(count, side=16, channels=1, seed=0):
    """Random images without hard edges, uint8 N×H×W×C, each with full contrast."""
    coarse = np.random.default_rng(seed).normal(size=(count, 6, 6, channels))
    rows = np.array([np.interp(np.linspace(0, 5, side), range(6), row) for row in np.eye(6)]).T
    images = np.einsum("yi,nijc,xj->nyxc", rows, coarse, rows)
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return (255 * (images - low) / (high - low)).astype(np.uint8)


def test_distinct_images_have_no_duplicates():
    assert find_duplicates(smooth(300)) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_are_exact_duplicates_at_any_index(channels):
    images = smooth(50, channels=channels)
    images = np.concatenate([images, images[[7, 3, 7]]])
    assert find_duplicates(images) == [DuplicateGroup((3, 51), exact=True), DuplicateGroup((7, 50, 52), exact=True)]


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_an_image_shifted_by_one_pixel_is_a_near_duplicate(down, right):
    images = smooth(50)
    moved = np.roll(images[:1], (down, right), axis=(1, 2))
    if down or right:
        assert find_duplicates(np.concatenate([images, moved])) == [DuplicateGroup((0, 50), exact=False)]


def test_a_shifted_image_with_faint_noise_is_a_near_duplicate():
    images = smooth(50)
    noise = np.random.default_rng(1).integers(-3, 4, images.shape)
    noisy = np.clip(np.roll(images, 1, axis=2) + noise, 0, 255).astype(np.uint8)
    found = find_duplicates(np.concatenate([images, noisy]))
    assert found == [DuplicateGroup((index, index + 50), exact=False) for index in range(50)]


def test_an_image_shifted_by_two_pixels_is_not_a_duplicate():
    images = smooth(20)
    assert find_duplicates(np.concatenate([images, np.roll(images, 2, axis=1)])) == []


def test_a_copy_of_a_near_duplicate_joins_the_group():
    images = smooth(10)
    moved = np.roll(images[:1], 1, axis=1)
    found = find_duplicates(np.concatenate([images, moved, moved, images[:1]]))
    assert found == [DuplicateGroup((0, 10, 11, 12), exact=False)]


def test_faint_images_must_agree_more_closely():
    """With a difference of 4 of 255, images of high contrast are duplicates, and faint images are not."""
    strong = np.zeros((1, 16, 16, 1), np.uint8)
    strong[:, 4:12] = 200
    faint = strong // 20
    speckle = 4 * np.random.default_rng(0).integers(0, 2, strong.shape, dtype=np.uint8)
    assert find_duplicates(np.concatenate([strong, strong + speckle])) == [DuplicateGroup((0, 1), exact=False)]
    assert find_duplicates(np.concatenate([faint, faint + speckle])) == []


def test_the_search_equals_a_comparison_of_all_pairs():
    """The images form clusters with distances on both sides of the limit."""
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
            near |= gaps <= np.minimum(MAX_DIFFERENCE, MAX_CONTRAST_FRACTION * np.minimum.outer(contrast, contrast))
    reached = near | near.T
    for _ in range(10):
        reached = reached @ reached
    expected = {tuple(map(int, np.flatnonzero(row))) for row in reached if row.sum() > 1}
    assert 10 < len(expected) < 40
    assert {group.members for group in find_duplicates(images)} == expected


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (2, 1, 1, 1), (5, 3, 3, 3), (3, 9, 200, 1)])
def test_images_of_any_size_and_number_are_searched(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert find_duplicates(images) == []
    doubled = find_duplicates(np.concatenate([images, images]))
    assert doubled == [DuplicateGroup((index, index + len(images)), exact=True) for index in range(len(images))]


def test_blank_images_are_duplicates_only_of_the_same_grey_level():
    blank = np.zeros((2, 8, 8, 1), np.uint8)
    assert find_duplicates(np.concatenate([blank, blank + 1])) == [
        DuplicateGroup((0, 1), True),
        DuplicateGroup((2, 3), True),
    ]


def test_images_that_differ_only_at_their_edge_are_near_duplicates():
    images = np.full((2, 16, 16, 1), 9, np.uint8)
    images[:, 4:12] = 200
    images[1, 0, 0] = 12
    assert find_duplicates(images) == [DuplicateGroup((0, 1), exact=False)]


def test_images_are_reduced_to_means_of_squares():
    images = np.random.default_rng(0).integers(0, 256, (5, 11, 8, 3), dtype=np.uint8)
    expected = np.empty((5, 3, 2, 3))
    for row, column in np.ndindex(3, 2):
        square = images[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].astype(float)
        expected[:, row, column] = square.mean(axis=(1, 2))
    found = reduced(images, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(expected))
    assert reduced(images, 1) is not None and (reduced(images, 1) == images).all()
