"""The fast dropout, max pooling and depthwise convolution compute what PyTorch's do."""

import pytest
import torch
import torch.nn.functional as F

from foveola.models.fast_ops import FastDropout, depthwise_convolution, max_pool_2x2


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.1, 1 / 3, 0.9])
def test_dropout_zeroes_its_rate_and_scales_up_the_rest(rate):
    torch.manual_seed(0)
    output = FastDropout(rate)(torch.ones(500, 4, 8, 8))
    kept = (output != 0).double().mean().item()
    standard_error = (rate * (1 - rate) / output.numel()) ** 0.5
    assert abs(kept - (1 - rate)) < 5 * standard_error + 1 / 65536
    assert output.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-3)


def test_dropout_draws_values_independently():
    torch.manual_seed(1)
    kept = (FastDropout(0.5)(torch.ones(2000, 4, 8, 8)) != 0).double().flatten(1)
    covariance = (kept - 0.5).T @ (kept - 0.5) / len(kept)
    covariance.fill_diagonal_(0)
    assert covariance.abs().max() < 0.25 * 5.5 / len(kept) ** 0.5


def test_dropout_follows_the_seed_in_either_memory_layout():
    layer, x = FastDropout(0.25), torch.randn(6, 4, 8, 8)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    again = layer(x.to(memory_format=torch.channels_last))
    assert torch.equal(first, again)
    torch.manual_seed(4)
    assert not torch.equal(first, layer(x))


def test_dropout_takes_an_odd_number_of_features_and_bfloat16():
    torch.manual_seed(0)
    layer = FastDropout(0.25)
    assert layer(torch.ones(3, 7)).shape == (3, 7)
    assert layer(torch.ones(3, 7, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_dropout_does_nothing_in_evaluation_mode_or_at_rate_zero():
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(FastDropout(0.5).eval()(x), x)
    assert torch.equal(FastDropout(0.0)(x), x)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (5, 9), (2, 3)])
def test_max_pool_2x2_matches_pytorch(height, width):
    x = torch.randn(3, 4, height, width)
    assert torch.equal(max_pool_2x2(x), F.max_pool2d(x, 2))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (8, 6), (7, 9)])
@pytest.mark.parametrize(("channels", "flattened"), [(6, False), (32, False), (32, True), (16, False)])
def test_the_gradient_of_max_pool_2x2_matches_pytorch(height, width, channels, flattened):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, channels, height * width, generator=generator).argsort(2)  # no two of a channel alike
    x = values.view(3, channels, height, width).bfloat16().contiguous(memory_format=torch.channels_last)
    weights = torch.randint(1, 9, (3, channels, height // 2, width // 2), generator=generator).bfloat16()
    weights = weights if flattened else weights.contiguous(memory_format=torch.channels_last)
    gradients = []
    for pool in (max_pool_2x2, lambda x: F.max_pool2d(x, 2)):
        inputs = x.clone(memory_format=torch.preserve_format).requires_grad_()
        (pool(inputs) * weights).sum().backward()
        gradients.append(inputs.grad)
    assert torch.equal(*gradients)


def test_of_equal_values_max_pool_2x2_sends_the_whole_gradient_to_one():
    x = torch.zeros(1, 32, 4, 5).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    max_pool_2x2(x).sum().backward()
    assert x.grad.sum() == 32 * 2 * 2 and x.grad.unique().tolist() == [0, 1]
    assert x.grad[..., ::2, :4:2].sum() == 32 * 2 * 2  # the upper left one


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((3, 3), (1, 1), (1, 1), (8, 7)),
        ((3, 3), (2, 2), (1, 1), (8, 7)),
        ((3, 3), (2, 2), (0, 0), (9, 8)),
        ((5, 5), (1, 1), (2, 2), (6, 5)),
        ((5, 5), (2, 2), (0, 0), (11, 10)),
        ((5, 3), (2, 1), (2, 1), (7, 9)),
        ((7, 4), (1, 3), (3, 0), (7, 10)),
        ((1, 1), (2, 2), (0, 0), (5, 6)),
    ],
)
def test_depthwise_convolution_has_the_gradients_of_pytorch_in_float64(kernel, stride, padding, size, bias):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 6, *size, generator=generator), torch.randn(6, 1, *kernel, generator=generator)
    given = [values.bfloat16().float() for values in (x.contiguous(memory_format=torch.channels_last), weight)]
    given += [torch.arange(6.0)] if bias else []

    def outputs_and_gradients(function, dtype):
        leaves = [values.to(dtype).requires_grad_() for values in given]
        y = function(*leaves, *(() if bias else (None,)), stride, padding)
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).bfloat16().to(y.dtype).view(y.shape)
        (y * weights).sum().backward()
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    expected = outputs_and_gradients(lambda x, w, b, s, p: F.conv2d(x, w, b, s, p, groups=6), torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs_and_gradients(depthwise_convolution, torch.float32)
    for ours, true in zip(found, expected, strict=True):
        assert ours.shape == true.shape
        assert (ours.double() - true).abs().max() <= 2**-7 * true.abs().max()


def test_depthwise_convolution_is_that_of_pytorch_in_float32():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 1, 3, 3)
    assert torch.equal(depthwise_convolution(x, weight, None, (1, 1), (1, 1)), F.conv2d(x, weight, padding=1, groups=4))
