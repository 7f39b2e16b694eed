"""Shapes and costs of networks, against published counts and PyTorch."""

import math

import pytest
import torch

from foveola.errors import RecipeError
from foveola.models.layers import (
    LAYERS,
    Activate,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    MaxPool2D,
    Residual,
    plain_layers,
)
from foveola.models.modules import build_network
from foveola.models.shapes import all_layers, infer_shapes
from foveola.recipe import load_recipe, recipe_names

HEAD = (Flatten(), Dense(units="classes"))
EVERY_LAYER = (
    Conv2D(filters=5, kernel=3, stride=2, padding="same", activation="relu"),
    BatchNorm(),
    MaxPool2D(size=2, padding="same"),
    Conv2D(filters=4, kernel=2, bias=False),
    AveragePool2D(size=3, stride=1, padding="same"),
    Dropout(rate=0.1),
    Activate(function="gelu"),
    Residual(layers=(DepthwiseConv2D(padding="symmetric"), BatchNorm()), activation="hard-swish"),
    GlobalAveragePool2D(),
    Dense(units=7, activation="tanh"),
    BatchNorm(),
    Flatten(),
    Dense(units="classes", bias=False),
)


def count_parameters(layers, shape, classes=10):
    infos = infer_shapes(layers, shape, classes)
    return sum(info.parameters for info in infos), sum(info.buffers for info in infos)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("lenet5", 61_706),  # LeCun et al., 1998, with a fully connected second convolution
        ("west", 693_962),
        ("eduonix", 47_090),
        ("mlp", (784 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 10),
    ],
)
def test_parameter_counts_are_the_published_ones(name, published):
    recipe = load_recipe(name)
    side = 28 + 2 * recipe.pad
    assert count_parameters(recipe.layers, (side, side, 1)) == (published, 0)


@pytest.mark.parametrize(
    ("name", "side", "classes", "parameters", "multiply_adds"),
    [
        ("resnet20", 32, 10, 272_282, 41.0e6),  # He et al., 2016: 0.27 M; 41 M multiply-adds
        ("resnet18", 224, 1000, 11_689_512, 1.82e9),  # torchvision's; He et al.: 1.8 billion
        ("efficientnet-lite0", 224, 1000, 4_652_008, 0.392e9),  # Google's: 4.7 M, 407 M with their normalisation
    ],
)
def test_costs_of_residual_networks_are_the_published_ones(name, side, classes, parameters, multiply_adds):
    infos = infer_shapes(load_recipe(name).layers, (side, side, 3), classes)
    assert sum(info.parameters for info in infos) == parameters
    assert sum(info.multiply_adds for info in infos) == pytest.approx(multiply_adds, rel=0.005)


BLOCK = Residual(
    layers=(Conv2D(filters=8, padding="same", stride=2), BatchNorm(), DepthwiseConv2D(padding="same")),
    projection=(Conv2D(filters=8, kernel=1, stride=2),),
)


def test_a_residual_layer_counts_what_is_inside_it():
    (block, *_) = infer_shapes((BLOCK, *HEAD), (9, 12, 3), 5)
    assert [info.name for info in all_layers([block])] == [
        "residual_1",
        "residual_1.layers.conv2d_1",
        "residual_1.layers.batchnorm_1",
        "residual_1.layers.depthwiseconv2d_1",
        "residual_1.projection.conv2d_1",
    ]
    assert block.output_shape == (5, 6, 8)
    assert block.parameters == (27 * 8 + 8) + 16 + (9 * 8 + 8) + (3 * 8 + 8)
    assert block.buffers == 16
    assert block.multiply_adds == 30 * 27 * 8 + 30 * 8 + 30 * 8 * 9 + 30 * 3 * 8


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            Residual(layers=(Conv2D(filters=3), Flatten())),
            r"Layer 1 \(residual_1\) got the shape 9×12×3: layers\[0\].layers give 210, which cannot be",
        ),
        (
            Residual(layers=(BatchNorm(), Dense(units=5))),
            r"layers\[0\].layers\[1\] \(Dense\) got the shape 9×12×3: it takes a vector",
        ),
        (
            Residual(layers=(BatchNorm(),), projection=(Flatten(), Conv2D(filters=2))),
            r"layers\[0\].projection\[1\] \(Conv2D\) got the shape 324: it takes images",
        ),
        (Residual(layers=(Dense(units="classes"),)), r'layers\[0\].layers\[0\] \(Dense\) has units = "classes"'),
    ],
)
def test_a_layer_inside_another_is_named_by_its_place(block, message):
    with pytest.raises(RecipeError, match=message):
        infer_shapes((block, *HEAD), (9, 12, 3), 5)


