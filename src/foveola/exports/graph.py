"""ONNX graph of a trained network: uint8 images N×H×W×C of any size in, logits float32 N×K out.

Every layer has one node, in the order of the layers; a residual layer has those of the layers inside it. Batch
normalisation and temperature are folded into the preceding weights where that is exact.

If the model measures unfamiliarity, the scores, float32 N, are the second output.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from foveola.exports.allowlist import INPUT, OUTPUT, UNFAMILIARITY, LayerOutput
from foveola.models import layers
from foveola.models.layers import BatchNorm
from foveola.models.metadata import ModelMetadata
from foveola.models.shapes import LayerInfo, infer_shapes
from foveola.models.unfamiliarity import SMALLEST, FeatureStatistics, count_features, named_layers

# ITU-R BT.601 luma, as in `foveola.models.classifier`; the leading 1 is for images that are already grey
_LUMA = np.array([1, 0.299, 0.587, 0.114], np.float32)
_OPERATORS = {
    "relu": "Relu",
    "leaky-relu": "LeakyRelu",
    "elu": "Elu",
    "gelu": "Gelu",
    "hard-swish": "HardSwish",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
# Layers that at most reorder the values of the layer before
_NOT_LISTED = ("Flatten", "Dropout")

Weights = dict[str, NDArray[Any]]


def build_graph(
    metadata: ModelMetadata, weights: Mapping[str, NDArray[np.float32]]
) -> tuple[GraphProto, tuple[LayerOutput, ...]]:
    """Build the graph of the network that the metadata describes, with preprocessing and temperature.

    Parameters
    ----------
    metadata : with layers
    weights : by the names that `foveola.models.modules` gives them

    Returns
    -------
    (graph, layers): `layers` are the outputs of the layers and their tensors, in the order of computation
    """
    assert metadata.layers is not None, "a network written by the user has no layers to translate"
    classes = len(metadata.class_names)
    # Folded in float64, to round to float32 only once, at the end
    folded = {name: values.astype(np.float64) for name, values in weights.items()}
    graph_layers = _fold_batch_norm(infer_shapes(metadata.layers, metadata.network_shape, classes), folded)
    scale, shift = np.full(classes, 1 / metadata.temperature), np.zeros(classes)
    temperature_is_folded = _fold_affine(graph_layers, folded, scale, shift, "temperature")

    graph = Graph(folded)
    x = normalize(graph, fit_shape(graph, metadata), metadata)
    outputs, tensors = [], {}
    for layer in graph_layers:
        x = _NODES[layer.info.layer.type](graph, x, layer.info)
        tensors[layer.name] = x
        if layer.type not in _NOT_LISTED:
            outputs.append(LayerOutput(name=layer.name, type=layer.type, tensor=x, shape=layer.info.output_shape))
    if temperature_is_folded:
        outputs = [output for output in outputs if output.tensor != x]
    else:
        graph.node("Mul", x, graph.constant("1 / temperature", np.float32(1 / metadata.temperature)))
    graph.nodes[-1].output[0] = OUTPUT
    if metadata.unfamiliarity is not None:
        _unfamiliarity(graph, tensors, metadata, weights)
    outputs.append(LayerOutput(name=OUTPUT, type=graph_layers[-1].type, tensor=OUTPUT, shape=(classes,)))
    return signed_graph(graph, metadata), tuple(outputs)


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node, and return the name of its output."""
        output = f"{operator.lower()}_{len(self.nodes) + 1}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """Append a constant, and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def scalar(self, value: float) -> str:
        """A constant number, of which there is one for all nodes, and its name."""
        name = f"{value:g}"
        return name if any(known.name == name for known in self.constants) else self.constant(name, np.float32(value))

    def weights_of(self, info: LayerInfo, *names: str) -> list[str]:
        """Append those of the named weights that a layer has, and return their names."""
        present = [name for name in (f"{info.name}.{name}" for name in names) if name in self.weights]
        return [self.constant(name, self.weights[name].astype(np.float32)) for name in present]


def signed_graph(graph: Graph, metadata: ModelMetadata) -> GraphProto:
    """The whole graph, with the inputs and outputs of a model with this metadata."""
    channels = "channels" if metadata.channels == "grey" else metadata.image_shape[2]
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", channels])
    results = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(metadata.class_names)])]
    if metadata.unfamiliarity is not None:
        results.append(helper.make_tensor_value_info(UNFAMILIARITY, TensorProto.FLOAT, ["batch"]))
    return helper.make_graph(graph.nodes, "foveola", [images], results, graph.constants)


# Folding


@dataclass
class _GraphLayer:
    """A layer of the graph, with name and type of its output: its own, or those of the layers folded into it."""

    info: LayerInfo
    name: str
    type: str


