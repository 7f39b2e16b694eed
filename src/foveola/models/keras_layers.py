"""Single layers of Keras as Foveola's: every class and every setting is on a list, or the layer is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from foveola.models.keras_files import TRAINING_ONLY, KerasLayer, NotImportable, check_own
from foveola.models.layers import (
    Activate,
    Activation,
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
    PadWidths,
    PlainLayer,
    Shape,
)
from foveola.models.metadata import first_problem

Weights = NDArray[np.float32]
Reads = dict[str, Callable[[], Weights]]
AnyLayer = TypeVar("AnyLayer", bound=PlainLayer)

# Keras' names of activations → those of our layers
_ACTIVATIONS: dict[str, Activation] = {name: name for name in get_args(Activation) if "-" not in name} | {
    "swish": "silu", "hard_swish": "hard-swish", "hard_silu": "hard-swish",
}  # fmt: skip
# Of leaky_relu as an activation that is named, and as a layer
_NAMED_SLOPE, _LAYER_SLOPE = 0.2, 0.3
_WHY_NOT = {
    "Lambda": "it runs Python code that the file brings along",
    "TFOpLambda": "it calls a function of TensorFlow by name",
    **dict.fromkeys(
        ("Sequential", "Functional", "Model"), "it is a model inside the model. Save one with all layers in a row"
    ),
}
# Settings that change nothing in what a trained layer computes
_IRRELEVANT = {
    "name", "trainable", "seed", "batch_input_shape", "input_shape", "input_dim", "fused", "synchronized",
    "virtual_batch_size", "adjustment", "renorm_momentum",
}  # fmt: skip
_IRRELEVANT_ENDINGS = ("_initializer", "_regularizer", "_constraint")
_PRECISIONS = ("float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class Translated:
    """A layer, and what reads its weights: the shape that it gets → a function for each weight's name."""

    layer: PlainLayer
    weights: Callable[[Shape], Reads] = lambda shape: {}


@dataclass(frozen=True)
class Zeros:
    """Zeros that are added on each side."""

    widths: PadWidths


@dataclass(frozen=True)
class Rescaled:
    """Values that are multiplied by `scale`, to which `offset` is added."""

    scale: float
    offset: float


@dataclass(frozen=True)
class Reshaped:
    """Values in another shape, in which one side may be -1."""

    target: tuple[int, ...]


@dataclass(frozen=True)
class Softmax:
    """Softmax over the last axis."""


Part = Translated | Zeros | Rescaled | Reshaped | Softmax


def translate_layer(layer: KerasLayer) -> list[Part]:
    """What a layer consists of, in Foveola's terms.

    Raises
    ------
    NotImportable
        If its class or one of its settings is not imported.
    """
    if layer.kind == "InputLayer" or layer.kind in TRAINING_ONLY:
        return []
    if layer.kind not in _READERS:
        raise NotImportable(_WHY_NOT.get(layer.kind, f"of classes, only these are: {', '.join(_READERS)}") + ".")
    settings = _Settings(layer.settings)
    parts = _READERS[layer.kind](layer, settings)
    settings.check_all_taken()
    return parts


# Settings