def test_lenet5_pads_to_32():
    recipe = load_recipe("lenet5")
    infos = infer_shapes(recipe.layers, (28 + 2 * recipe.pad,) * 2 + (1,), 10)
    assert infos[0].input_shape == (32, 32, 1)
    assert [info.output_shape for info in infos] == [
        (28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (400,), (120,), (84,), (10,),
    ]  # fmt: skip
    assert [info.parameters for info in infos] == [156, 0, 2416, 0, 0, 48120, 10164, 850]


def test_multiply_adds_count_every_product():
    infos = infer_shapes((Conv2D(filters=4, kernel=3, stride=2, padding="same"), *HEAD), (7, 5, 3), 10)
    # every output value of a convolution: kernel × kernel × input channels products
    assert infos[0].multiply_adds == (4 * 3 * 4) * (3 * 3 * 3)
    assert infos[2].multiply_adds == 48 * 10


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            (MaxPool2D(), MaxPool2D(), MaxPool2D(), *HEAD),
            r"Layer 3 \(maxpool2d_3\) got the shape 1×1×1: its 2×2 window",
        ),
        ((Conv2D(filters=3, kernel=5), *HEAD), r"Layer 1 \(conv2d_1\) got the shape 4×4×1: its 5×5 window"),
        ((Flatten(), Conv2D(filters=3), *HEAD), r"Layer 2 \(conv2d_1\) got the shape 16: it takes images"),
        ((Flatten(), MaxPool2D(), *HEAD), r"Layer 2 \(maxpool2d_1\) got the shape 16: it takes images"),
        ((Flatten(), GlobalMaxPool2D()), r"Layer 2 \(globalmaxpool2d_1\) got the shape 16: it takes images"),
        (
            (Conv2D(filters=3), Dense(units=3)),
            r"Layer 2 \(dense_1\) got the shape 2×2×3: it takes a vector of features",
        ),
        ((Flatten(),), "The output shape of the network is 16, but there are 10 classes"),
        ((Conv2D(filters=10),), "The output shape of the network is 2×2×10, but there are 10 classes"),
        ((Flatten(), Dense(units=9)), "The output shape of the network is 9, but there are 10 classes"),
        ((), "The output shape of the network is 4×4×1, but there are 10 classes"),
    ],
)
def test_an_error_names_the_layer_and_its_input_shape(layers, message):
    with pytest.raises(RecipeError, match=message):
        infer_shapes(layers, (4, 4, 1), 10)


def test_layer_names_are_numbered_by_type():
    names = [info.name for info in infer_shapes((Conv2D(filters=2), Conv2D(filters=2), *HEAD), (8, 8, 1), 3)]
    assert names == ["conv2d_1", "conv2d_2", "flatten_1", "dense_1"]


def test_every_layer_is_tested():
    missing = LAYERS.keys() - {layer.type for layer in (*EVERY_LAYER, *plain_layers(EVERY_LAYER))}
    assert missing == {"GlobalMaxPool2D"}  # two global poolings cannot follow each other


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        *((load_recipe(name).layers, (28 + 2 * load_recipe(name).pad,) * 2 + (1,)) for name in recipe_names()),
        *((load_recipe(name).layers, (33, 35, 3)) for name in recipe_names()),
        (EVERY_LAYER, (13, 10, 3)),
        ((GlobalMaxPool2D(), *EVERY_LAYER[9:]), (13, 10, 3)),
    ],
)
def test_counts_and_shapes_match_pytorch(layers, shape):
    infos = infer_shapes(layers, shape, 6)
    network = build_network(infos).eval()
    trained = sum(parameter.numel() for parameter in network.parameters())
    running = [buffer for name, buffer in network.named_buffers() if "running" in name]
    assert count_parameters(layers, shape, 6) == (trained, sum(buffer.numel() for buffer in running))
    x = torch.zeros(2, shape[2], *shape[:2])
    for info, module in zip(infos, network, strict=True):
        x = module(x)
        height, width, channels = info.output_shape if len(info.output_shape) == 3 else (0, 0, 0)
        assert tuple(x.shape) == ((2, channels, height, width) if channels else (2, *info.output_shape)), info.name
    assert math.prod(x.shape) == 12