def _fold_batch_norm(infos: Sequence[LayerInfo], weights: Weights) -> list[_GraphLayer]:
    """The layers of the graph, without the normalisations that are folded into a layer before them."""
    graph_layers: list[_GraphLayer] = []
    for info in infos:
        if isinstance(info.layer, BatchNorm):
            weight, bias, mean, variance = (
                weights[f"{info.name}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
            )
            scale = weight / np.sqrt(variance + info.layer.epsilon)
            if _fold_affine(graph_layers, weights, scale, bias - mean * scale, info.name):
                graph_layers[-1].name, graph_layers[-1].type = info.name, info.layer.type
                continue
        graph_layers.append(_GraphLayer(info, info.name, info.layer.type))
    return graph_layers


def _fold_affine(
    graph_layers: Sequence[_GraphLayer], weights: Weights, scale: NDArray[Any], shift: NDArray[Any], what: str
) -> bool:
    """Fold a scale and shift into the weights of the last layer that has any; False if that is not exact.

    Layers after it must commute with the affine map. A mean always does; a maximum only if no scale is negative.
    """
    for index, layer in reversed(list(enumerate(graph_layers))):
        match layer.info.layer:
            case (
                layers.Conv2D(activation="linear")
                | layers.DepthwiseConv2D(activation="linear")
                | layers.Dense(activation="linear")
            ):
                weight, bias = f"{layer.info.name}.weight", f"{layer.info.name}.bias"
                weights[bias] = weights.get(bias, np.zeros_like(shift)) * scale + shift
                weights[weight] = weights[weight] * scale.reshape(-1, *[1] * (weights[weight].ndim - 1))
                for changed in graph_layers[index:]:
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


def fit_shape(graph: Graph, metadata: ModelMetadata) -> str:
    """Float images N×H×W×C of the network's size and number of channels."""
    height, width, _ = metadata.image_shape
    x = graph.node("Cast", INPUT, to=TensorProto.FLOAT)
    if metadata.channels == "grey":
        x = _to_grey(graph, x)
    size = graph.constant("size", np.array([height, width]))
    if metadata.resize == "stretch":
        return _resize(graph, x, size)
    place = _letterbox_size(graph, size, (height, width))
    beside = graph.node("Sub", size, place)
    before = graph.node("Div", beside, graph.constant("halves", np.array([2])))
    pads = graph.node("Concat", before, graph.node("Sub", beside, before), axis=0)
    fill = graph.constant("fill", np.float32(metadata.fill))
    return graph.node("Pad", _resize(graph, x, place), pads, fill, graph.constant("sides", np.array([1, 2])))


def _resize(graph: Graph, x: str, size: str) -> str:
    # exclude_outside, because PyTorch never averages over pixels outside the image
    return graph.node("Resize", x, "", "", size, axes=[1, 2], mode="linear", antialias=1, exclude_outside=1)


def _letterbox_size(graph: Graph, size: str, target: tuple[int, int]) -> str:
    """Rows and columns of the images in their letterbox, int64, computed as `foveola.images.letterbox_place` does."""
    height = graph.node("Shape", INPUT, start=1, end=2)
    width = graph.node("Shape", INPUT, start=2, end=3)
    own, other = graph.node("Concat", height, width, axis=0), graph.node("Concat", width, height, axis=0)
    # own · 2 · the target's other side, plus a half, divided by the own other side
    doubled = graph.node("Mul", own, graph.constant("twice the other side", 2 * np.array(target[::-1])))
    divisor = graph.node("Add", other, other)
    rounded = graph.node("Div", graph.node("Add", doubled, other), divisor)
    return graph.node("Min", graph.node("Max", rounded, graph.constant("one", np.array([1]))), size)


def _to_grey(graph: Graph, x: str) -> str:
    """Luma of colour images; grey images stay as they are. The slice of _LUMA depends on the channels, 1 or 3."""
    channels = graph.node("Shape", INPUT, start=3)
    start = graph.node("Div", channels, graph.constant("two", np.array([2])))
    end = graph.node("Add", start, channels)
    luma = graph.node("Slice", graph.constant("luma", _LUMA[:, None]), start, end)
    return graph.node("MatMul", x, luma)


def normalize(graph: Graph, x: str, metadata: ModelMetadata) -> str:
    """The network's input: float N×C×H×W, padded with black, then scaled."""
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
    if metadata.pad:
        x = graph.node("Pad", x, graph.constant("pad", np.array([0, 0, metadata.pad, metadata.pad] * 2)))
    channels = metadata.image_shape[2]
    mean, std = (255 * np.resize(values, channels) for values in (metadata.mean, metadata.std))
    values = {"scale": 1 / std, "shift": np.zeros_like(mean), "mean": mean, "variance": np.ones_like(std)}
    constants = [graph.constant(name, value.astype(np.float32)) for name, value in values.items()]
    return graph.node("BatchNormalization", x, *constants, epsilon=0.0)


# Unfamiliarity, as in `foveola.models.unfamiliarity`


def _unfamiliarity(
    graph: Graph, tensors: Mapping[str, str], metadata: ModelMetadata, weights: Mapping[str, NDArray[np.float32]]
) -> None:
    """Scores, float N, of the features and the logits; operators that the int8 export keeps in float32."""
    assert metadata.unfamiliarity is not None, "the caller has looked"
    infos = named_layers(metadata)
    statistics = FeatureStatistics.from_tensors(weights, sum(map(count_features, infos)), len(metadata.class_names))
    means = statistics.class_means.astype(np.float64)
    positions = graph.constant("height, width", np.array([2, 3]))
    columns = graph.constant("columns", np.array([1]))

    features = [
        graph.node("ReduceMean", tensors[info.name], positions, keepdims=0)
        if len(info.output_shape) == 3
        else tensors[info.name]
        for info in infos
    ]
    x = graph.node("Concat", *features, axis=1) if len(features) > 1 else features[0]
    x = graph.node("Sub", x, graph.constant("feature center", statistics.center))
    x = graph.node("MatMul", x, graph.constant("whitening", statistics.whitening))
    # |x - mean|² = |x|² - 2 x·mean + |mean|²
    lengths = graph.node("ReduceSumSquare", x, columns, keepdims=1)
    products = graph.node("MatMul", x, graph.constant("-2 class means", (-2 * means.T).astype(np.float32)))
    offsets = graph.constant("class means squared", (means**2).sum(axis=1).astype(np.float32))
    squares = graph.node("Add", graph.node("Add", products, offsets), lengths)
    nearest = graph.node("ReduceMin", squares, columns, keepdims=0)
    distance = graph.node("Log", graph.node("Max", nearest, graph.constant("smallest", np.float32(SMALLEST))))
    energy = graph.node("ReduceLogSumExp", OUTPUT, columns, keepdims=0)  # with the opposite sign
    weight = graph.constant("energy weight", np.float32(metadata.unfamiliarity.energy_weight))
    graph.node("Sub", distance, graph.node("Mul", energy, weight))
    graph.nodes[-1].output[0] = UNFAMILIARITY


# Layers


def _conv(graph: Graph, x: str, info: LayerInfo) -> str:
    layer = info.layer
    assert isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)
    pads = list(layer.pad_widths(info.input_shape))
    group = {"group": info.input_shape[2]} if isinstance(layer, layers.DepthwiseConv2D) else {}
    weights = graph.weights_of(info, "weight", "bias")
    x = graph.node("Conv", x, *weights, strides=[layer.stride] * 2, pads=pads, **group)
    return _activate(graph, x, layer.activation)


