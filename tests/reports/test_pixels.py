"""Numbers as colours: the ends of the scale are exact, and heat maps are visible on every image."""

import numpy as np
import pytest

from foveola.reports.pixels import BLUE, ORANGE, coloured, enlarge, labelled_grid, overlay, shaded, signed


def test_values_are_shaded_from_black_to_white():
    assert shaded(np.array([[0.0, 1.0, 2.0]]), 2.0).tolist() == [[0, 128, 255]]


def test_negative_values_are_blue_and_positive_orange():
    drawn = signed(np.array([[-4.0, 0.0, 4.0]]), 4.0)
    assert drawn.tolist() == [[BLUE.tolist(), [255, 255, 255], ORANGE.tolist()]]


def test_weights_of_rgb_are_colours():
    assert coloured(np.array([[[1.0, -1.0, 0.0]]]), 1.0).tolist() == [[[255, 0, 128]]]


@pytest.mark.parametrize("draw", [shaded, signed])
def test_zeros_are_drawn_without_division_by_zero(draw):
    assert len(np.unique(draw(np.zeros((2, 2)), 0.0))) == 1


def test_without_heat_the_image_stays_grey_and_in_order():
    image = np.arange(0, 256, 15, dtype=np.uint8).reshape(3, 6, 1)
    drawn = overlay(image, np.zeros((3, 6))).astype(int)
    assert (np.ptp(drawn, axis=2) == 0).all()
    assert (np.diff(drawn[..., 0].ravel()) > 0).all()


def test_heat_is_visible_on_black_and_on_white():
    image = np.array([[[0], [255]]], np.uint8)
    hot, cold = overlay(image, np.ones((1, 2))).astype(int), overlay(image, -np.ones((1, 2))).astype(int)
    assert (hot[..., 0] - hot[..., 2] > 100).all()
    assert (cold[..., 2] - cold[..., 0] > 100).all()


def test_a_grid_enlarges_every_tile_by_whole_pixels():
    tiles = [np.full((5, 5), value, np.uint8) for value in range(100, 110)]
    drawn = labelled_grid(tiles, [str(number) for number in range(10)], "title ×")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, 8)
        top, left = 36 + row * (65 + 22), 8 + column * (65 + 8)
        assert (drawn[top : top + 65, left : left + 65] == tile[0, 0]).all()
    assert enlarge(tiles[0], 64).shape == (65, 65)
    assert enlarge(tiles[0], 3).shape == (5, 5)
