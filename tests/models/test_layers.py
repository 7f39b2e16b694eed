"""The output shape of each layer, against brute force."""

import pytest
from pydantic import ValidationError

from foveola.models.layers import (
    Activate,
    AveragePool2D,
    Conv2D,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    MaxPool2D,
)


@pytest.mark.parametrize("side", [5, 6, 7, 11])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_output_sides_count_the_positions_of_the_window(side, size, stride):
    valid = len([start for start in range(0, side, stride) if start + size <= side])
    same = len(range(0, side, stride))
    for padding, positions in (("valid", valid), ("same", same)):
        for layer in (
            Conv2D(filters=2, kernel=size, stride=stride, padding=padding),
            MaxPool2D(size=size, stride=stride, padding=padding),
            AveragePool2D(size=size, stride=stride, padding=padding),
        ):
            rows, columns, _ = layer.output_shape((side, 2 * side, 2))
            assert rows == positions
            assert columns == layer.output_shape((2 * side, 2 * side, 2))[0]


def test_the_stride_of_a_pooling_is_its_size_by_default():
    assert MaxPool2D(size=3).output_shape((9, 10, 2)) == (3, 3, 2)
    assert MaxPool2D(size=3, stride=1).output_shape((9, 10, 2)) == (7, 8, 2)


def test_global_pooling_and_flatten():
    assert GlobalMaxPool2D().output_shape((4, 5, 6)) == (6,)
    assert GlobalAveragePool2D().output_shape((4, 5, 6)) == (6,)
    assert Flatten().output_shape((4, 5, 6)) == (120,)


def test_a_slope_belongs_to_leaky_relu():
    assert Activate(function="leaky-relu", slope=0.3).settings_text() == "leaky-relu, slope 0.3"
    with pytest.raises(ValidationError, match="slope belongs to leaky-relu, not to relu"):
        Activate(function="relu", slope=0.3)
