"""ONNX graph of a network that a user has written in PyTorch: exported by torch, between preprocessing and temperature.

Its code is needed here only. What reads the graph needs neither the code nor PyTorch.
"""

import ast
import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    ValueInfoProto,
    checker,
    helper,
    numpy_helper,
    shape_inference,
)  # fmt: skip

from foveola.exports import onnx as onnx_format
from foveola.exports.allowlist import OUTPUT, LayerOutput, UnsafeOnnx, inspect_onnx
from foveola.exports.bounds import check_bounds
from foveola.exports.graph import Graph, fit_shape, normalize, signed_graph
from foveola.exports.own_bounds import PREFIX
from foveola.exports.parity import record_golden
from foveola.models.layers import Shape
from foveola.models.metadata import ModelMetadata

if TYPE_CHECKING:
    from torch import nn

    from foveola.models.classifier import Classifier

# Of a network with more modules, only outer ones are listed: a page shows the layers one below the other
MAX_LAYERS = 40
# The name of the vector that the last product of matrices takes
FEATURES = "features"
# torch would take the size of a batch of one for a constant
_EXAMPLE_IMAGES = 2
# What torch says of each node: the modules that it lies in, outermost first, then itself; and their classes
_MODULES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"


class NotExportable(Exception):
    """The network cannot be exported; the message completes "…, because"."""


def write(source: Path, live: "Classifier", target: Path) -> None:
    """Export a model whose network a user has written.

    Parameters
    ----------
    source : its model file
    live : the same model, on the CPU
    target : the file to write, atomically; `foveola.exports.onnx.open` opens it

    Raises
    ------
    NotExportable
        If torch cannot export the network, or its graph has something that exports do not allow.
    ModelError
        If the model's outputs are not finite.
    """
    metadata = live.metadata
    graph, layers = build_own_graph(live.network, metadata)
    source_digest = hashlib.sha256(source.read_bytes()).hexdigest()
    description = onnx_format.Description(metadata, source_digest, layers, record_golden(live, metadata))
    onnx_format.save(graph, description, target)


def build_own_graph(network: "nn.Module", metadata: ModelMetadata) -> tuple[GraphProto, tuple[LayerOutput, ...]]:
    """Export a network, and put it between the preprocessing and the temperature of its model.

    Parameters
    ----------
    network : float N×C×H×W → logits, float N×K; it is left as it is
    metadata : of its model, without layers

    Returns
    -------
    (graph, layers): `layers` are those outputs of its modules that are feature maps or vectors, in the order of
    computation

    Raises
    ------
    NotExportable
        If torch cannot export the network, or its graph has something that exports do not allow.
    """
    exported = _export(network, metadata.network_shape)
    graph = Graph({})
    images = normalize(graph, fit_shape(graph, metadata), metadata)
    names = _append(graph, exported, images)
    logits = names[exported.output[0].name]
    graph.node("Mul", logits, graph.constant("1 / temperature", np.float32(1 / metadata.temperature)))
    graph.nodes[-1].output[0] = OUTPUT
    shape = (len(metadata.class_names),)
    layers = (
        *(layer for layer in _named_layers(exported, names, metadata.network_shape) if layer.tensor != logits),
        LayerOutput(name=OUTPUT, type="Logits", tensor=OUTPUT, shape=shape),
    )
    whole = signed_graph(graph, metadata)
    try:
        check_bounds(inspect_onnx(onnx_format.as_model(whole).SerializeToString()).graph)
    except UnsafeOnnx as reason:
        raise NotExportable(f"its graph {reason}") from None
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        raise NotExportable(f"its graph is not valid ONNX: {_root_cause(error)}") from None
    return whole, layers


def _export(network: "nn.Module", shape: Shape) -> GraphProto:
    """The graph that torch makes of a network in evaluation mode, for batches of every size; its weights are inside."""
    try:
        # Torch would write the order of the channels in memory into the graph
        plain = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    except Exception as error:  # whatever the user's code raises
        raise NotExportable(f"it cannot be copied: {_root_cause(error)}") from None
    reasons = []
    # Tracing the code line by line takes longer, but understands len(images)
    for strict in (False, True):
        try:
            with _quiet():
                model = _translated(plain, shape, strict=strict)
            break
        except Exception as error:  # whatever the user's code or torch raises
            reasons.append(_root_cause(error))
    else:
        raise NotExportable(f"torch.onnx.export cannot translate it: {reasons[0]}")
    if len(model.functions) or any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        raise NotExportable("torch.onnx.export translates it into operators that are not part of ONNX")
    graph: GraphProto = model.graph
    return graph


