"""Shapes and costs of a stack, against published counts and PyTorch."""

import math

import pytest
import torch

from foveola.architecture import trace
from foveola.errors import RecipeError
from foveola.layers import (
    LAYERS,
    Activate,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    MaxPool2D,
)
from foveola.models.network import build
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
    GlobalAveragePool2D(),
    Dense(units=7, activation="tanh"),
    BatchNorm(),
    Flatten(),
    Dense(units="classes", bias=False),
)


def counted(layers, shape, classes=10):
    steps = trace(layers, shape, classes)
    return sum(step.parameters for step in steps), sum(step.state for step in steps)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("lenet5", 61_706),  # LeCun et al., 1998, with fully connected second convolution
        ("west", 693_962),
        ("eduonix", 47_090),
        ("mlp", (784 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 10),
    ],
)
def test_totals_are_the_published_ones(name, published):
    recipe = load_recipe(name)
    side = 28 + 2 * recipe.pad
    assert counted(recipe.layers, (side, side, 1)) == (published, 0)


def test_lenet5_pads_to_32():
    recipe = load_recipe("lenet5")
    steps = trace(recipe.layers, (28 + 2 * recipe.pad,) * 2 + (1,), 10)
    assert steps[0].input_shape == (32, 32, 1)
    assert [step.output_shape for step in steps] == [
        (28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (400,), (120,), (84,), (10,),
    ]  # fmt: skip
    assert [step.parameters for step in steps] == [156, 0, 2416, 0, 0, 48120, 10164, 850]


def test_multiply_adds_are_those_of_the_loops():
    steps = trace((Conv2D(filters=4, kernel=3, stride=2, padding="same"), *HEAD), (7, 5, 3), 10)
    # every output value of a convolution: kernel × kernel × input channels products
    assert steps[0].multiply_adds == (4 * 3 * 4) * (3 * 3 * 3)
    assert steps[2].multiply_adds == 48 * 10


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            (MaxPool2D(), MaxPool2D(), MaxPool2D(), *HEAD),
            r"Layer 3 \(maxpool2d_3\) got the shape 1×1×1: its 2×2 window",
        ),
        ((Conv2D(filters=3, kernel=5), *HEAD), r"Layer 1 \(conv2d_1\) got the shape 4×4×1: its 5×5 window"),
        ((Flatten(), Conv2D(filters=3), *HEAD), r"Layer 2 \(conv2d_1\) got the shape 16: it takes images"),
        ((Flatten(), MaxPool2D(), *HEAD), r"Layer 2 \(maxpool2d_1\) got the shape 16: it takes images"),
        ((Flatten(), GlobalMaxPool2D()), r"Layer 2 \(globalmaxpool2d_1\) got the shape 16: it takes images"),
        ((Conv2D(filters=3), Dense(units=3)), r"Layer 2 \(dense_1\) got the shape 2×2×3: it takes a row of features"),
        ((Flatten(),), "The layers give 16, but there are 10 classes"),
        ((Conv2D(filters=10),), "The layers give 2×2×10, but there are 10 classes"),
        ((Flatten(), Dense(units=9)), "The layers give 9, but there are 10 classes"),
        ((), "The layers give 4×4×1, but there are 10 classes"),
    ],
)
def test_a_stack_that_does_not_fit_names_the_layer_and_its_shape(layers, said):
    with pytest.raises(RecipeError, match=said):
        trace(layers, (4, 4, 1), 10)


def test_names_count_by_type():
    names = [step.name for step in trace((Conv2D(filters=2), Conv2D(filters=2), *HEAD), (8, 8, 1), 3)]
    assert names == ["conv2d_1", "conv2d_2", "flatten_1", "dense_1"]


def test_the_stack_for_all_layers_has_every_layer():
    missing = LAYERS.keys() - {layer.type for layer in EVERY_LAYER}
    assert missing == {"GlobalMaxPool2D"}  # two global poolings cannot follow each other


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        *((load_recipe(name).layers, (28 + 2 * load_recipe(name).pad,) * 2 + (1,)) for name in recipe_names()),
        *((load_recipe(name).layers, (33, 35, 3)) for name in recipe_names()),
        (EVERY_LAYER, (13, 10, 3)),
        ((GlobalMaxPool2D(), *EVERY_LAYER[8:]), (13, 10, 3)),
    ],
)
def test_counts_and_shapes_are_pytorchs(layers, shape):
    steps = trace(layers, shape, 6)
    network = build(steps).eval()
    trained = sum(parameter.numel() for parameter in network.parameters())
    running = [buffer for name, buffer in network.named_buffers() if "running" in name]
    assert counted(layers, shape, 6) == (trained, sum(buffer.numel() for buffer in running))
    x = torch.zeros(2, shape[2], *shape[:2])
    for step, module in zip(steps, network, strict=True):
        x = module(x)
        height, width, channels = step.output_shape if len(step.output_shape) == 3 else (0, 0, 0)
        assert tuple(x.shape) == ((2, channels, height, width) if channels else (2, *step.output_shape)), step.name
    assert math.prod(x.shape) == 12
