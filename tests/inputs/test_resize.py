"""Resizing, shrinking and conversion of channels."""

import numpy as np
import pytest

from foveola.errors import DataError
from foveola.inputs.resize import is_colour, resize, shrink, to_channels


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.fixture
def grey():
    return np.random.default_rng(1).integers(0, 256, (9, 7, 1), dtype=np.uint8)


def test_resize_averages_when_it_shrinks():
    stripes = np.zeros((8, 8, 1), np.uint8)
    stripes[:, ::2] = 200
    small = resize(stripes, 1, 1)
    assert small.shape == (1, 1, 1)
    assert abs(int(small[0, 0, 0]) - 100) <= 5  # sampling without averaging would give 0 or 200


def test_resize_gives_the_requested_shape_and_keeps_constant_images(rgb, grey):
    assert resize(rgb, 9, 7) is rgb
    assert resize(rgb, 4, 6).shape == (4, 6, 3)
    assert resize(grey, 20, 5).shape == (20, 5, 1)
    constant = np.full((5, 5, 3), [1, 2, 3], np.uint8)
    np.testing.assert_array_equal(resize(constant, 3, 11), np.full((3, 11, 3), [1, 2, 3]))


def test_to_channels_repeats_grey_and_weights_rgb(rgb, grey):
    assert to_channels(rgb, 3) is rgb
    weighted = rgb @ np.array([0.299, 0.587, 0.114])
    assert to_channels(rgb, 1).shape == (9, 7, 1)
    assert np.abs(to_channels(rgb, 1)[..., 0] - weighted).max() <= 0.51
    np.testing.assert_array_equal(to_channels(grey, 3), np.concatenate([grey] * 3, 2))
    with pytest.raises(DataError, match="4 channels"):
        to_channels(rgb, 4)


@pytest.mark.parametrize(
    ("shape", "shrunk"),
    [((40, 20, 3), (8, 4, 3)), ((20, 40, 1), (4, 8, 1)), ((8, 3, 1), (8, 3, 1)), ((500, 2, 1), (8, 1, 1))],
)
def test_shrink_limits_the_longer_side_and_keeps_the_aspect_ratio(shape, shrunk):
    assert shrink(np.zeros(shape, np.uint8), 8).shape == shrunk


def test_is_colour_needs_a_pixel_that_is_not_grey(grey):
    assert not is_colour(grey)
    image = np.concatenate([grey] * 3, 2)
    assert not is_colour(image)
    image[4, 5, 2] ^= 1
    assert is_colour(image)
