"""What the layers do to be quick must not change what they compute."""

import pytest
import torch
import torch.nn.functional as F

from foveola.architecture import trace
from foveola.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D
from foveola.models.network import build


def _dropout(rate, shape=(8, 8, 4)):
    stack = [Dropout(rate=rate), Flatten(), Dense(units="classes")]
    return build(trace(stack, shape, 2)).dropout_1.train()


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.1, 1 / 3, 0.9])
def test_dropout_keeps_its_share_and_the_mean(rate):
    torch.manual_seed(0)
    kept = _dropout(rate)(torch.ones(500, 4, 8, 8))
    share = (kept != 0).double().mean().item()
    spread = (rate * (1 - rate) / kept.numel()) ** 0.5
    assert abs(share - (1 - rate)) < 5 * spread + 1 / 65536
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-3)


def test_dropout_draws_each_value_by_itself():
    torch.manual_seed(1)
    kept = (_dropout(0.5)(torch.ones(2000, 4, 8, 8)) != 0).double().flatten(1)
    together = (kept - 0.5).T @ (kept - 0.5) / len(kept)
    together.fill_diagonal_(0)
    assert together.abs().max() < 0.25 * 5.5 / len(kept) ** 0.5


def test_dropout_repeats_with_the_seed_in_either_memory_layout():
    layer, x = _dropout(0.25), torch.randn(6, 4, 8, 8)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    again = layer(x.to(memory_format=torch.channels_last))
    assert torch.equal(first, again)
    torch.manual_seed(4)
    assert not torch.equal(first, layer(x))


def test_dropout_of_odd_counts_of_features_and_of_bfloat16():
    torch.manual_seed(0)
    layer = _dropout(0.25)
    assert layer(torch.ones(3, 7)).shape == (3, 7)
    assert layer(torch.ones(3, 7, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_dropout_does_nothing_in_use_or_at_rate_zero():
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(_dropout(0.5).eval()(x), x)
    assert torch.equal(_dropout(0.0)(x), x)


def test_pooling_before_relu_changes_neither_values_nor_gradients():
    torch.manual_seed(0)
    stack = [Conv2D(filters=5, activation="relu"), MaxPool2D(), Flatten(), Dense(units="classes")]
    network = build(trace(stack, (11, 11, 2), 3))
    convolution, dense = network.conv2d_1, network.dense_1
    images = torch.randn(16, 2, 11, 11)

    maps = F.relu(F.conv2d(images, convolution.weight, convolution.bias))
    pooled = F.max_pool2d(maps, 2).permute(0, 2, 3, 1).flatten(1)
    F.linear(pooled, dense.weight, dense.bias).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    network.train()(images).square().sum().backward()

    assert convolution.pooled_first
    assert all(torch.equal(p.grad, expected) for p, expected in zip(network.parameters(), plain, strict=True))
    assert torch.equal(network.train()(images), network.eval()(images))
    assert torch.equal(network.conv2d_1(images), maps)  # who looks inside sees the activation


def test_other_activations_are_not_moved():
    stack = [Conv2D(filters=5, activation="gelu"), MaxPool2D(), Flatten(), Dense(units="classes")]
    network = build(trace(stack, (11, 11, 2), 3))
    assert not network.conv2d_1.pooled_first
    assert not network.maxpool2d_1.then_relu
