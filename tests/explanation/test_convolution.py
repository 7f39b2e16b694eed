"""The filter lab's arithmetic against PyTorch's, and against Keras' rule for padding."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveola.architecture import Step
from foveola.errors import UserError
from foveola.explanation.convolution import KERNELS, LETTERS, convolve, pool, read_kernel
from foveola.layers import AveragePool2D, MaxPool2D
from foveola.models.network import _MODULES

WINDOWS = [(1, 1), (3, 3), (2, 2), (5, 4), (1, 3), (7, 7)]


def drawn(height=9, width=7):
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
def test_convolution_is_pytorchs(window, stride, padding):
    image, kernel = drawn(), np.random.default_rng(1).normal(size=window)
    found = convolve(image, kernel, stride, padding)
    (top, bottom), (left, right) = (
        keras_same(side, size, stride) if padding == "same" else (0, 0)
        for side, size in zip(image.shape, window, strict=True)
    )
    expected = F.conv2d(F.pad(tensor(image), (left, right, top, bottom)), tensor(kernel), stride=stride)[0, 0]
    assert found.edges == (top, left, bottom, right)
    np.testing.assert_allclose(found.output, expected, atol=1e-12)


@pytest.mark.parametrize(("how", "layer"), [("max", MaxPool2D), ("average", AveragePool2D)])
@pytest.mark.parametrize(("size", "stride"), [(1, None), (2, None), (3, 1), (3, 2), (2, 3), (7, None)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_is_that_of_the_layers(how, layer, size, stride, padding):
    image = drawn() - 3  # below zero, so that padding with zeros would show
    settings = layer(size=size, stride=stride, padding=padding)
    shape = (*image.shape, 1)
    module = _MODULES[settings.type](settings, Step("pool", settings, shape, settings.output_shape(shape)))
    expected = module(tensor(image))[0, 0]
    np.testing.assert_allclose(pool(image, how, size, stride, padding).output, expected, rtol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_products_of_every_position_add_up_to_its_output(padding):
    image = drawn()
    found = convolve(image, KERNELS["sharpen"], 2, padding)
    for row, column in np.ndindex(found.output.shape):
        assert found.products(row, column).sum() == pytest.approx(found.output[row, column])
        top, left = found.corner(row, column)
        assert found.field(row, column)[1, 1] == image[top + 1, left + 1]  # the middle lies inside the image


def test_the_receptive_field_shows_what_is_padding():
    found = convolve(drawn(), KERNELS["blur"], 1, "same")
    assert found.corner(0, 0) == (-1, -1)
    assert np.isnan(found.field(0, 0)).tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert found.products(0, 0)[0].tolist() == [0, 0, 0]


def test_a_pooling_has_no_products():
    with pytest.raises(UserError, match="no kernel"):
        pool(drawn(), "max").products(0, 0)


def test_the_diagonal_filter_tells_the_letters_apart():
    """On A's left arm, three pixels of ink lie on the kernel's 2s: 6, the highest value there can be."""
    of_a, of_e = (convolve(LETTERS[letter], KERNELS["diagonal"]).output for letter in "AE")
    assert of_a.max() == 6
    assert [tuple(place) for place in np.argwhere(of_a == 6)] == [(0, 2), (1, 1), (2, 0)]
    assert of_e.max() < 6


def test_the_vertical_filter_finds_the_stem_of_e():
    output = convolve(LETTERS["E"], KERNELS["vertical-edge"]).output
    assert output[1].tolist() == [0, 3, 0, 0, 0, 0, 0]
    assert output.shape == (7, 7)


@pytest.mark.parametrize("letter", LETTERS)
def test_letters_are_zeros_and_ones(letter):
    assert LETTERS[letter].shape == (9, 9)
    assert set(np.unique(LETTERS[letter])) == {0, 1}


# Kernels as text


def test_kernels_by_name_and_as_json():
    assert read_kernel("blur") is KERNELS["blur"]
    np.testing.assert_array_equal(read_kernel(" [[1, -0.5]]"), [[1, -0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vertical", "Did you mean 'vertical-edge'"),
        ("[[1, 2], [3]]", "different lengths: 2, 1"),
        ("[[1, 2]", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[[__import__('os')]]", "no JSON"),
        ("[]", "no list of rows"),
        ("[[]]", "no list of rows"),
        ("[1, 2]", "no list of rows"),
        ('[["1"]]', "something else than numbers"),
        ("[[true]]", "something else than numbers"),
        ("[[null, 1]]", "something else than numbers"),
        ("[[1" + "0" * 400 + "]]", "something else than numbers"),
        ("[[NaN]]", "not finite"),
        ("[[1e999]]", "not finite"),
        ("[[1e7]]", "not finite or beyond 1,000,000"),
    ],
)
def test_bad_kernels_are_named(text, message):
    with pytest.raises(UserError, match=message):
        read_kernel(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolve(np.zeros((1, 1)), KERNELS["blur"]), "kernel is 3×3, the image only 1×1"),
        (lambda: convolve(np.zeros((9, 2)), KERNELS["blur"], padding="same"), "kernel is 3×3, the image only 9×2"),
        (lambda: convolve(drawn(), KERNELS["blur"], 0), "stride of 0 does not move"),
        (lambda: pool(np.zeros((1, 5)), "max"), "window is 2×2, the image only 1×5"),
        (lambda: pool(drawn(), "max", 0), "sees nothing"),
    ],
)
def test_what_does_not_fit_is_said(call, message):
    with pytest.raises(UserError, match=message):
        call()
