"""The layers that a recipe can name: their settings, output shapes and costs.

`foveola.models.modules` builds them in PyTorch. A layer may hold others: `Residual` does. Shapes are those of one
image, without the batch: (height, width, channels) before `Flatten` or a global pooling, (features,) after it.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Shape = tuple[int, ...]
# Pixels added above, left of, below and right of an image
PadWidths = tuple[int, int, int, int]
# "same": as many windows as strides, an odd pixel below and right, as in Keras; "symmetric": half a window on each
# side, as in PyTorch
Padding = Literal["valid", "same", "symmetric"]
Activation = Literal["linear", "relu", "relu6", "leaky-relu", "elu", "gelu", "silu", "hard-swish", "tanh", "sigmoid"]
Count = Annotated[int, Field(ge=1, le=2**20, strict=True)]
# Of leaky-relu, below zero
LEAKY_SLOPE = 0.01


class ShapeMismatch(Exception):
    """A layer cannot take its input shape; the message is the reason, without a full stop."""


class _Layer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        """Number of trainable parameters."""
        return 0

    def buffers(self, shape: Shape) -> int:
        """Number of values that are stored but not trained (the running statistics of batch normalisation)."""
        return 0

    def pad_widths(self, shape: Shape) -> PadWidths:
        """Pixels that padding adds on each side of an image."""
        return 0, 0, 0, 0

    def multiply_adds(self, shape: Shape) -> int:
        """Number of multiplications, each with its addition, for one image."""
        return 0

    def settings_text(self) -> str:
        """The settings in words, for tables and diagrams."""
        return ""


class Conv2D(_Layer):
    """2D convolution with `filters` trained kernels (a cross-correlation, as in Keras)."""

    type: Literal["Conv2D"] = "Conv2D"
    filters: Count
    kernel: Count = 3
    stride: Count = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        height, width, _ = _check_image(shape)
        return (*_count_windows(height, width, self.kernel, self.stride, self.padding), self.filters)

    def parameters(self, shape: Shape) -> int:
        return self._weights(shape) + self.filters * self.bias

    def pad_widths(self, shape: Shape) -> PadWidths:
        return _pad_widths(shape, self.output_shape(shape), self.kernel, self.stride, self.padding)

    def multiply_adds(self, shape: Shape) -> int:
        height, width, _ = self.output_shape(shape)
        return height * width * self._weights(shape)

    def _weights(self, shape: Shape) -> int:
        return self.kernel**2 * _check_image(shape)[2] * self.filters

    def settings_text(self) -> str:
        return _join_settings(
            f"{self.filters} filters {self.kernel}×{self.kernel}",
            _stride_text(self.stride),
            self.padding,
            self.activation,
        )


class DepthwiseConv2D(_Layer):
    """A convolution of each channel with a kernel of its own (as in MobileNets: Howard et al., 2017)."""

    type: Literal["DepthwiseConv2D"] = "DepthwiseConv2D"
    kernel: Count = 3
    stride: Count = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        height, width, channels = _check_image(shape)
        return (*_count_windows(height, width, self.kernel, self.stride, self.padding), channels)

    def parameters(self, shape: Shape) -> int:
        return _check_image(shape)[2] * (self.kernel**2 + self.bias)

    def pad_widths(self, shape: Shape) -> PadWidths:
        return _pad_widths(shape, self.output_shape(shape), self.kernel, self.stride, self.padding)

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * self.kernel**2

    def settings_text(self) -> str:
        return _join_settings(f"{self.kernel}×{self.kernel}", _stride_text(self.stride), self.padding, self.activation)


class _Pool2D(_Layer):
    size: Count = 2
    stride: Count | None = Field(default=None, description="the window's size unless given")
    padding: Padding = "valid"

    @property
    def window_stride(self) -> int:
        return self.stride or self.size

    def output_shape(self, shape: Shape) -> Shape:
        height, width, channels = _check_image(shape)
        return (*_count_windows(height, width, self.size, self.window_stride, self.padding), channels)

    def pad_widths(self, shape: Shape) -> PadWidths:
        return _pad_widths(shape, self.output_shape(shape), self.size, self.window_stride, self.padding)

    def settings_text(self) -> str:
        return _join_settings(
            f"{self.size}×{self.size}",
            _stride_text(self.window_stride) if self.window_stride != self.size else "",
            self.padding,
        )


class MaxPool2D(_Pool2D):
    """The largest value of each window."""

    type: Literal["MaxPool2D"] = "MaxPool2D"


class AveragePool2D(_Pool2D):
    """The mean of each window; with "same" padding, of its pixels inside the image only, as in Keras."""

    type: Literal["AveragePool2D"] = "AveragePool2D"


class _GlobalPool2D(_Layer):
    def output_shape(self, shape: Shape) -> Shape:
        return (_check_image(shape)[2],)


class GlobalMaxPool2D(_GlobalPool2D):
    """The largest value of each channel."""

    type: Literal["GlobalMaxPool2D"] = "GlobalMaxPool2D"


class GlobalAveragePool2D(_GlobalPool2D):
    """The mean of each channel."""

    type: Literal["GlobalAveragePool2D"] = "GlobalAveragePool2D"


class BatchNorm(_Layer):
    """Normalise each channel over the batch, then scale and shift it (Ioffe and Szegedy, 2015).

    `momentum` is the weight of the old running statistics in their update, as in Keras.
    """

    type: Literal["BatchNorm"] = "BatchNorm"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    epsilon: Annotated[float, Field(gt=0)] = 1e-3

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[-1]

    def buffers(self, shape: Shape) -> int:
        return 2 * shape[-1]

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape)


class Dropout(_Layer):
    """Zero a random fraction of the values while training, and scale up the rest (Srivastava et al., 2014)."""

    type: Literal["Dropout"] = "Dropout"
    rate: Annotated[float, Field(ge=0, lt=1)]

    def settings_text(self) -> str:
        return f"{self.rate:g}"


class Flatten(_Layer):
    """All values of an image as one vector, in the order height, width, channel, as in Keras."""

    type: Literal["Flatten"] = "Flatten"

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


class Dense(_Layer):
    """Fully connected layer; `units = "classes"` gives one output for each class of the data."""

    type: Literal["Dense"] = "Dense"
    units: Count | Literal["classes"]
    activation: Activation = "linear"
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise ShapeMismatch("it takes a vector of features; put Flatten or a global pooling before it")
        assert self.units != "classes", "replaced by infer_shapes()"
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        (units,) = self.output_shape(shape)
        return units * (shape[0] + self.bias)

    def multiply_adds(self, shape: Shape) -> int:
        return shape[0] * self.output_shape(shape)[0]

    def settings_text(self) -> str:
        return _join_settings(f"{self.units} units", self.activation)


class Activate(_Layer):
    """An activation function as a separate layer."""

    type: Literal["Activation"] = "Activation"
    function: Activation
    slope: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of leaky-relu below zero; 0.01 unless given"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slope is not None and self.function != "leaky-relu":
            raise ValueError(f"slope belongs to leaky-relu, not to {self.function}")
        return self

    @property
    def negative_slope(self) -> float:
        return LEAKY_SLOPE if self.slope is None else self.slope

    def settings_text(self) -> str:
        return _join_settings(self.function, "" if self.slope is None else f"slope {self.slope:g}")


PlainLayer = Annotated[
    Conv2D
    | DepthwiseConv2D
    | MaxPool2D
    | AveragePool2D
    | GlobalMaxPool2D
    | GlobalAveragePool2D
    | BatchNorm
    | Dropout
    | Flatten
    | Dense
    | Activate,
    Field(discriminator="type"),
]


class Residual(_Layer):
    """Layers whose output is added to their input (He et al., 2016, arXiv:1512.03385).

    Where they change the shape, `projection` holds the layers that the input passes before the addition.
    """

    type: Literal["Residual"] = "Residual"
    layers: tuple[PlainLayer, ...] = Field(min_length=1, max_length=100)
    projection: tuple[PlainLayer, ...] = Field(default=(), max_length=100)
    activation: Activation = Field(default="linear", description="of the sum")

    def output_shape(self, shape: Shape) -> Shape:
        outputs = [_follow(branch, layers, shape) for branch, layers in self.branches.items()]
        if outputs[0] != outputs[1]:
            given, added = ("×".join(map(str, output)) for output in outputs)
            raise ShapeMismatch(
                f"layers give {given}, which cannot be added to {added}; make the shapes equal by stride and filters "
                f"of projection"
            )
        return outputs[0]

    @property
    def branches(self) -> dict[str, tuple[PlainLayer, ...]]:
        """What is added up, by the name of the setting."""
        return {"layers": self.layers, "projection": self.projection}

    def parameters(self, shape: Shape) -> int:
        return sum(layer.parameters(taken) for layer, taken in self._inner(shape))

    def buffers(self, shape: Shape) -> int:
        return sum(layer.buffers(taken) for layer, taken in self._inner(shape))

    def multiply_adds(self, shape: Shape) -> int:
        return sum(layer.multiply_adds(taken) for layer, taken in self._inner(shape))

    def _inner(self, shape: Shape) -> Iterator[tuple[PlainLayer, Shape]]:
        """All layers inside, each with its input shape."""
        for layers in self.branches.values():
            taken = shape
            for layer in layers:
                yield layer, taken
                taken = layer.output_shape(taken)

    def settings_text(self) -> str:
        projection = f"projection of {len(self.projection)}" if self.projection else ""
        return _join_settings(f"{len(self.layers)} layers", projection, self.activation)


Layer = Annotated[PlainLayer | Residual, Field(discriminator="type")]

LAYERS: dict[str, type[_Layer]] = {
    "Conv2D": Conv2D,
    "DepthwiseConv2D": DepthwiseConv2D,
    "MaxPool2D": MaxPool2D,
    "AveragePool2D": AveragePool2D,
    "GlobalMaxPool2D": GlobalMaxPool2D,
    "GlobalAveragePool2D": GlobalAveragePool2D,
    "BatchNorm": BatchNorm,
    "Dropout": Dropout,
    "Flatten": Flatten,
    "Dense": Dense,
    "Activation": Activate,
    "Residual": Residual,
}


def plain_layers(layers: Iterable[Layer]) -> Iterator[PlainLayer]:
    """All layers, with those inside a layer in its place."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from (*layer.layers, *layer.projection)
        else:
            yield layer


