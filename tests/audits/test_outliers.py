"""Outliers: planted outliers are found with their kind; a regular set has none."""

import numpy as np
import pytest

from foveola.audits.outliers import find_outliers
from foveola.images import ImageSet


@pytest.fixture
def regular():
    """80 grey images of 28×28 in two classes, upright and lying bars, shifted by up to a pixel, with noise of ±3."""
    random = np.random.default_rng(0)
    images = np.zeros((80, 28, 28), np.int64)
    labels = np.arange(80) % 2
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(-1, 2, 2)
        long, wide = slice(4 + top, 24 + top), slice(10 + left, 18 + left)
        image[(long, wide) if label else (wide, long)] = random.integers(60, 250)
    images += random.integers(-3, 4, images.shape)
    return np.clip(images, 0, 255).astype(np.uint8)[..., None], labels


def kinds(images, labels):
    return [(outlier.index, outlier.kind) for outlier in find_outliers(ImageSet(images, labels, ("lying", "upright")))]


def test_a_regular_set_has_no_outliers(regular):
    assert kinds(*regular) == []


def test_each_kind_is_found_at_either_polarity(regular):
    images, labels = regular
    images[3] = 0
    images[10] = 255 - images[10]
    images[21] = 0
    images[21, 9:19, 12:16] = 200
    images[34] = np.roll(images[34], 6, axis=0)
    planted = [(3, "blank"), (10, "inverted"), (21, "mis-sized"), (34, "off-centre")]
    assert kinds(images, labels) == planted
    assert kinds(255 - images, labels) == planted


def test_details_say_how_an_image_differs(regular):
    images, labels = regular
    images[21] = 0
    images[21, 9:19, 12:16] = 200
    images[1] = np.roll(images[7], (0, -7), axis=(0, 1))
    sized, moved = find_outliers(ImageSet(images, labels, ("lying", "upright")))
    assert sized.detail == "its foreground is 10 pixels long; 20 are typical"
    assert sized.score == pytest.approx(np.log(2))
    assert moved.index == 1
    assert "pixels too far left" in moved.detail
    assert 0.2 < moved.score < 0.35


def test_a_bright_foreground_that_fills_the_frame_is_not_inverted(regular):
    images, labels = regular
    images[10] = 230
    images[10, :3] = 20
    assert "inverted" not in dict(kinds(images, labels)).values()


def test_sizes_are_compared_within_a_class(regular):
    """A class of small images has no outliers but its large ones, which do not shift the typical size."""
    images, labels = regular
    small = np.zeros_like(images[labels == 0])
    small[:, 11:17, 11:17] = 150
    images[labels == 0] = small
    images[:24:2, 6:22, 6:22] = 150
    assert kinds(images, labels) == [(index, "mis-sized") for index in range(0, 24, 2)]


def test_in_photographs_only_blank_images_are_found():
    images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    images[7] = 120
    (found,) = find_outliers(ImageSet(images, np.arange(50) % 2, ("a", "b")))
    assert (found.index, found.kind, found.score) == (7, "blank", 1.0)
    assert found.detail == "0.0 % of its pixels stand out"