def _dense(graph: Graph, x: str, info: LayerInfo) -> str:
    assert isinstance(info.layer, layers.Dense)
    x = graph.node("Gemm", x, *graph.weights_of(info, "weight", "bias"), transB=1)
    return _activate(graph, x, info.layer.activation)


def _pool(graph: Graph, x: str, info: LayerInfo) -> str:
    layer = info.layer
    assert isinstance(layer, layers.MaxPool2D | layers.AveragePool2D)
    operator = "MaxPool" if isinstance(layer, layers.MaxPool2D) else "AveragePool"
    pads = list(layer.pad_widths(info.input_shape))
    return graph.node(operator, x, kernel_shape=[layer.size] * 2, strides=[layer.window_stride] * 2, pads=pads)


def _batch_norm(graph: Graph, x: str, info: LayerInfo) -> str:
    assert isinstance(info.layer, BatchNorm)
    weights = graph.weights_of(info, "weight", "bias", "running_mean", "running_var")
    return graph.node("BatchNormalization", x, *weights, epsilon=info.layer.epsilon)


def _flatten(graph: Graph, x: str, info: LayerInfo) -> str:
    if len(info.input_shape) == 1:
        return x
    return graph.node("Flatten", graph.node("Transpose", x, perm=[0, 2, 3, 1]))


def _activation(graph: Graph, x: str, info: LayerInfo) -> str:
    assert isinstance(info.layer, layers.Activate)
    if info.layer.slope is not None:
        return graph.node("LeakyRelu", x, alpha=info.layer.slope)
    return _activate(graph, x, info.layer.function)


def _residual(graph: Graph, x: str, info: LayerInfo) -> str:
    assert isinstance(info.layer, layers.Residual)
    ends = []
    for branch in info.branches.values():
        end = x
        for layer in _fold_batch_norm(branch, graph.weights):
            end = _NODES[layer.info.layer.type](graph, end, layer.info)
        ends.append(end)
    return _activate(graph, graph.node("Add", *ends), info.layer.activation)


def _activate(graph: Graph, x: str, function: layers.Activation) -> str:
    if function == "linear":
        return x
    if function == "relu6":
        return graph.node("Clip", x, graph.scalar(0), graph.scalar(6))
    if function == "silu":
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    return graph.node(_OPERATORS[function], x)


_NODES: dict[str, Callable[[Graph, str, LayerInfo], str]] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _conv,
    "MaxPool2D": _pool,
    "AveragePool2D": _pool,
    "GlobalMaxPool2D": lambda graph, x, info: graph.node("Flatten", graph.node("GlobalMaxPool", x)),
    "GlobalAveragePool2D": lambda graph, x, info: graph.node("Flatten", graph.node("GlobalAveragePool", x)),
    "BatchNorm": _batch_norm,
    "Dropout": lambda graph, x, info: x,
    "Flatten": _flatten,
    "Dense": _dense,
    "Activation": _activation,
    "Residual": _residual,
}
