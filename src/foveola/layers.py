"""The layers that a recipe can name: settings, the shape each gives, what it costs.

Nothing here computes: `foveola.models.network` builds them in PyTorch. Shapes are those of one image, without the
batch: (height, width, channels) before `Flatten` or a global pooling, (features,) after it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Shape = tuple[int, ...]
# Pixels above, left, below and right of an image
Edges = tuple[int, int, int, int]
Padding = Literal["valid", "same"]
Activation = Literal["linear", "relu", "leaky-relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Count = Annotated[int, Field(ge=1, strict=True)]


class DoesNotFit(Exception):
    """Why a layer cannot take the shape it got."""


class _Layer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        """Numbers that training changes."""
        return 0

    def state(self, shape: Shape) -> int:
        """Numbers that are kept but not trained (the running statistics of batch normalisation)."""
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        """Multiplications, each with its addition, for one image."""
        return 0

    def describe(self) -> str:
        """The settings, as a person would say them."""
        return ""


class Conv2D(_Layer):
    """Cross-correlation with `filters` learnt kernels, as in Keras."""

    type: Literal["Conv2D"] = "Conv2D"
    filters: Count
    kernel: Count = 3
    stride: Count = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        height, width, _ = _image(shape)
        return (*_windows(height, width, self.kernel, self.stride, self.padding), self.filters)

    def parameters(self, shape: Shape) -> int:
        return self._weights(shape) + self.filters * self.bias

    def edges(self, shape: Shape) -> Edges:
        """What padding adds to an image."""
        return _edges(shape, self.output_shape(shape), self.kernel, self.stride, self.padding)

    def multiply_adds(self, shape: Shape) -> int:
        height, width, _ = self.output_shape(shape)
        return height * width * self._weights(shape)

    def _weights(self, shape: Shape) -> int:
        return self.kernel**2 * _image(shape)[2] * self.filters

    def describe(self) -> str:
        return _words(
            f"{self.filters} filters {self.kernel}×{self.kernel}", _stride(self.stride), self.padding, self.activation
        )


class _Pool2D(_Layer):
    size: Count = 2
    stride: Count | None = Field(default=None, description="the window's size unless given")
    padding: Padding = "valid"

    @property
    def step(self) -> int:
        return self.stride or self.size

    def output_shape(self, shape: Shape) -> Shape:
        height, width, channels = _image(shape)
        return (*_windows(height, width, self.size, self.step, self.padding), channels)

    def edges(self, shape: Shape) -> Edges:
        """What padding adds to an image."""
        return _edges(shape, self.output_shape(shape), self.size, self.step, self.padding)

    def describe(self) -> str:
        return _words(f"{self.size}×{self.size}", _stride(self.step) if self.step != self.size else "", self.padding)


class MaxPool2D(_Pool2D):
    """The largest value of each window."""

    type: Literal["MaxPool2D"] = "MaxPool2D"


class AveragePool2D(_Pool2D):
    """The mean of each window; with "same" padding, of the part of it that lies inside the image, as in Keras."""

    type: Literal["AveragePool2D"] = "AveragePool2D"


class _GlobalPool2D(_Layer):
    def output_shape(self, shape: Shape) -> Shape:
        return (_image(shape)[2],)


class GlobalMaxPool2D(_GlobalPool2D):
    """The largest value of each channel."""

    type: Literal["GlobalMaxPool2D"] = "GlobalMaxPool2D"


class GlobalAveragePool2D(_GlobalPool2D):
    """The mean of each channel."""

    type: Literal["GlobalAveragePool2D"] = "GlobalAveragePool2D"


class BatchNorm(_Layer):
    """Each channel to zero mean and unit variance over the batch, then scaled and shifted (Ioffe and Szegedy, 2015).

    `momentum` is the share of the running statistics that a step keeps, as in Keras.
    """

    type: Literal["BatchNorm"] = "BatchNorm"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    epsilon: Annotated[float, Field(gt=0)] = 1e-3

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[-1]

    def state(self, shape: Shape) -> int:
        return 2 * shape[-1]

    def multiply_adds(self, shape: Shape) -> int:
        return _size(shape)


class Dropout(_Layer):
    """Zeroes a random share of the values while training and scales up the rest (Srivastava et al., 2014)."""

    type: Literal["Dropout"] = "Dropout"
    rate: Annotated[float, Field(ge=0, lt=1)]

    def describe(self) -> str:
        return f"{self.rate:g}"


class Flatten(_Layer):
    """All values of an image in one row: height, then width, then channel, as in Keras."""

    type: Literal["Flatten"] = "Flatten"

    def output_shape(self, shape: Shape) -> Shape:
        return (_size(shape),)


class Dense(_Layer):
    """Every input to every output; `units = "classes"` gives one output a class of the data."""

    type: Literal["Dense"] = "Dense"
    units: Count | Literal["classes"]
    activation: Activation = "linear"
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise DoesNotFit("it takes a row of features; put Flatten or a global pooling before it")
        assert self.units != "classes", "resolved by trace()"
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        (units,) = self.output_shape(shape)
        return units * (shape[0] + self.bias)

    def multiply_adds(self, shape: Shape) -> int:
        return shape[0] * self.output_shape(shape)[0]

    def describe(self) -> str:
        return _words(f"{self.units} units", self.activation)


class Activate(_Layer):
    """An activation as a layer of its own."""

    type: Literal["Activation"] = "Activation"
    function: Activation

    def describe(self) -> str:
        return self.function


Layer = Annotated[
    Conv2D
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

LAYERS: dict[str, type[_Layer]] = {
    "Conv2D": Conv2D,
    "MaxPool2D": MaxPool2D,
    "AveragePool2D": AveragePool2D,
    "GlobalMaxPool2D": GlobalMaxPool2D,
    "GlobalAveragePool2D": GlobalAveragePool2D,
    "BatchNorm": BatchNorm,
    "Dropout": Dropout,
    "Flatten": Flatten,
    "Dense": Dense,
    "Activation": Activate,
}


def _image(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise DoesNotFit("it takes images of height × width × channels; put it before Flatten or the global pooling")
    return shape


def _windows(height: int, width: int, size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """How many places a window has along each side."""
    if padding == "same":
        return -(-height // stride), -(-width // stride)
    if min(height, width) < size:
        raise DoesNotFit(f'its {size}×{size} window is larger than the image; use padding = "same" or fewer poolings')
    return (height - size) // stride + 1, (width - size) // stride + 1


def _edges(before: Shape, after: Shape, size: int, stride: int, padding: Padding) -> Edges:
    """Of "same": as many pixels as the windows need, an odd one below and right, as in Keras."""
    if padding == "valid":
        return 0, 0, 0, 0
    down, across = (
        max((windows - 1) * stride + size - side, 0) for side, windows in zip(before[:2], after, strict=False)
    )
    return down // 2, across // 2, down - down // 2, across - across // 2


def _size(shape: Shape) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _stride(stride: int) -> str:
    return f"stride {stride}" if stride > 1 else ""


def _words(*words: str) -> str:
    return ", ".join(word for word in words if word not in ("", "linear"))
