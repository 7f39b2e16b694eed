"""The layers as PyTorch modules that compute what Keras computes.

Activations are N×C×H×W in channels_last memory, which makes `Flatten` in Keras' order (height, width, channel) a view.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveola.models.fast_ops import FastDropout, depthwise_convolution, max_pool_2x2
from foveola.models.layers import (
    Activate,
    Activation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    MaxPool2D,
    PadWidths,
    Residual,
)
from foveola.models.shapes import LayerInfo
from foveola.models.sync_batch_norm import BatchNorm1d, BatchNorm2d

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky-relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hard-swish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def build_network(infos: Sequence[LayerInfo]) -> nn.Sequential:
    """Build the network, float N×C×H×W → logits N×K, of layers as `infer_shapes` gives them; without layers, x → x."""
    modules = ((info.name.rpartition(".")[2], _MODULES[info.layer.type](info.layer, info)) for info in infos)
    network = nn.Sequential(OrderedDict(modules))
    # While training, max pooling computes the ReLU of the convolution before it: the two commute, and 2×2 pooling
    # leaves a quarter of the values. In evaluation mode the convolution computes it, because explanations read its
    # activations.
    for layer, following in pairwise(network):
        if isinstance(layer, _Conv2D) and layer.activate is F.relu and isinstance(following, _MaxPool2D):
            layer.defers_relu = following.applies_relu = True
    return network


class _Conv2D(nn.Conv2d):
    def __init__(self, layer: Conv2D | DepthwiseConv2D, info: LayerInfo) -> None:
        taken, given = info.input_shape[2], info.output_shape[2]
        groups = taken if isinstance(layer, DepthwiseConv2D) else 1
        super().__init__(taken, given, layer.kernel, layer.stride, groups=groups, bias=layer.bias)
        self.pad_widths = layer.pad_widths(info.input_shape)
        top, left, bottom, right = self.pad_widths
        if left == right and top == bottom:  # PyTorch pads symmetrically by itself, without a copy
            self.padding, self.pad_widths = (top, left), (0, 0, 0, 0)
        self.activate = ACTIVATIONS[layer.activation]
        self.defers_relu = False  # see build_network

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(_pad(x, self.pad_widths, 0.0))
        return x if self.defers_relu and self.training else self.activate(x)


class _DepthwiseConv2D(_Conv2D):
    def forward(self, x: Tensor) -> Tensor:
        x = _pad(x, self.pad_widths, 0.0)
        x = depthwise_convolution(x, self.weight, self.bias, self.stride, self.padding)  # type: ignore[arg-type]
        return self.activate(x)


class _Dense(nn.Linear):
    def __init__(self, layer: Dense, info: LayerInfo) -> None:
        super().__init__(info.input_shape[0], info.output_shape[0], bias=layer.bias)
        self.activate = ACTIVATIONS[layer.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(super().forward(x))


class _Pool2D(nn.Module):
    def __init__(self, layer: MaxPool2D | AveragePool2D, info: LayerInfo) -> None:
        super().__init__()
        self.size, self.stride = layer.size, layer.window_stride
        self.pad_widths = layer.pad_widths(info.input_shape)


class _MaxPool2D(_Pool2D):
    applies_relu = False  # see build_network

    def forward(self, x: Tensor) -> Tensor:
        x = _pad(x, self.pad_widths, -math.inf)
        fast = self.size == self.stride == 2 and x.device.type == "cpu"
        x = max_pool_2x2(x) if fast else F.max_pool2d(x, self.size, self.stride)
        return F.relu(x) if self.applies_relu and self.training else x


class _AveragePool2D(_Pool2D):
    inside_fraction: Tensor

    def __init__(self, layer: AveragePool2D, info: LayerInfo) -> None:
        super().__init__(layer, info)
        # Of each window, the fraction that lies inside the image: padding does not count
        ones = torch.ones(1, 1, *info.input_shape[:2])
        inside_fraction = F.avg_pool2d(_pad(ones, self.pad_widths, 0.0), self.size, self.stride)
        self.register_buffer("inside_fraction", inside_fraction, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(_pad(x, self.pad_widths, 0.0), self.size, self.stride)
        return mean / self.inside_fraction.to(mean.dtype) if any(self.pad_widths) else mean


class _GlobalMaxPool2D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


class _GlobalAveragePool2D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class _Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x


class _Activation(nn.Module):
    def __init__(self, layer: Activate) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[layer.function]
        if layer.function == "leaky-relu":
            self.activate = partial(F.leaky_relu, negative_slope=layer.negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x)


class _Residual(nn.Module):
    def __init__(self, layer: Residual, info: LayerInfo) -> None:
        super().__init__()
        self.layers, self.projection = (build_network(info.branches[name]) for name in ("layers", "projection"))
        self.activate = ACTIVATIONS[layer.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.layers(x) + self.projection(x))


def _batch_norm(layer: BatchNorm, info: LayerInfo) -> nn.Module:
    kind = BatchNorm2d if len(info.input_shape) == 3 else BatchNorm1d
    return kind(info.input_shape[-1], eps=layer.epsilon, momentum=1 - layer.momentum)


_MODULES: dict[str, Callable[[Any, LayerInfo], nn.Module]] = {
    "Conv2D": _Conv2D,
    "DepthwiseConv2D": _DepthwiseConv2D,
    "MaxPool2D": _MaxPool2D,
    "AveragePool2D": _AveragePool2D,
    "GlobalMaxPool2D": lambda layer, info: _GlobalMaxPool2D(),
    "GlobalAveragePool2D": lambda layer, info: _GlobalAveragePool2D(),
    "BatchNorm": _batch_norm,
    "Dropout": lambda layer, info: FastDropout(layer.rate),
    "Flatten": lambda layer, info: _Flatten(),
    "Dense": _Dense,
    "Activation": lambda layer, info: _Activation(layer),
    "Residual": _Residual,
}


def _pad(x: Tensor, pad_widths: PadWidths, value: float) -> Tensor:
    top, left, bottom, right = pad_widths
    return F.pad(x, (left, right, top, bottom), value=value) if any(pad_widths) else x
