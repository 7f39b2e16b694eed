"""A trained stack as an ONNX graph: uint8 images N×H×W×C of any size in, logits float32 N×K out.

One node a layer, in the order of the layers. Batch normalisation and temperature are folded into the weights before
them, where that is exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from foveola import layers
from foveola.architecture import Step, trace
from foveola.export.contents import INPUT, OUTPUT, LayerOutput
from foveola.layers import BatchNorm
from foveola.models.card import ModelCard

# The first with Gelu; antialiasing came with 18
OPSET = 20

# ITU-R BT.601 luma, as in `foveola.models.classifier`; the leading 1 serves images that are grey already
_LUMA = np.array([1, 0.299, 0.587, 0.114], np.float32)
_OPERATORS = {
    "relu": "Relu",
    "leaky-relu": "LeakyRelu",
    "elu": "Elu",
    "gelu": "Gelu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
# Their output is another layer's, in the same or another order
_NOT_SHOWN = ("Flatten", "Dropout")

Weights = dict[str, NDArray[Any]]


def build_graph(
    card: ModelCard, weights: Mapping[str, NDArray[np.float32]]
) -> tuple[GraphProto, tuple[LayerOutput, ...]]:
    """The network that a card describes, with preprocessing before it and the temperature applied.

    Parameters
    ----------
    card : with layers
    weights : by the names that `foveola.models.network` gives them

    Returns
    -------
    (graph, layers): the second says which tensors hold what its layers give, in the order of computation
    """
    assert card.layers is not None, "a network of the user's own has no layers to translate"
    classes = len(card.class_names)
    # Folded in float64, so that the one rounding to float32 comes last
    folded = {name: values.astype(np.float64) for name, values in weights.items()}
    parts = _fold_batch_norm(trace(card.layers, card.network_shape, classes), folded)
    tempered = _take_over(parts, folded, np.full(classes, 1 / card.temperature), np.zeros(classes), "temperature")

    graph = _Graph(folded)
    x = _normalize(graph, _fit_shape(graph, card), card)
    shown = []
    for part in parts:
        x = _TRANSLATIONS[part.step.layer.type](graph, x, part.step)
        if part.type not in _NOT_SHOWN:
            shown.append(LayerOutput(name=part.name, type=part.type, tensor=x, shape=part.step.output_shape))
    if tempered:
        shown = [layer for layer in shown if layer.tensor != x]
    else:
        graph.node("Mul", x, graph.constant("1 / temperature", np.float32(1 / card.temperature)))
    graph.nodes[-1].output[0] = OUTPUT
    shown.append(LayerOutput(name=OUTPUT, type=parts[-1].type, tensor=OUTPUT, shape=(classes,)))
    channels = "channels" if card.channels == "grey" else card.image_shape[2]
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", channels])
    logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])
    return helper.make_graph(graph.nodes, "foveola", [images], [logits], graph.constants), tuple(shown)


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; the name of its output."""
        output = f"{operator.lower()}_{len(self.nodes) + 1}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights_of(self, step: Step, *names: str) -> list[str]:
        """The constants of a layer, those that it has."""
        found = [name for name in (f"{step.name}.{name}" for name in names) if name in self.weights]
        return [self.constant(name, self.weights[name].astype(np.float32)) for name in found]


# Folding


@dataclass
class _Part:
    """A layer of the graph, with name and type of what it gives: its own, or that of those folded into it."""

    step: Step
    name: str
    type: str


