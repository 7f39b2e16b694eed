"""Convolution and pooling of the filter lab agree with PyTorch, and padding with Keras."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveola.errors import UserError
from foveola.explanation.convolution import KERNELS, LETTERS, convolve, pool, read_kernel
from foveola.models.layers import AveragePool2D, MaxPool2D
from foveola.models.modules import _MODULES
from foveola.models.shapes import LayerInfo

WINDOWS = [(1, 1), (3, 3), (2, 2), (5, 4), (1, 3), (7, 7)]


def random_image(height=9, width=7):
    return np.random.default_rng(0).normal(size=(height, width))


def tensor(image):
    return torch.from_numpy(image)[None, None]


def keras_same(side, size, stride):
    """Pixels before and after, from TensorFlow's documentation of "same"."""
    total = max(size - stride, 0) if side % stride == 0 else max(size - side % stride, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolution_agrees_with_pytorch(window, stride, padding):
    image, kernel = random_image(), np.random.default_rng(1).normal(size=window)
    result = convolve(image, kernel, stride, padding)
    (top, bottom), (left, right) = (
        keras_same(side, size, stride) if padding == "same" else (0, 0)
        for side, size in zip(image.shape, window, strict=True)
    )
    expected = F.conv2d(F.pad(tensor(image), (left, right, top, bottom)), tensor(kernel), stride=stride)[0, 0]
    assert result.pad_widths == (top, left, bottom, right)
    np.testing.assert_allclose(result.output, expected, atol=1e-12)


@pytest.mark.parametrize(("operation", "layer"), [("max", MaxPool2D), ("average", AveragePool2D)])
@pytest.mark.parametrize(("size", "stride"), [(1, None), (2, None), (3, 1), (3, 2), (2, 3), (7, None)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_agrees_with_the_layers(operation, layer, size, stride, padding):
    image = random_image() - 3  # negative, so that padding with zeros would make a difference
    settings = layer(size=size, stride=stride, padding=padding)
    shape = (*image.shape, 1)
    module = _MODULES[settings.type](settings, LayerInfo("pool", settings, shape, settings.output_shape(shape)))
    expected = module(tensor(image))[0, 0]
    np.testing.assert_allclose(pool(image, operation, size, stride, padding).output, expected, rtol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_products_at_every_position_sum_to_its_output(padding):
    image = random_image()
    result = convolve(image, KERNELS["sharpen"], 2, padding)
    for row, column in np.ndindex(result.output.shape):
        assert result.products(row, column).sum() == pytest.approx(result.output[row, column])
        top, left = result.corner(row, column)
        assert result.field(row, column)[1, 1] == image[top + 1, left + 1]  # the center is inside the image


def test_padding_is_nan_in_the_receptive_field():
    result = convolve(random_image(), KERNELS["blur"], 1, "same")
    assert result.corner(0, 0) == (-1, -1)
    assert np.isnan(result.field(0, 0)).tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert result.products(0, 0)[0].tolist() == [0, 0, 0]


def test_pooling_has_no_products():
    with pytest.raises(UserError, match="no kernel"):
        pool(random_image(), "max").products(0, 0)


def test_the_diagonal_filter_distinguishes_the_letters():
    """On the left arm of A, three foreground pixels meet the kernel's 2s: 6, the highest possible value."""
    output_a, output_e = (convolve(LETTERS[letter], KERNELS["diagonal"]).output for letter in "AE")
    assert output_a.max() == 6
    assert [tuple(position) for position in np.argwhere(output_a == 6)] == [(0, 2), (1, 1), (2, 0)]
    assert output_e.max() < 6


def test_the_vertical_filter_finds_the_stem_of_e():
    output = convolve(LETTERS["E"], KERNELS["vertical-edge"]).output
    assert output[1].tolist() == [0, 3, 0, 0, 0, 0, 0]
    assert output.shape == (7, 7)


@pytest.mark.parametrize("letter", LETTERS)
def test_letters_are_zeros_and_ones(letter):
    assert LETTERS[letter].shape == (9, 9)
    assert set(np.unique(LETTERS[letter])) == {0, 1}


# Kernels from text


def test_kernels_are_read_by_name_and_from_json():
    assert read_kernel("blur") is KERNELS["blur"]
    np.testing.assert_array_equal(read_kernel(" [[1, -0.5]]"), [[1, -0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vertical", "Did you mean 'vertical-edge'"),
        ("[[1, 2], [3]]", "different lengths: 2, 1"),
        ("[[1, 2]", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[[__import__('os')]]", "not valid JSON"),
        ("[]", "not a list of rows"),
        ("[[]]", "not a list of rows"),
        ("[1, 2]", "not a list of rows"),
        ('[["1"]]', "something that is not a number"),
        ("[[true]]", "something that is not a number"),
        ("[[null, 1]]", "something that is not a number"),
        ("[[1" + "0" * 400 + "]]", "something that is not a number"),
        ("[[NaN]]", "not finite"),
        ("[[1e999]]", "not finite"),
        ("[[1e7]]", "not finite or larger than 1,000,000"),
    ],
)
def test_invalid_kernels_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_kernel(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolve(np.zeros((1, 1)), KERNELS["blur"]), "kernel is 3×3, but the image is only 1×1"),
        (
            lambda: convolve(np.zeros((9, 2)), KERNELS["blur"], padding="same"),
            "kernel is 3×3, but the image is only 9×2",
        ),
        (lambda: convolve(random_image(), KERNELS["blur"], 0), "stride is 0, but must be at least 1"),
        (lambda: pool(np.zeros((1, 5)), "max"), "window is 2×2, but the image is only 1×5"),
        (lambda: pool(random_image(), "max", 0), "window of 0 pixels is empty"),
    ],
)
def test_windows_and_strides_that_do_not_fit_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
