"""ONNX graphs agree with PyTorch for every layer, activation, padding, preprocessing and recipe."""

import numpy as np
import onnx as onnx_format
import pytest
import torch
from PIL import Image

from foveola.errors import DataError
from foveola.exports import onnx
from foveola.models.layers import LAYERS
from foveola.models.modules import ACTIVATIONS
from foveola.recipe import recipe_names

END = [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]
SAME, RELU = {"padding": "same"}, {"type": "Activation", "function": "relu"}
CONV, NORM, MAX = {"type": "Conv2D", "filters": 6}, {"type": "BatchNorm"}, {"type": "MaxPool2D"}
STACKS = {
    "Conv2D": [CONV, *END],
    "Conv2D same": [{**CONV, **SAME, "kernel": 4, "activation": "relu"}, *END],
    "Conv2D stride": [{**CONV, **SAME, "stride": 2}, {**CONV, "kernel": 2, "stride": 3}, *END],
    "Conv2D stride beyond its kernel": [{**CONV, **SAME, "kernel": 1, "stride": 2, "bias": False}, *END],
    "Conv2D beyond the image": [{**CONV, **SAME, "kernel": 11}, *END],
    "MaxPool2D": [CONV, MAX, *END],
    "MaxPool2D same, all negative": [{**CONV, "activation": "elu"}, {**MAX, **SAME, "size": 4, "stride": 3}, *END],
    "MaxPool2D overlapping": [{**MAX, "size": 3, "stride": 2}, *END],
    "AveragePool2D": [CONV, {"type": "AveragePool2D"}, *END],
    "AveragePool2D same": [CONV, {"type": "AveragePool2D", **SAME, "size": 3, "stride": 2}, *END],
    "AveragePool2D same, even": [CONV, {"type": "AveragePool2D", **SAME, "size": 4, "stride": 1}, *END],
    "GlobalMaxPool2D": [CONV, {"type": "GlobalMaxPool2D"}, *END],
    "GlobalAveragePool2D": [CONV, {"type": "GlobalAveragePool2D"}, *END[1:]],
    "GlobalAveragePool2D last": [{**CONV, "filters": 3}, {"type": "GlobalAveragePool2D"}],
    "BatchNorm first": [NORM, CONV, *END],
    "BatchNorm after Conv2D": [{**CONV, "bias": False}, NORM, RELU, *END],
    "BatchNorm after an activation": [{**CONV, "activation": "relu"}, NORM, *END],
    "BatchNorm after MaxPool2D": [{**CONV, "bias": False}, MAX, {"type": "Dropout", "rate": 0.5}, NORM, RELU, *END],
    "BatchNorm after AveragePool2D": [CONV, {"type": "AveragePool2D", **SAME}, NORM, RELU, *END],
    "BatchNorm after GlobalMaxPool2D": [CONV, {"type": "GlobalMaxPool2D"}, NORM, RELU, *END[1:]],
    "BatchNorm after GlobalAveragePool2D": [CONV, {"type": "GlobalAveragePool2D"}, NORM, RELU, *END[1:]],
    "BatchNorm after Flatten": [CONV, END[0], NORM, END[1]],
    "BatchNorm after Dense": [END[0], {"type": "Dense", "units": 5}, NORM, RELU, END[1]],
    "BatchNorm after Dense with an activation": [
        END[0],
        {"type": "Dense", "units": 5, "activation": "tanh", "bias": False},
        NORM,
        END[1],
    ],
    "BatchNorm twice": [CONV, NORM, MAX, NORM, *END],
    "BatchNorm last": [*END, NORM],
    "Dropout": [CONV, {"type": "Dropout", "rate": 0.5}, *END],
    "Flatten twice": [CONV, END[0], *END],
    "Flatten last": [{**CONV, "filters": 2, "kernel": 7, "stride": 9}, {"type": "Flatten"}, RELU, NORM],
    "Dense": [END[0], {"type": "Dense", "units": 7, "activation": "relu", "bias": False}, END[1]],
    "Conv2D symmetric": [{**CONV, "kernel": 4, "stride": 2, "padding": "symmetric"}, *END],
    "MaxPool2D symmetric": [CONV, {**MAX, "size": 3, "stride": 2, "padding": "symmetric"}, *END],
    "DepthwiseConv2D": [CONV, {"type": "DepthwiseConv2D", **SAME, "stride": 2, "bias": False}, NORM, RELU, *END],
    "Residual": [
        CONV,
        {"type": "Residual", "activation": "relu6", "layers": [{**CONV, **SAME}, NORM, RELU, {**CONV, **SAME}, NORM]},
        {
            "type": "Residual",
            "layers": [{**CONV, **SAME, "filters": 4, "stride": 2}],
            "projection": [{**CONV, "filters": 4, "kernel": 1, "stride": 2, "bias": False}, NORM],
        },
        NORM,
        *END,
    ],
    "Residual of a vector": [
        {"type": "GlobalAveragePool2D"},
        {"type": "Dense", "units": 5},
        {"type": "Residual", "layers": [{"type": "Dense", "units": 5, "activation": "hard-swish"}]},
        END[1],
    ],
    "Residual last": [*END, {"type": "Residual", "layers": [{"type": "Dropout", "rate": 0.5}]}],
    "Activation last": [*END, {"type": "Activation", "function": "tanh"}],
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stack", STACKS)
def test_every_layer_agrees(agree, stack, channels):
    agree(STACKS[stack], (7, 10, channels), 2 if stack == "Flatten last" else 3)


def test_the_stacks_cover_every_layer():
    assert {layer["type"] for stack in STACKS.values() for layer in stack} == set(LAYERS)


def test_flatten_as_the_last_layer_keeps_the_order_of_values(agree):
    agree([{**CONV, "filters": 2, "kernel": 2, "stride": 4}, {"type": "Flatten"}], (7, 10, 1), 12)


@pytest.mark.parametrize("function", ACTIVATIONS)
@pytest.mark.parametrize("layer", ["Conv2D", "Dense", "Activation"])
def test_every_activation_agrees(agree, function, layer):
    conv = {**CONV, "activation": function if layer == "Conv2D" else "linear"}
    dense = {"type": "Dense", "units": 5, "activation": function if layer == "Dense" else "linear"}
    alone = {"type": "Activation", "function": function if layer == "Activation" else "linear"}
    agree([conv, alone, NORM, END[0], dense, END[1]], (5, 6, 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scaling", ["unit", "standard"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_black_pixels_are_added_before_scaling(agree, channels, scaling, padding):
    stack = [{**CONV, "padding": padding}, *END]
    agree(stack, (6, 5, channels), pad=2, scaling=scaling)


# In colour only, because these take seconds
PHOTOGRAPHS = ("efficientnet-lite0", "resnet18")


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        (name, shape)
        for name in recipe_names()
        for shape in ((28, 28, 1), (32, 32, 3))
        if name not in PHOTOGRAPHS or shape[2] == 3
    ],
)
def test_every_recipe_agrees(agree, recipe, shape):
    agree(recipe, shape, 10)


# Folding


def operators(path):
    return [node.op_type for node in onnx_format.load(path).graph.node]


def test_batch_norm_with_positive_scales_is_folded(agree):
    """The only BatchNormalization node left is the scaling of the images."""
    assert operators(agree("strong", (28, 28, 1), 10, sign=1)).count("BatchNormalization") == 1


def test_batch_norm_with_negative_scales_is_not_folded_across_a_maximum(agree):
    assert operators(agree("strong", (28, 28, 1), 10)).count("BatchNormalization") == 1 + 3


def test_the_temperature_is_folded_into_a_dense_layer(agree):
    assert "Mul" not in operators(agree("west", (28, 28, 1), 10))


# Images of any size and colour


@pytest.fixture(scope="module")
def identity(classifier_of):
    """A network whose logits are its input: 8×8 pixels, from 0 to 1."""

    def make(channels="data", colours=1):
        values = 64 * colours
        classifier = classifier_of(END, (8, 8, colours), values, scaling="unit", channels=channels)
        classifier.metadata = classifier.metadata.model_copy(update={"temperature": 1.0})
        with torch.no_grad():
            classifier.network.dense_1.weight.copy_(torch.eye(values))
            classifier.network.dense_1.bias.zero_()
        return classifier

    return make


def check_grey_levels(classifier, path, images):
    """Neither model rounds its preprocessing, so grey levels agree to a hundredth."""
    expected, found = (255 * model.predict_logits(images) for model in (classifier, onnx.open(path)))
    difference = np.abs(found - expected)
    assert np.ptp(expected) > 9
    assert difference.max() < 0.01


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (5, 9), (1, 1), (31, 40), (3, 100), (300, 200)])
def test_images_of_any_size_are_resized(identity, images_of, write, size, colours):
    classifier = identity(colours=colours)
    check_grey_levels(classifier, write(classifier), images_of((*size, colours)))


def test_colour_images_become_grey_if_the_recipe_says_so(identity, images_of, write):
    classifier = identity(channels="grey")
    path = write(classifier)
    colours = images_of((8, 8, 3))
    check_grey_levels(classifier, path, colours)
    luma = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colours]).reshape(len(colours), -1)
    assert np.abs(255 * onnx.open(path).predict_logits(colours) - luma).max() < 0.51
    check_grey_levels(classifier, path, images_of((20, 13, 3)))
    check_grey_levels(classifier, path, images_of((8, 8, 1)))
    check_grey_levels(classifier, path, images_of((20, 13, 1)))


def test_grey_images_are_accepted_by_a_colour_model(identity, images_of, write):
    classifier = identity(colours=3)
    check_grey_levels(classifier, write(classifier), images_of((8, 8, 1)))


def test_colour_images_are_refused_by_a_grey_model(identity, images_of, write):
    classifier = identity()
    images = images_of((8, 8, 3))
    with pytest.raises(DataError) as expected:
        classifier.predict_logits(images)
    with pytest.raises(DataError) as refused:
        onnx.open(write(classifier)).predict_logits(images)
    assert str(refused.value) == str(expected.value)