def _fold_batch_norm(steps: Sequence[Step], weights: Weights) -> list[_Part]:
    """The steps without the normalisations that a layer before them has taken over."""
    parts: list[_Part] = []
    for step in steps:
        if isinstance(step.layer, BatchNorm):
            weight, bias, mean, variance = (
                weights[f"{step.name}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
            )
            scale = weight / np.sqrt(variance + step.layer.epsilon)
            if _take_over(parts, weights, scale, bias - mean * scale, step.name):
                parts[-1].name, parts[-1].type = step.name, step.layer.type
                continue
        parts.append(_Part(step, step.name, step.layer.type))
    return parts


def _take_over(parts: Sequence[_Part], weights: Weights, scale: NDArray[Any], shift: NDArray[Any], what: str) -> bool:
    """Let the last layer with weights scale and shift its outputs, if nothing between here and there forbids it.

    A mean commutes with every such map; a maximum only with one that keeps the order, so not with a negative scale.
    """
    for number, part in reversed(list(enumerate(parts))):
        match part.step.layer:
            case layers.Conv2D(activation="linear") | layers.Dense(activation="linear"):
                weight, bias = f"{part.step.name}.weight", f"{part.step.name}.bias"
                weights[bias] = weights.get(bias, np.zeros_like(shift)) * scale + shift
                weights[weight] = weights[weight] * scale.reshape(-1, *[1] * (weights[weight].ndim - 1))
                for changed in parts[number:]:
                    changed.name += f" + {what}"
                return True
            case layers.MaxPool2D() | layers.GlobalMaxPool2D() if (scale < 0).any():
                return False
            case layers.MaxPool2D() | layers.AveragePool2D() | layers.Dropout():
                continue
            case layers.GlobalMaxPool2D() | layers.GlobalAveragePool2D():
                continue
            case _:
                return False
    return False


# Preprocessing, as in `foveola.models.classifier`


def _fit_shape(graph: _Graph, card: ModelCard) -> str:
    """Float images N×H×W×C in the size and with the channels that the network takes."""
    height, width, _ = card.image_shape
    x = graph.node("Cast", INPUT, to=TensorProto.FLOAT)
    if card.channels == "grey":
        x = _to_grey(graph, x)
    # PyTorch leaves what lies outside the image out of the mean; ONNX does so only if told
    size = graph.constant("size", np.array([height, width]))
    return graph.node("Resize", x, "", "", size, axes=[1, 2], mode="linear", antialias=1, exclude_outside=1)


def _to_grey(graph: _Graph, x: str) -> str:
    """Luma of colour images, grey ones as they are: the weights are cut to as many as there are channels, 1 or 3."""
    channels = graph.node("Shape", INPUT, start=3)
    start = graph.node("Div", channels, graph.constant("two", np.array([2])))
    end = graph.node("Add", start, channels)
    luma = graph.node("Slice", graph.constant("luma", _LUMA[:, None]), start, end)
    return graph.node("MatMul", x, luma)


def _normalize(graph: _Graph, x: str, card: ModelCard) -> str:
    """What the network sees: float N×C×H×W, padded with black, then scaled."""
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
    if card.pad:
        x = graph.node("Pad", x, graph.constant("pad", np.array([0, 0, card.pad, card.pad] * 2)))
    mean, std = 255 * np.array(card.mean), 255 * np.array(card.std)
    values = {"scale": 1 / std, "shift": np.zeros_like(mean), "mean": mean, "variance": np.ones_like(std)}
    constants = [graph.constant(name, value.astype(np.float32)) for name, value in values.items()]
    return graph.node("BatchNormalization", x, *constants, epsilon=0.0)


# Layers


def _conv(graph: _Graph, x: str, step: Step) -> str:
    layer = step.layer
    assert isinstance(layer, layers.Conv2D)
    pads = list(layer.edges(step.input_shape))
    x = graph.node("Conv", x, *graph.weights_of(step, "weight", "bias"), strides=[layer.stride] * 2, pads=pads)
    return _activate(graph, x, layer.activation)


def _dense(graph: _Graph, x: str, step: Step) -> str:
    assert isinstance(step.layer, layers.Dense)
    x = graph.node("Gemm", x, *graph.weights_of(step, "weight", "bias"), transB=1)
    return _activate(graph, x, step.layer.activation)


def _pool(graph: _Graph, x: str, step: Step) -> str:
    layer = step.layer
    assert isinstance(layer, layers.MaxPool2D | layers.AveragePool2D)
    operator = "MaxPool" if isinstance(layer, layers.MaxPool2D) else "AveragePool"
    pads = list(layer.edges(step.input_shape))
    return graph.node(operator, x, kernel_shape=[layer.size] * 2, strides=[layer.step] * 2, pads=pads)


def _batch_norm(graph: _Graph, x: str, step: Step) -> str:
    assert isinstance(step.layer, BatchNorm)
    weights = graph.weights_of(step, "weight", "bias", "running_mean", "running_var")
    return graph.node("BatchNormalization", x, *weights, epsilon=step.layer.epsilon)


def _flatten(graph: _Graph, x: str, step: Step) -> str:
    if len(step.input_shape) == 1:
        return x
    return graph.node("Flatten", graph.node("Transpose", x, perm=[0, 2, 3, 1]))


def _activation(graph: _Graph, x: str, step: Step) -> str:
    assert isinstance(step.layer, layers.Activate)
    return _activate(graph, x, step.layer.function)


def _activate(graph: _Graph, x: str, function: layers.Activation) -> str:
    if function == "linear":
        return x
    if function == "silu":
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    return graph.node(_OPERATORS[function], x)


_TRANSLATIONS: dict[str, Callable[[_Graph, str, Step], str]] = {
    "Conv2D": _conv,
    "MaxPool2D": _pool,
    "AveragePool2D": _pool,
    "GlobalMaxPool2D": lambda graph, x, step: graph.node("Flatten", graph.node("GlobalMaxPool", x)),
    "GlobalAveragePool2D": lambda graph, x, step: graph.node("Flatten", graph.node("GlobalAveragePool", x)),
    "BatchNorm": _batch_norm,
    "Dropout": lambda graph, x, step: x,
    "Flatten": _flatten,
    "Dense": _dense,
    "Activation": _activation,
}