def _follow(branch: str, layers: Iterable[PlainLayer], shape: Shape) -> Shape:
    """The shape that a branch of a residual layer gives."""
    for position, layer in enumerate(layers):
        place = f"{branch}[{position}] ({layer.type})"
        if isinstance(layer, Dense) and layer.units == "classes":
            raise ShapeMismatch(f'{place} has units = "classes", which only the last layer of the network may have')
        try:
            shape = layer.output_shape(shape)
        except ShapeMismatch as reason:
            raise ShapeMismatch(f"{place} got the shape {'×'.join(map(str, shape))}: {reason}") from None
    return shape


def _check_image(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeMismatch("it takes images of height × width × channels; put it before Flatten or the global pooling")
    return shape


def _count_windows(height: int, width: int, size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Number of windows along height and width."""
    if padding == "same":
        return -(-height // stride), -(-width // stride)
    if padding == "symmetric":
        height, width = height + size // 2 * 2, width + size // 2 * 2
    if min(height, width) < size:
        raise ShapeMismatch(
            f'its {size}×{size} window is larger than the image; use padding = "same" or fewer pooling layers'
        )
    return (height - size) // stride + 1, (width - size) // stride + 1


def _pad_widths(before: Shape, after: Shape, size: int, stride: int, padding: Padding) -> PadWidths:
    """Pixels that padding adds."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "symmetric":
        half = size // 2
        return half, half, half, half
    down, across = (
        max((windows - 1) * stride + size - side, 0) for side, windows in zip(before[:2], after, strict=False)
    )
    return down // 2, across // 2, down - down // 2, across - across // 2


def _stride_text(stride: int) -> str:
    return f"stride {stride}" if stride > 1 else ""


def _join_settings(*settings: str) -> str:
    return ", ".join(setting for setting in settings if setting not in ("", "linear"))
