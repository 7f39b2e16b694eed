"""A stack of layers in PyTorch, computing as Keras does it, with Keras' scales of the initial weights.

Activations are N×C×H×W in channels_last memory, so that `Flatten` in Keras' order (height, width, channel) is a view.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveola.architecture import Step
from foveola.layers import Activation, AveragePool2D, BatchNorm, Conv2D, Dense, Edges, MaxPool2D

Initialization = Literal["glorot-uniform", "he-normal", "he-uniform", "dirac", "whitened"]

# Of the largest variance: what varies less is noise, and not made as large as the rest
_NOISE_FLOOR = 5e-4

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "leaky-relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def build(steps: Sequence[Step]) -> nn.Sequential:
    """The network of a traced stack: float N×C×H×W → logits N×K."""
    network = nn.Sequential(OrderedDict((step.name, _MODULES[step.layer.type](step.layer, step)) for step in steps))
    for layer, following in pairwise(network):
        if isinstance(layer, _Conv2D) and layer.activate is F.relu and isinstance(following, _MaxPool2D):
            layer.pooled_first = following.then_relu = True
    return network


def initialize(network: nn.Module, how: Initialization, seed: int) -> None:
    """Draw the weights of convolutions and dense layers, set their biases to zero.

    Glorot and Bengio (2010), He et al. (2015), with the fan counts that Keras uses. "dirac" is He's, except that hidden
    convolutions pass their input on in as many filters as it has channels (Zagoruyko and Komodakis, 2017; airbench).
    "whitened" begins as "dirac"; `whiten` does the rest, because it needs images.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if how == "glorot-uniform":
                nn.init.xavier_uniform_(module.weight, generator=generator)
            elif how == "he-normal":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if how in ("dirac", "whitened"):
        for kernel in hidden_kernels(network):
            nn.init.dirac_(kernel.data[: kernel.shape[1]])


def first_kernel(network: nn.Module) -> Tensor | None:
    """Of the convolution that sees the image itself, out×in×height×width; None where a dense layer comes first."""
    weighted = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    first = next(weighted, None)
    return first.weight if isinstance(first, nn.Conv2d) else None


@torch.no_grad()
def whiten(kernel: Tensor, images: Tensor) -> None:
    """Let a kernel's first filters tell apart what varies in the patches of images, float N×C×H×W.

    Pairs of filters, one the other's negative, are the eigenvectors of the patches' covariance over the square roots of
    their eigenvalues, largest first, so that what each gives has variance 1 (whitening; airbench: Jordan, 2024,
    arXiv:2404.00498, where they are frozen). Filters beyond the pairs stay as they are, and so do all where nothing
    varies, or the kernel is larger than the images.
    """
    places = [side - size + 1 for side, size in zip(images.shape[2:], kernel.shape[2:], strict=True)]
    if min(places) < 1 or len(images) * math.prod(places) < 2:
        return
    patches = F.unfold(images, kernel.shape[2:]).transpose(1, 2).flatten(0, 1)
    variances, directions = torch.linalg.eigh(patches.T.cov().double())
    if variances[-1] <= 1e-9 * patches.square().mean():  # rounding
        return
    pairs = min(len(kernel) // 2, len(variances))
    scales = (variances + _NOISE_FLOOR * variances[-1]).clamp(min=0).rsqrt()
    filters = (directions * scales).T.flip(0)[:pairs]
    # An eigenvector has no sign of its own
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = (filters * largest.sign()).view(pairs, *kernel.shape[1:])
    kernel[:pairs], kernel[pairs : 2 * pairs] = filters, -filters


def hidden_kernels(network: nn.Module) -> list[Tensor]:
    """Of every convolution, out×in×height×width, except the first one, which sees the image itself."""
    return [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)][1:]


class _Conv2D(nn.Conv2d):
    def __init__(self, layer: Conv2D, step: Step) -> None:
        super().__init__(step.input_shape[2], layer.filters, layer.kernel, layer.stride, bias=layer.bias)
        self.edges = layer.edges(step.input_shape)
        top, left, bottom, right = self.edges
        if left == right and top == bottom:  # the library pads evenly by itself, without a copy
            self.padding, self.edges = (top, left), (0, 0, 0, 0)
        self.activate = ACTIVATIONS[layer.activation]
        self.pooled_first = False

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(_pad(x, self.edges, 0.0))
        # ReLU and maximum commute, and after pooling there is a quarter of the work. Only while training, so that who
        # looks into the network sees the activations of the layer that says so.
        return x if self.pooled_first and self.training else self.activate(x)


