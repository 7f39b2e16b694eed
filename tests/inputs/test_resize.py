"""Resizing, shrinking and conversion of channels."""

import numpy as np
import pytest

from foveola.errors import DataError
from foveola.images import letterbox_place
from foveola.inputs.resize import (
    CommonShape,
    choose_fill,
    choose_resize,
    common_size,
    describe_resize,
    is_colour,
    letterbox,
    resize,
    shrink,
    to_channels,
)


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


@pytest.mark.parametrize(
    ("size", "box", "place"),
    [
        ((100, 300), (64, 64), (21, 0, 21, 64)),
        ((300, 100), (64, 64), (0, 21, 64, 21)),
        ((113, 150), (64, 64), (8, 0, 48, 64)),
        ((1, 10_000), (28, 28), (13, 0, 1, 28)),  # at least one row
        ((7, 9), (7, 9), (0, 0, 7, 9)),
        ((32, 64), (16, 32), (0, 0, 16, 32)),
        ((3, 8), (4, 4), (1, 0, 2, 4)),  # 1.5 rows: halves are rounded up, and the smaller half of the rest is above
        ((8, 8), (5, 8), (0, 1, 5, 5)),
    ],
)
def test_the_place_in_a_letterbox_keeps_the_aspect(size, box, place):
    assert letterbox_place(size, *box) == place


def test_a_letterbox_holds_the_resized_image_and_the_grey_level(rgb):
    box = letterbox(rgb, 12, 20, 77)  # 9×7 → 12×9
    np.testing.assert_array_equal(box[:, 5:14], resize(rgb, 12, 9))
    assert (np.delete(box, slice(5, 14), axis=1) == 77).all()
    assert letterbox(rgb, 9, 7, 77).tobytes() == rgb.tobytes()


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_an_image_may_be_reduced_before_its_shape_is_complete(mode):
    random = np.random.default_rng(0)
    for _ in range(50):
        image = random.integers(0, 256, (*random.integers(1, 90, 2), 1), dtype=np.uint8)
        shape = CommonShape(*map(int, random.integers(4, 40, 2)), mode, 9)
        reduced = resize(image, *shape.reduced_size(*image.shape[:2]))
        np.testing.assert_array_equal(shape.fit(reduced), shape.fit(image))


def test_aspects_decide_the_common_size():
    assert common_size([], 64) == (64, 64)
    assert common_size([(100, 300)] * 9, 64) == (37, 111)
    assert common_size([(100, 300)] * 19 + [(100, 100)], 64) == (37, 111)  # 5 %
    assert common_size([(100, 300)] * 18 + [(100, 100)] * 2, 64) == (64, 64)
    assert common_size([(384, 512)] * 5 + [(512, 384)] * 5, 64) == (64, 64)
    assert common_size([(100, 124)] * 9, 64) == (64, 64)
    assert common_size([(10, 1000)], 64) == (32, 128)


def test_aspects_decide_between_stretching_and_a_letterbox():
    assert choose_resize([(100, 125)] * 9, (64, 64)) == "stretch"
    assert choose_resize([(100, 126)] * 9, (64, 64)) == "letterbox"
    assert choose_resize([(100, 100)] * 19 + [(100, 300)], (64, 64)) == "stretch"
    assert choose_resize([(100, 100)] * 18 + [(100, 300)] * 2, (64, 64)) == "letterbox"
    assert choose_resize([(100, 300)] * 9, (16, 48)) == "stretch"
    assert choose_resize([], (64, 64)) == "stretch"


def test_what_resizing_does_to_aspects_is_said_where_they_change():
    assert describe_resize([(50, 50), (90, 100)], CommonShape(64, 64), chosen=True) == ()
    assert describe_resize([(20, 60)], CommonShape(20, 60), chosen=True) == ()
    (note,) = describe_resize([(70, 210)], CommonShape(37, 111), chosen=True)
    assert "37×111 pixels (height × width)" in note
    (note,) = describe_resize([(100, 300), (50, 50)], CommonShape(64, 64), chosen=False)
    assert note.startswith("1 of 2 images are stretched to 64×64")
    (note,) = describe_resize([(100, 300), (50, 50)], CommonShape(64, 64, "letterbox", 255), chosen=False)
    assert "grey level 255" in note


def test_much_detail_that_nobody_asked_to_lose_is_said():
    photographs = [(1500, 2000)] * 3 + [(20, 20)]
    (note,) = describe_resize(photographs, CommonShape(64, 64, "stretch"), chosen=True)[-1:]
    assert note.startswith(
        "Images of about 1,500×2,000 pixels are reduced to 64×64 (height × width). --set image_size=160 "
    )
    assert describe_resize([(1500, 1500)], CommonShape(64, 64), chosen=False) == ()
    assert describe_resize([(127, 127)], CommonShape(64, 64), chosen=True) == ()
    (note,) = describe_resize([(130, 130)], CommonShape(64, 64), chosen=True)
    assert "--set image_size=130 " in note


def test_a_letterbox_takes_the_background_that_images_have_in_common():
    def paper(level, count):
        return [np.full((9, 9, 1), level, np.uint8)] * count

    assert choose_fill(paper(250, 5)) == (250, "dark on light")
    assert choose_fill(paper(3, 5)) == (3, "light on dark")
    assert choose_fill(paper(3, 5) + paper(200, 5)) == (0, "mixed")
    assert choose_fill(paper(120, 5)) == (0, "mixed")


def test_is_colour_needs_a_pixel_that_is_not_grey(grey):
    assert not is_colour(grey)
    image = np.concatenate([grey] * 3, 2)
    assert not is_colour(image)
    image[4, 5, 2] ^= 1
    assert is_colour(image)
