"""Numbers as colours: nothing is hidden, ends of the scale are exact."""

import numpy as np
import pytest

from foveola.report.shades import BLUE, ORANGE, coloured, enlarged, labelled_grid, laid_over, shaded, signed


def test_from_black_to_white():
    assert shaded(np.array([[0.0, 1.0, 2.0]]), 2.0).tolist() == [[0, 128, 255]]


def test_below_zero_is_blue_above_is_orange():
    drawn = signed(np.array([[-4.0, 0.0, 4.0]]), 4.0)
    assert drawn.tolist() == [[BLUE.tolist(), [255, 255, 255], ORANGE.tolist()]]


def test_weights_of_colours_are_colours():
    assert coloured(np.array([[[1.0, -1.0, 0.0]]]), 1.0).tolist() == [[[255, 0, 128]]]


@pytest.mark.parametrize("draw", [shaded, signed])
def test_where_all_is_zero_nothing_is_divided_by_it(draw):
    assert len(np.unique(draw(np.zeros((2, 2)), 0.0))) == 1


def test_no_heat_leaves_the_image_grey_and_in_order():
    image = np.arange(0, 256, 15, dtype=np.uint8).reshape(3, 6, 1)
    drawn = laid_over(image, np.zeros((3, 6))).astype(int)
    assert (np.ptp(drawn, axis=2) == 0).all()
    assert (np.diff(drawn[..., 0].ravel()) > 0).all()


def test_heat_is_seen_on_black_and_on_white():
    image = np.array([[[0], [255]]], np.uint8)
    hot, cold = laid_over(image, np.ones((1, 2))).astype(int), laid_over(image, -np.ones((1, 2))).astype(int)
    assert (hot[..., 0] - hot[..., 2] > 100).all()
    assert (cold[..., 2] - cold[..., 0] > 100).all()


def test_a_grid_holds_every_tile_in_whole_pixels():
    tiles = [np.full((5, 5), value, np.uint8) for value in range(100, 110)]
    drawn = labelled_grid(tiles, [str(number) for number in range(10)], "title ×")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, 8)
        top, left = 36 + row * (65 + 22), 8 + column * (65 + 8)
        assert (drawn[top : top + 65, left : left + 65] == tile[0, 0]).all()
    assert enlarged(tiles[0], 64).shape == (65, 65)
    assert enlarged(tiles[0], 3).shape == (5, 5)