class _Settings:
    """The configuration of a layer, of which every setting has to be taken."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._left = {
            name: value
            for name, value in configuration.items()
            if name not in _IRRELEVANT and not name.endswith(_IRRELEVANT_ENDINGS)
        }
        precision = self._left.pop("dtype", "float32")
        if isinstance(precision, dict):  # a policy, in Keras 3
            inner = precision.get("config")
            precision = inner.get("name") if isinstance(inner, dict) else inner
        if precision not in _PRECISIONS:
            raise NotImportable(f"it computes in {_short(precision)}.")

    def take(self, name: str, default: Any = None) -> Any:
        return self._left.pop(name, default)

    def flag(self, name: str) -> bool:
        """A setting that is true by default."""
        return self.choice(name, True, False) is True

    def choice(self, name: str, *allowed: Any) -> Any:
        """A setting that has one of these values, the first of which is the default."""
        value = self.take(name, allowed[0])
        if not any(type(value) is type(other) and value == other for other in allowed):
            raise NotImportable(f"its {name} is {_short(value)}; imported is {' or '.join(map(str, allowed))}.")
        return value

    def side(self, name: str, default: int | None) -> Any:
        """A setting for height and width, which have to be equal."""
        value = self.take(name, default)
        if isinstance(value, list) and (len(value) != 2 or value[0] != value[1]):
            raise NotImportable(f"its {name} is {_short(value)}; imported are equal ones for height and width.")
        return value[0] if isinstance(value, list) else value

    def number(self, name: str, default: float) -> float:
        value = self.take(name, default)
        if type(value) not in (int, float) or not abs(value) <= 1e9:
            raise NotImportable(f"its {name} is {_short(value)}; imported are numbers.")
        return float(value)

    def check_all_taken(self) -> None:
        """Refuse settings that are not known here, unless they are off."""
        for name, value in self._left.items():
            if value is not None and value is not False:
                raise NotImportable(f"its setting {_short(name)} = {_short(value)} is not known.")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _make(kind: type[AnyLayer], **settings: Any) -> AnyLayer:
    try:
        return kind(**settings)
    except ValidationError as invalid:
        raise NotImportable(f"{first_problem(invalid)}.") from None


# Activations

_Function = tuple[Activation | None, float | None]  # None: softmax; the slope of leaky-relu
_LINEAR: _Function = ("linear", None)


def _function(value: Any) -> _Function:
    """An activation that is an argument of another layer: its name, or a layer of its own."""
    if value is None:
        return _LINEAR
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        kind = check_own(value, "its activation")
        if kind in _FUNCTIONS:
            settings = _Settings(value["config"])
            function = _FUNCTIONS[kind](settings)
            settings.check_all_taken()
            return function
        value = kind
    if value == "softmax":
        return None, None
    if value == "leaky_relu":
        return "leaky-relu", _NAMED_SLOPE
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        known = ", ".join(sorted([*_ACTIVATIONS, "leaky_relu", "softmax"]))
        raise NotImportable(f"its activation is {_short(value)}; imported are {known}.")
    return _ACTIVATIONS[value], None


def _leaky(slope: float) -> _Function:
    return ("relu", None) if slope == 0 else ("leaky-relu", slope)


def _relu(settings: _Settings) -> _Function:
    limit, slope, threshold = (
        settings.take("max_value"),
        settings.number("negative_slope", 0),
        settings.number("threshold", 0),
    )
    if threshold != 0 or limit not in (None, 6) or (limit == 6 and slope != 0):
        raise NotImportable(
            f"its max_value is {_short(limit)}, its threshold {threshold:g}; imported are ReLU and ReLU6."
        )
    return ("relu6", None) if limit == 6 else _leaky(slope)


def _elu(settings: _Settings) -> _Function:
    if (alpha := settings.number("alpha", 1)) != 1:
        raise NotImportable(f"its alpha is {alpha:g}; imported is 1.")
    return "elu", None


def _softmax(settings: _Settings) -> _Function:
    settings.choice("axis", -1)
    return None, None


# Layers that are an activation function
_FUNCTIONS: dict[str, Callable[[_Settings], _Function]] = {
    "Activation": lambda settings: _function(settings.take("activation")),
    "ReLU": _relu,
    "LeakyReLU": lambda settings: _leaky(settings.number("alpha", settings.number("negative_slope", _LAYER_SLOPE))),
    "ELU": _elu,
    "Softmax": _softmax,
}


def _as_argument(function: _Function) -> Activation:
    """The function as an argument of a layer of ours; linear if it takes a layer of its own."""
    name, slope = function
    return "linear" if name is None or slope is not None else name


def _as_layers(function: _Function) -> list[Part]:
    name, slope = function
    if name is None:
        return [Softmax()]
    return [] if function == _LINEAR else [Translated(_make(Activate, function=name, slope=slope))]


def _after(function: _Function) -> list[Part]:
    """What follows a layer that has the function as far as `_as_argument` says."""
    return [] if _as_argument(function) == function[0] else _as_layers(function)


# Weights


def _reads(
    layer: KerasLayer, names: Sequence[str], name: str, shape: Shape, axes: Sequence[int]
) -> Callable[[], Weights]:
    """What reads an array of a layer that has arrays of these names, and puts its axes in PyTorch's order."""
    return lambda: np.ascontiguousarray(layer.array(names, names.index(name), shape).transpose(axes))