def _translated(network: "nn.Module", shape: Shape, *, strict: bool) -> ModelProto:
    height, width, channels = shape
    example = torch.zeros(_EXAMPLE_IMAGES, channels, height, width)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    exported = torch.onnx.export(program, dynamo=True, opset_version=onnx_format.OPSET, optimize=True, verbose=False)
    assert exported is not None, "dynamo gives a program"
    model: ModelProto = exported.model_proto
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither warnings nor log lines of torch: what matters is raised."""
    loggers = [logging.getLogger(name) for name in ("torch.__trace", "torch.onnx", "torch.export", "torch._dynamo")]
    disabled = [logger.disabled for logger in loggers]
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    try:
        registration.setLevel(logging.ERROR)
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)
        for logger, before in zip(loggers, disabled, strict=True):
            logger.disabled = before


def _root_cause(error: BaseException) -> str:
    """Type and first line of the error that led to this one; the outer ones ask to report a bug in PyTorch."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _append(graph: Graph, exported: GraphProto, images: str) -> dict[str, str]:
    """Append the network's constants and nodes; the names of its values in the whole graph, by their own."""
    names = {exported.input[0].name: images}
    for tensor in exported.initializer:
        names[tensor.name] = graph.constant(f"{PREFIX}{tensor.name}", numpy_helper.to_array(tensor))
    for node in exported.node:
        outputs = _used_outputs(node)
        names |= {name: f"{PREFIX}{name}" for name in outputs if name}
        if node.op_type == "Constant":
            values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            graph.constant(names[node.output[0]], _constant_value(values))
            continue
        inputs = [names[name] if name else "" for name in node.input]
        copied = helper.make_node(node.op_type, inputs, [names.get(name, "") for name in outputs])
        copied.attribute.extend(node.attribute)
        for attribute in copied.attribute:
            attribute.ClearField("doc_string")
        graph.nodes.append(copied)
    return names


def _used_outputs(node: NodeProto) -> list[str]:
    """The outputs of a node without unnamed ones at the end."""
    outputs = list(node.output)
    while outputs and not outputs[-1]:
        outputs.pop()
    return outputs


def _constant_value(values: Mapping[str, object]) -> object:
    """The array of a Constant node."""
    ((kind, value),) = values.items()
    if kind == "value":
        return numpy_helper.to_array(value)  # type: ignore[arg-type]
    return np.array(value, np.int64 if kind in ("value_int", "value_ints") else np.float32)


def _named_layers(exported: GraphProto, names: Mapping[str, str], image: Shape) -> list[LayerOutput]:
    """The outputs of the network's modules, of each that of its last node; then the input of the last dense layer.

    Left out are modules whose nodes all lie in modules inside them, because the last of these gives their output, and
    outputs that are neither feature maps of an image of this shape nor vectors.
    """
    (batch, *_) = exported.input[0].type.tensor_type.shape.dim
    values = (*exported.value_info, *exported.output)
    shapes = {value.name: _shape(value, batch.dim_param, image) for value in values}
    found: dict[str, LayerOutput] = {}
    features = None
    for node in exported.node:
        described = {entry.key: entry.value for entry in node.metadata_props}
        modules, classes = (ast.literal_eval(described.get(key, "[]")) for key in (_MODULES, _CLASSES))
        taken, given = shapes.get(node.input[0]) if node.input else None, shapes.get(node.output[0])
        if node.op_type in ("Gemm", "MatMul") and taken is not None:
            features = LayerOutput(name=FEATURES, type="Features", tensor=names[node.input[0]], shape=taken)
        if given is not None and len(modules) == len(classes) > 1 and modules[-2]:
            kind = str(classes[-2]).rpartition(".")[2]
            found.pop(modules[-2], None)
            found[modules[-2]] = LayerOutput(name=modules[-2], type=kind, tensor=names[node.output[0]], shape=given)
    layers = _outermost(list(found.values()))
    return layers if features is None else [*layers, features]


def _shape(value: ValueInfoProto, batch: str, image: Shape) -> Shape | None:
    """Height, width and channels of feature maps with the image's aspect, or units; None if a value is neither.

    `batch` is the name of the batch's size.
    """
    dims = value.type.tensor_type.shape.dim
    if len(dims) not in (2, 4) or dims[0].dim_param != batch or any(dim.dim_value < 1 for dim in dims[1:]):
        return None
    if len(dims) == 2:
        return (dims[1].dim_value,)
    channels, height, width = (dim.dim_value for dim in dims[1:])
    rows, columns, *_ = image
    alike = height <= rows and width <= columns and abs(height * columns - width * rows) <= max(rows, columns)
    return (height, width, channels) if alike else None


def _outermost(layers: list[LayerOutput]) -> list[LayerOutput]:
    """At most MAX_LAYERS layers: without those that lie deepest, or else evenly chosen."""
    while len(layers) > MAX_LAYERS:
        depths = [layer.name.count(".") for layer in layers]
        outer = [layer for layer, depth in zip(layers, depths, strict=True) if depth < max(depths)]
        if not outer:
            return layers[:: -(-len(layers) // MAX_LAYERS)]
        layers = outer
    return layers
