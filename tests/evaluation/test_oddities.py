"""Odd images: what is planted is found, by its kind; a plain set has none."""

import numpy as np
import pytest

from foveola.evaluation.oddities import find_oddities
from foveola.images import ImageSet


@pytest.fixture
def usual():
    """80 grey images of 28×28, two classes: an upright and a lying bar, up to a pixel off, with noise of ±3."""
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
    return [(oddity.index, oddity.kind) for oddity in find_oddities(ImageSet(images, labels, ("lying", "upright")))]


def test_usual_images_are_not_odd(usual):
    assert kinds(*usual) == []


def test_each_kind_is_found_on_either_polarity(usual):
    images, labels = usual
    images[3] = 0
    images[10] = 255 - images[10]
    images[21] = 0
    images[21, 9:19, 12:16] = 200
    images[34] = np.roll(images[34], 6, axis=0)
    planted = [(3, "blank"), (10, "inverted"), (21, "mis-sized"), (34, "off-centre")]
    assert kinds(images, labels) == planted
    assert kinds(255 - images, labels) == planted


def test_details_say_what_is_wrong(usual):
    images, labels = usual
    images[21] = 0
    images[21, 9:19, 12:16] = 200
    images[1] = np.roll(images[7], (0, -7), axis=(0, 1))
    sized, moved = find_oddities(ImageSet(images, labels, ("lying", "upright")))
    assert sized.detail == "its ink is 10 pixels long; usual are 20"
    assert sized.score == pytest.approx(np.log(2))
    assert moved.index == 1
    assert "pixels too far left" in moved.detail
    assert 0.2 < moved.score < 0.35


def test_a_bright_thing_that_fills_the_frame_is_not_inverted(usual):
    images, labels = usual
    images[10] = 230
    images[10, :3] = 20
    assert "inverted" not in dict(kinds(images, labels)).values()


def test_a_class_of_its_own_size_is_not_odd(usual):
    """Sizes are compared within a class, and the odd ones do not shift what is usual."""
    images, labels = usual
    small = np.zeros_like(images[labels == 0])
    small[:, 11:17, 11:17] = 150
    images[labels == 0] = small
    images[:24:2, 6:22, 6:22] = 150
    assert kinds(images, labels) == [(index, "mis-sized") for index in range(0, 24, 2)]


def test_of_photographs_only_blank_ones_are_found():
    images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    images[7] = 120
    (found,) = find_oddities(ImageSet(images, np.arange(50) % 2, ("a", "b")))
    assert (found.index, found.kind, found.score) == (7, "blank", 1.0)
    assert found.detail == "0.0 % of its pixels stand out"