def _kernel_and_bias(
    layer: KerasLayer, names: Sequence[str], shape_of: Callable[[Shape], Shape], axes: Sequence[int]
) -> Callable[[Shape], Reads]:
    """What reads the first of these arrays as the weight, and the last as the bias if it is called so."""

    def reads(taken: Shape) -> Reads:
        shape = shape_of(taken)
        weight = {"weight": _reads(layer, names, names[0], shape, axes)}
        outputs = (shape[axes[0]],)
        return weight | ({"bias": _reads(layer, names, "bias", outputs, (0,))} if names[-1] == "bias" else {})

    return reads


# Layers


def _windows(settings: _Settings) -> dict[str, Any]:
    """Stride and padding of a convolution, which must not be dilated."""
    settings.choice("data_format", "channels_last", None)
    if settings.side("dilation_rate", 1) != 1:
        raise NotImportable("it is dilated.")
    return {"stride": settings.side("strides", 1), "padding": settings.choice("padding", "valid", "same")}


def _conv(layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("groups", 1)
    function, bias = _function(settings.take("activation")), settings.flag("use_bias")
    kernel, filters = settings.side("kernel_size", None), settings.take("filters")
    conv = _make(
        Conv2D, filters=filters, kernel=kernel, activation=_as_argument(function), bias=bias, **_windows(settings)
    )
    names = ("kernel", "bias")[: 1 + bias]
    weights = _kernel_and_bias(layer, names, lambda taken: (kernel, kernel, taken[2], filters), (3, 2, 0, 1))
    return [Translated(conv, weights), *_after(function)]


def _depthwise(layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("groups", 1)
    settings.choice("depth_multiplier", 1)
    function, bias, kernel = (
        _function(settings.take("activation")),
        settings.flag("use_bias"),
        settings.side("kernel_size", None),
    )
    conv = _make(DepthwiseConv2D, kernel=kernel, activation=_as_argument(function), bias=bias, **_windows(settings))
    named = "depthwise_kernel" if "depthwise_kernel" in layer.arrays else "kernel"  # by the version
    weights = _kernel_and_bias(
        layer, (named, "bias")[: 1 + bias], lambda taken: (kernel, kernel, taken[2], 1), (2, 3, 0, 1)
    )
    return [Translated(conv, weights), *_after(function)]


def _separable(layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("groups", 1)
    settings.choice("depth_multiplier", 1)
    function, bias = _function(settings.take("activation")), settings.flag("use_bias")
    kernel, filters = settings.side("kernel_size", None), settings.take("filters")
    each = _make(DepthwiseConv2D, kernel=kernel, bias=False, **_windows(settings))
    mixed = _make(Conv2D, filters=filters, kernel=1, activation=_as_argument(function), bias=bias)
    names = ("depthwise_kernel", "pointwise_kernel", "bias")[: 2 + bias]

    def depthwise(taken: Shape) -> Reads:
        return {"weight": _reads(layer, names, names[0], (kernel, kernel, taken[2], 1), (2, 3, 0, 1))}

    def pointwise(taken: Shape) -> Reads:
        reads = {"weight": _reads(layer, names, names[1], (1, 1, taken[2], filters), (3, 2, 0, 1))}
        return reads | ({"bias": _reads(layer, names, "bias", (filters,), (0,))} if bias else {})

    return [Translated(each, depthwise), Translated(mixed, pointwise), *_after(function)]


def _dense(layer: KerasLayer, settings: _Settings) -> list[Part]:
    function, bias, units = _function(settings.take("activation")), settings.flag("use_bias"), settings.take("units")
    if type(units) is not int or not 0 < units <= 2**20:
        raise NotImportable(f"its units are {_short(units)}, of 1 to {2**20:,}.")
    dense = _make(Dense, units=units, activation=_as_argument(function), bias=bias)
    weights = _kernel_and_bias(layer, ("kernel", "bias")[: 1 + bias], lambda taken: (taken[0], units), (1, 0))
    return [Translated(dense, weights), *_after(function)]


def _batch_norm(layer: KerasLayer, settings: _Settings) -> list[Part]:
    axis, scale, center = settings.take("axis", -1), settings.flag("scale"), settings.flag("center")
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    norm = _make(BatchNorm, momentum=settings.number("momentum", 0.99), epsilon=settings.number("epsilon", 1e-3))
    names = [*["gamma"] * scale, *["beta"] * center, "moving_mean", "moving_variance"]

    def weights(taken: Shape) -> Reads:
        if axis not in (-1, len(taken)):
            raise NotImportable(f"its axis is {axis}; imported is the last one, of the channels.")
        features = taken[-1]
        read = partial(_reads, layer, names, shape=(features,), axes=(0,))
        return {
            "weight": read("gamma") if scale else lambda: np.ones(features, np.float32),
            "bias": read("beta") if center else lambda: np.zeros(features, np.float32),
            "running_mean": read("moving_mean"),
            "running_var": lambda: _not_negative(layer.name, read("moving_variance")()),
        }

    return [Translated(norm, weights)]


def _not_negative(name: str, variance: Weights) -> Weights:
    if (variance < 0).any():
        raise NotImportable(f"Of its layer {name}, moving_variance has values below zero.")
    return variance


def _pool(kind: type[MaxPool2D] | type[AveragePool2D], layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("data_format", "channels_last", None)
    size, stride = settings.side("pool_size", 2), settings.side("strides", None)
    return [Translated(_make(kind, size=size, stride=stride, padding=settings.choice("padding", "valid", "same")))]


def _global_pool(pooling: PlainLayer, layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("data_format", "channels_last", None)
    settings.choice("keepdims", False)
    return [Translated(pooling)]


def _flatten(layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("data_format", "channels_last", None)
    return [Translated(Flatten())]


def _dropout(layer: KerasLayer, settings: _Settings) -> list[Part]:
    return [Translated(_make(Dropout, rate=settings.number("rate", 0.5)))]


def _zeros(layer: KerasLayer, settings: _Settings) -> list[Part]:
    settings.choice("data_format", "channels_last", None)
    match settings.take("padding", 1):
        case [[int(top), int(bottom)], [int(left), int(right)]]:
            pass
        case [int(top), int(left)]:
            bottom, right = top, left
        case int(top):
            left = bottom = right = top
        case other:
            raise NotImportable(f"its padding is {_short(other)}.")
    widths = (top, left, bottom, right)
    if not all(0 <= width <= 1024 for width in widths):
        raise NotImportable(f"its padding is {_short(widths)}, of at most 1,024.")
    return [Zeros(widths)]


def _reshape(layer: KerasLayer, settings: _Settings) -> list[Part]:
    target = settings.take("target_shape")
    if not isinstance(target, list) or not all(type(side) is int and -1 <= side < 2**20 for side in target):
        raise NotImportable(f"its target_shape is {_short(target)}.")
    return [Reshaped(tuple(target))]


_READERS: dict[str, Callable[[KerasLayer, _Settings], list[Part]]] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "MaxPooling2D": partial(_pool, MaxPool2D),
    "AveragePooling2D": partial(_pool, AveragePool2D),
    "GlobalMaxPooling2D": partial(_global_pool, GlobalMaxPool2D()),
    "GlobalAveragePooling2D": partial(_global_pool, GlobalAveragePool2D()),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _dropout,
    "ZeroPadding2D": _zeros,
    "Rescaling": lambda layer, settings: [Rescaled(settings.number("scale", 1), settings.number("offset", 0))],
    **{
        kind: partial(lambda read, layer, settings: _as_layers(read(settings)), read)
        for kind, read in _FUNCTIONS.items()
    },
}