class _Dense(nn.Linear):
    def __init__(self, layer: Dense, step: Step) -> None:
        super().__init__(step.input_shape[0], step.output_shape[0], bias=layer.bias)
        self.activate = ACTIVATIONS[layer.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(super().forward(x))


class _Pool2D(nn.Module):
    def __init__(self, layer: MaxPool2D | AveragePool2D, step: Step) -> None:
        super().__init__()
        self.size, self.stride = layer.size, layer.step
        self.edges = layer.edges(step.input_shape)


class _MaxPool2D(_Pool2D):
    then_relu = False

    def forward(self, x: Tensor) -> Tensor:
        x = _pad(x, self.edges, -math.inf)
        # PyTorch's kernel also finds the places of the maxima, and one by one where channels are few
        pairs = self.size == self.stride == 2 and x.device.type == "cpu" and not torch.is_grad_enabled()
        x = _maximum_of_pairs(x) if pairs else F.max_pool2d(x, self.size, self.stride)
        return F.relu(x) if self.then_relu and self.training else x


def _maximum_of_pairs(x: Tensor) -> Tensor:
    """Max-pooling of 2×2 pixels, two to nine times as fast as the library's."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


class _AveragePool2D(_Pool2D):
    share: Tensor

    def __init__(self, layer: AveragePool2D, step: Step) -> None:
        super().__init__(layer, step)
        inside = torch.ones(1, 1, *step.input_shape[:2])
        share = F.avg_pool2d(_pad(inside, self.edges, 0.0), self.size, self.stride)
        self.register_buffer("share", share, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(_pad(x, self.edges, 0.0), self.size, self.stride)
        return mean / self.share.to(mean.dtype) if any(self.edges) else mean


class _GlobalMaxPool2D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


class _GlobalAveragePool2D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class _Dropout(nn.Module):
    """Dropout whose mask costs a tenth: PyTorch draws one number a value, one after the other; here eight come at once.

    Where 256 × rate is no whole number, 16 bits a value are drawn instead of 8, and the rate is a multiple of 1/65536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.bits = torch.int8 if (256 * rate).is_integer() else torch.int16

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        return x * self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        """Zero or 1 / (1 - rate), in the memory layout of `x`."""
        levels = torch.iinfo(self.bits)
        dropped = round(self.rate * (levels.max - levels.min + 1))
        first_kept = levels.min + max(dropped, 1)
        words = torch.empty(-(-x.numel() * levels.bits // 64), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(self.bits)[: x.numel()]
        kept = draws.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)
        mask = kept.to(x.dtype).mul_(1 / (1 - dropped / (levels.max - levels.min + 1)))
        if x.ndim == 4:
            n, channels, height, width = x.shape
            return mask.view(n, height, width, channels).permute(0, 3, 1, 2)
        return mask.view(x.shape)


class _Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x


class _Activation(nn.Module):
    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[function]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x)


def _batch_norm(layer: BatchNorm, step: Step) -> nn.Module:
    kind = nn.BatchNorm2d if len(step.input_shape) == 3 else nn.BatchNorm1d
    return kind(step.input_shape[-1], eps=layer.epsilon, momentum=1 - layer.momentum)


_MODULES: dict[str, Callable[[Any, Step], nn.Module]] = {
    "Conv2D": _Conv2D,
    "MaxPool2D": _MaxPool2D,
    "AveragePool2D": _AveragePool2D,
    "GlobalMaxPool2D": lambda layer, step: _GlobalMaxPool2D(),
    "GlobalAveragePool2D": lambda layer, step: _GlobalAveragePool2D(),
    "BatchNorm": _batch_norm,
    "Dropout": lambda layer, step: _Dropout(layer.rate),
    "Flatten": lambda layer, step: _Flatten(),
    "Dense": _Dense,
    "Activation": lambda layer, step: _Activation(layer.function),
}


def _pad(x: Tensor, edges: Edges, value: float) -> Tensor:
    top, left, bottom, right = edges
    return F.pad(x, (left, right, top, bottom), value=value) if any(edges) else x
