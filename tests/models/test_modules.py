"""Every layer's module against a naive float64 implementation of what Keras computes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import erf, expit

from foveola.models import layers
from foveola.models.modules import ACTIVATIONS, build_network
from foveola.models.shapes import LayerInfo, infer_shapes

SHAPES = [(7, 7), (8, 8), (5, 9), (6, 5)]
REFERENCE = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky-relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * expit(x),
    "hard-swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "tanh": np.tanh,
    "sigmoid": expit,
}


def module_of(layer, shape):
    """The layer's module in float64, with random weights."""
    network = build_network([LayerInfo("layer", layer, shape, layer.output_shape(shape))]).double().eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.parameters():
        tensor.data.normal_(generator=generator)
    return network


def images(shape, n=3, seed=0):
    """Random N×H×W×C, all negative: a border of zeros would win every maximum."""
    return -np.random.default_rng(seed).uniform(0.1, 2, size=(n, *shape))


def compute(network, x):
    """Apply a network to N×H×W×C; images come back as N×H×W×C, too."""
    with torch.no_grad():
        result = network(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    return result.transpose(0, 2, 3, 1) if result.ndim == 4 else result


def windows(x, size, stride, padding, fill):
    """Every window as N×size×size×C, padded as in TensorFlow: an odd pixel of padding goes right and below."""
    n, height, width, channels = x.shape
    if padding == "same":
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        down, across = (max((k - 1) * stride + size - side, 0) for k, side in ((rows, height), (columns, width)))
        canvas = np.full((n, height + down, width + across, channels), fill, dtype=np.float64)
        canvas[:, down // 2 : down // 2 + height, across // 2 : across // 2 + width] = x
        x = canvas
    else:
        rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    return [
        [x[:, i * stride : i * stride + size, j * stride : j * stride + size] for j in range(columns)]
        for i in range(rows)
    ]


def each_window(x, size, stride, padding, fill, function):
    return np.stack(
        [np.stack([function(window) for window in row], 1) for row in windows(x, size, stride, padding, fill)], 1
    )


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("sides", SHAPES)
def test_conv2d(sides, size, stride, padding):
    shape = (*sides, 2)
    network = module_of(layers.Conv2D(filters=3, kernel=size, stride=stride, padding=padding), shape)
    kernel = network.layer.weight.detach().numpy()  # filters × channels × height × width
    bias = network.layer.bias.detach().numpy()
    x = images(shape)
    expected = each_window(x, size, stride, padding, 0.0, lambda w: np.einsum("nhwc,fchw->nf", w, kernel) + bias)
    np.testing.assert_allclose(compute(network, x), expected, rtol=1e-10, atol=1e-12)


def test_conv2d_without_bias_and_with_activation():
    shape = (6, 6, 3)
    network = module_of(layers.Conv2D(filters=4, kernel=4, padding="same", bias=False, activation="relu"), shape)
    assert network.layer.bias is None
    kernel = network.layer.weight.detach().numpy()
    x = images(shape)
    sums = each_window(x, 4, 1, "same", 0.0, lambda w: np.einsum("nhwc,fchw->nf", w, kernel))
    np.testing.assert_allclose(compute(network, x), np.maximum(sums, 0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("sides", SHAPES)
def test_pooling(sides, size, stride, padding):
    shape = (*sides, 2)
    x = images(shape)
    largest = each_window(x, size, stride, padding, -np.inf, lambda w: w.max(axis=(1, 2)))
    mean = each_window(x, size, stride, padding, np.nan, lambda w: np.nanmean(w, axis=(1, 2)))
    maximum = module_of(layers.MaxPool2D(size=size, stride=stride, padding=padding), shape)
    average = module_of(layers.AveragePool2D(size=size, stride=stride, padding=padding), shape)
    np.testing.assert_array_equal(compute(maximum, x), largest)
    np.testing.assert_allclose(compute(average, x), mean, rtol=1e-6)  # inside_fraction is float32


def test_average_pooling_takes_half_precision():
    pool = module_of(layers.AveragePool2D(size=3, stride=2, padding="same"), (5, 5, 1)).to(torch.float32)
    assert pool(torch.ones(1, 1, 5, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(5, 4, 3), (6,)])
def test_batch_norm_in_evaluation(shape):
    network = module_of(layers.BatchNorm(epsilon=1e-3), shape)
    generator = np.random.default_rng(1)
    mean, variance = generator.normal(size=shape[-1]), generator.uniform(0.5, 2, size=shape[-1])
    network.layer.running_mean.copy_(torch.from_numpy(mean))
    network.layer.running_var.copy_(torch.from_numpy(variance))
    scale, offset = (p.detach().numpy() for p in (network.layer.weight, network.layer.bias))
    x = generator.normal(size=(4, *shape))
    expected = (x - mean) / np.sqrt(variance + 1e-3) * scale + offset
    given = compute(network, x) if len(shape) == 3 else network(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(given, expected, rtol=1e-10, atol=1e-12)


def test_batch_norm_in_training_keeps_momentum_of_the_old_statistics():
    shape = (5, 4, 3)
    network = module_of(layers.BatchNorm(momentum=0.9), shape).train()
    x = images(shape, n=50)
    compute(network, x)
    np.testing.assert_allclose(network.layer.running_mean.numpy(), 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-10)
    variance = 0.9 + 0.1 * x.var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(network.layer.running_var.numpy(), variance, rtol=1e-10)


def test_flatten_is_in_the_order_height_width_channel():
    x = images((3, 4, 2))
    np.testing.assert_array_equal(compute(module_of(layers.Flatten(), (3, 4, 2)), x), x.reshape(len(x), -1))


def test_flatten_is_a_view_in_channels_last_memory():
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert module_of(layers.Flatten(), (4, 5, 3))(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("bias", [True, False])
def test_dense(bias):
    network = module_of(layers.Dense(units=5, bias=bias, activation="tanh"), (7,))
    x = np.random.default_rng(0).normal(size=(4, 7))
    weight = network.layer.weight.detach().numpy()
    offset = network.layer.bias.detach().numpy() if bias else 0
    np.testing.assert_allclose(
        network(torch.from_numpy(x)).detach().numpy(), np.tanh(x @ weight.T + offset), rtol=1e-10
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = np.linspace(-6, 6, 97)[:, None]
    expected = REFERENCE[name](x)
    network = module_of(layers.Activate(function=name), (1,))
    np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_global_pooling():
    x = images((3, 5, 4))
    np.testing.assert_array_equal(compute(module_of(layers.GlobalMaxPool2D(), (3, 5, 4)), x), x.max(axis=(1, 2)))
    mean = compute(module_of(layers.GlobalAveragePool2D(), (3, 5, 4)), x)
    np.testing.assert_allclose(mean, x.mean(axis=(1, 2)), rtol=1e-12)


def test_dropout_zeroes_its_rate_in_training_only():
    network = module_of(layers.Dropout(rate=0.25), (10_000,))
    x = torch.ones(1, 10_000, dtype=torch.float64)
    assert torch.equal(network(x), x)
    torch.manual_seed(0)
    output = network.train()(x)
    assert set(output.unique().tolist()) == {0.0, 1 / 0.75}
    assert (output == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)


def convolution_and_max_pooling(activation):
    stack = [
        layers.Conv2D(filters=5, activation=activation),
        layers.MaxPool2D(),
        layers.Flatten(),
        layers.Dense(units="classes"),
    ]
    return build_network(infer_shapes(stack, (11, 11, 2), 3))


def test_relu_after_pooling_changes_neither_values_nor_gradients():
    torch.manual_seed(0)
    network = convolution_and_max_pooling("relu")
    convolution, dense = network.conv2d_1, network.dense_1
    x = torch.randn(16, 2, 11, 11)

    maps = F.relu(F.conv2d(x, convolution.weight, convolution.bias))
    pooled = F.max_pool2d(maps, 2).permute(0, 2, 3, 1).flatten(1)
    F.linear(pooled, dense.weight, dense.bias).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    network.train()(x).square().sum().backward()

    assert convolution.defers_relu
    assert network.maxpool2d_1.applies_relu
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(network.parameters(), expected, strict=True))
    assert torch.equal(network.train()(x), network.eval()(x))
    assert torch.equal(convolution(x), maps)  # in evaluation mode, the convolution itself applies the activation


def test_other_activations_come_before_pooling():
    network = convolution_and_max_pooling("gelu")
    assert not network.conv2d_1.defers_relu
    assert not network.maxpool2d_1.applies_relu
