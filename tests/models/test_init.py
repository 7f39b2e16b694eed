"""Initial weights against their definitions and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from foveola.models import layers
from foveola.models.init import initialize, whiten
from foveola.models.modules import build_network
from foveola.models.shapes import LayerInfo

WIDE = [
    LayerInfo("conv", layers.Conv2D(filters=64, kernel=3), (8, 8, 32), (6, 6, 64)),
    LayerInfo("flatten", layers.Flatten(), (6, 6, 64), (2304,)),
    LayerInfo("dense", layers.Dense(units=50), (2304,), (50,)),
]
# As in Keras: the fans of a convolution are its channels times the kernel's area
FANS = {"conv": (32 * 9, 64 * 9), "dense": (2304, 50)}


def initialized(initialization, seed=0):
    network = build_network(WIDE)
    initialize(network, initialization, seed)
    return network


@pytest.mark.parametrize("layer", FANS)
def test_glorot_uniform(layer):
    fan_in, fan_out = FANS[layer]
    weight = getattr(initialized("glorot-uniform"), layer).weight.detach().double()
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert weight.abs().max().item() <= bound * (1 + 1e-6)
    assert weight.abs().max().item() > 0.99 * bound
    assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.03)


@pytest.mark.parametrize("initialization", ["he-normal", "he-uniform"])
@pytest.mark.parametrize("layer", FANS)
def test_he(initialization, layer):
    fan_in, _ = FANS[layer]
    weight = getattr(initialized(initialization), layer).weight.detach().double()
    assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.03)
    bounded = weight.abs().max().item() <= math.sqrt(6 / fan_in) * (1 + 1e-6)
    assert bounded == (initialization == "he-uniform")


def test_dirac_passes_the_input_of_hidden_convolutions_through():
    deep = [WIDE[0], LayerInfo("hidden", layers.Conv2D(filters=96, kernel=3, padding="same"), (6, 6, 64), (6, 6, 96))]
    network = build_network(deep)
    initialize(network, "dirac", 0)
    x = torch.randn(2, 64, 6, 6)
    output = network.hidden(x)
    torch.testing.assert_close(output[:, :64], x)
    assert output[:, 64:].std() > 0.5
    assert network.conv.weight.count_nonzero() == network.conv.weight.numel()


@pytest.mark.parametrize(("channels", "filters", "pairs"), [(1, 16, 8), (1, 32, 9), (3, 16, 8)])
def test_whitening_matches_scikit_learns_pca(channels, filters, pairs):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(50, channels, 12, 12, generator=generator)
    images = noise.cumsum(2) + 0.5 * noise.cumsum(3)
    kernel = torch.randn(filters, channels, 3, 3, generator=generator)
    before = kernel.clone()
    whiten(kernel, images)
    patches = F.unfold(images, 3).transpose(1, 2).flatten(0, 1).double().numpy()
    reference = PCA(pairs).fit(patches)
    noise_floor = 5e-4 * reference.explained_variance_[0]
    expected = reference.components_ / np.sqrt(reference.explained_variance_ + noise_floor)[:, None]
    filters = kernel[:pairs].flatten(1)
    values = filters.double().numpy()
    signs = np.sign((values * expected).sum(1, keepdims=True))
    np.testing.assert_allclose(values, signs * expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(kernel[pairs : 2 * pairs], -kernel[:pairs])
    assert torch.equal(kernel[2 * pairs :], before[2 * pairs :])
    assert (filters.gather(1, filters.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize(
    "images", [torch.full((5, 1, 8, 8), 0.7), torch.zeros(5, 1, 8, 8), torch.rand(5, 1, 8, 2), torch.rand(1, 1, 3, 3)]
)
def test_whitening_needs_patches_that_vary(images):
    kernel = torch.ones(4, 1, 3, 3)
    whiten(kernel, images)
    assert torch.equal(kernel, torch.ones(4, 1, 3, 3))


@pytest.mark.parametrize("initialization", ["glorot-uniform", "he-normal", "he-uniform", "dirac", "whitened"])
def test_biases_are_zero_and_weights_follow_the_seed(initialization):
    first, again, other = (initialized(initialization, seed) for seed in (1, 1, 2))
    for layer in ("conv", "dense"):
        assert not getattr(first, layer).bias.any()
        assert torch.equal(getattr(first, layer).weight, getattr(again, layer).weight)
        assert not torch.equal(getattr(first, layer).weight, getattr(other, layer).weight)


def test_initialization_leaves_the_global_generator_unchanged():
    network = build_network(WIDE)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialize(network, "he-normal", 0)
    assert torch.equal(torch.rand(3), expected)
