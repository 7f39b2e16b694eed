"""Bounds of networks that torch has exported: shapes as ONNX Runtime gives them, and nothing that is too large."""

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from foveola.exports import onnx
from foveola.exports.allowlist import UnsafeOnnx, inspect_onnx
from foveola.exports.bounds import check_bounds
from foveola.exports.own_bounds import _RULES, BATCH_SIZE, NetworkNode, Size, Tensor, apply_rule

SHAPE = (4, 6, 8)
INT = np.int64
# Not operators of this table: those that need their inputs of another kind are in the tests of whole networks
CASES = {
    "Relu": [("Relu", ["x"], {})],
    "Clip": [("Clip", ["x", np.float32(0), np.float32(6)], {})],
    "Softmax": [("Softmax", ["x"], {"axis": -1})],
    "LayerNormalization": [("LayerNormalization", ["x", np.ones(8, np.float32), np.zeros(8, np.float32)], {})],
    "InstanceNormalization": [("InstanceNormalization", ["x", np.ones(4, np.float32), np.zeros(4, np.float32)], {})],
    "Add, broadcast": [("Add", ["x", np.ones((4, 1, 1), np.float32)], {})],
    "Add, of two ranks": [("Add", ["x", np.ones((5, 1, 4, 6, 8), np.float32)], {})],
    "Where": [("Where", [np.ones((1, 8), bool), "x", np.float32(0)], {})],
    "Reshape": [("Reshape", ["x", np.array([-1, 8], INT)], {})],
    "Reshape, keeping": [("Reshape", ["x", np.array([0, 2, -1, 0], INT)], {"allowzero": 0})],
    "Reshape, batch last": [("Reshape", ["x", np.array([192, -1], INT)], {})],
    "Flatten": [("Flatten", ["x"], {"axis": 2})],
    "Squeeze": [("ReduceMean", ["x", np.array([1, 2])], {}), ("Squeeze", [0, np.array([1, -2])], {})],
    "Squeeze of all": [("ReduceMean", ["x", np.array([1, 2])], {}), ("Squeeze", [0, np.array([1, 2])], {})],
    "Unsqueeze": [("Unsqueeze", ["x", np.array([0, -1])], {})],
    "Transpose": [("Transpose", ["x"], {"perm": [1, 0, 3, 2]})],
    "Transpose, reversed": [("Transpose", ["x"], {})],
    "Expand": [("Expand", ["x", np.array([3, 1, 1, 1, 8], INT)], {})],
    "Tile": [("Tile", ["x", np.array([1, 2, 1, 3], INT)], {})],
    "Concat": [("Concat", ["x", "x"], {"axis": -2})],
    "Slice": [("Slice", ["x", np.array([1, -1]), np.array([3, -9]), np.array([2, 3]), np.array([1, -2])], {})],
    "Slice, whole batch": [("Slice", ["x", np.array([0]), np.array([2**63 - 1])], {})],
    "Gather": [("Gather", ["x", np.array([[0, 2], [1, -1]])], {"axis": 2})],
    "Gather one": [("Gather", ["x", np.array(0)], {"axis": 1})],
    "GatherND": [("Transpose", ["x"], {}), ("GatherND", [0, np.array([[0, 1], [2, 3]])], {})],
    "GatherElements": [("Transpose", ["x"], {}), ("GatherElements", [0, np.zeros((8, 2, 4, 1), INT)], {"axis": 1})],
    "ScatterND": [("ScatterND", [np.zeros((5, 3), np.float32), np.array([[1]]), np.ones((1, 3), np.float32)], {})],
    "Pad": [("Pad", ["x", np.array([0, 0, 1, 2, 0, 0, 3, -1])], {})],
    "Pad, axes": [("Pad", ["x", np.array([1, 1]), "", np.array([-1])], {"mode": "reflect"})],
    "ReduceMean": [("ReduceMean", ["x", np.array([-1, 2])], {"keepdims": 0})],
    "ReduceMax of all": [("ReduceMax", ["x"], {"keepdims": 0})],
    "MatMul": [("MatMul", ["x", np.ones((8, 5), np.float32)], {})],
    "MatMul of two values": [("Transpose", ["x"], {"perm": [0, 1, 3, 2]}), ("MatMul", ["x", 0], {})],
    "Gemm": [("Flatten", ["x"], {}), ("Gemm", [0, np.ones((5, 192), np.float32)], {"transB": 1})],
    "Conv": [("Conv", ["x", np.ones((6, 4, 3, 2), np.float32)], {"strides": [2, 1], "pads": [1, 0, 2, 1]})],
    "Conv, dilated": [("Conv", ["x", np.ones((6, 4, 2, 3), np.float32)], {"dilations": [2, 3]})],
    "Conv, grouped": [("Conv", ["x", np.ones((8, 1, 3, 3), np.float32)], {"group": 4})],
    "MaxPool, ceil": [("MaxPool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
    "AveragePool": [("AveragePool", ["x"], {"kernel_shape": [2, 3], "pads": [1, 1, 0, 0]})],
    "AveragePool, ceil": [("AveragePool", ["x"], {"kernel_shape": [2, 2], "strides": [3, 5], "ceil_mode": 1})],
    "GlobalAveragePool": [("GlobalAveragePool", ["x"], {})],
    "sizes of the batch": [
        ("Shape", ["x"], {}),
        ("Gather", [0, np.array([0])], {}),
        ("Mul", [1, np.array([4], INT)], {}),
        ("Concat", [2, np.array([-1], INT)], {"axis": 0}),
        ("Reshape", ["x", 3], {}),
    ],
    "part of a shape": [
        ("Shape", ["x"], {"start": 1, "end": -1}),
        ("Div", [0, np.array([2], INT)], {}),
        ("Concat", [np.array([-1], INT), 1, np.array([4, 8], INT)], {"axis": 0}),
        ("Reshape", ["x", 2], {}),
    ],
    "Range": [
        ("Shape", ["x"], {"start": 0, "end": 1}),
        ("Squeeze", [0], {}),
        ("Range", [np.array(0), 1, np.array(1)], {}),
    ],
    "Cast": [("Shape", ["x"], {}), ("Cast", [0], {"to": TensorProto.INT64}), ("Expand", [np.float32(1), 1], {})],
}


def built(steps):
    """A graph of the input x, float N×4×6×8, and these nodes; an input is a name, an earlier node, or a constant."""
    nodes, constants = [], []
    for number, (operator, inputs, attributes) in enumerate(steps):
        names = []
        for given in inputs:
            if isinstance(given, np.ndarray | np.generic):
                names.append(f"constant {len(constants)}")
                constants.append(numpy_helper.from_array(np.asarray(given), names[-1]))
            else:
                names.append(given if isinstance(given, str) else f"node {given}")
        nodes.append(helper.make_node(operator, names, [f"node {number}"], **attributes))
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])
    output = onnx_format.ValueInfoProto(name=nodes[-1].output[0])
    return helper.make_graph(nodes, "test", [images], [output], constants)


def bounded(graph):
    """The shape of the last node, by the rules."""
    known = {"x": Tensor((BATCH_SIZE, *map(Size, SHAPE)))}
    for constant in graph.initializer:
        values = numpy_helper.to_array(constant)
        numbers = values.flatten().tolist() if values.dtype == INT and values.ndim < 2 else None
        known[constant.name] = Tensor.constant(values.shape, numbers)
    for node in graph.node:
        (result,) = apply_rule(NetworkNode(memoryview(node.SerializeToString()), known, lambda tensor: tensor)).outputs
        known[node.output[0]] = result
    return result.shape


@pytest.mark.parametrize("name", CASES)
def test_the_rules_give_the_shapes_of_onnx_runtime(name):
    graph = built(CASES[name])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", onnx.OPSET)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = bounded(graph)
    for count in (1, 3, 64):
        (values,) = session.run(None, {"x": np.zeros((count, *SHAPE), np.float32)})
        assert values.shape == tuple(size.factor * count**size.power for size in shape)


def test_a_split_has_the_parts_of_onnx_runtime():
    node = helper.make_node("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3)
    known = {"x": Tensor((BATCH_SIZE, Size(4), Size(7)))}
    result = apply_rule(NetworkNode(memoryview(node.SerializeToString()), known, lambda tensor: tensor))
    assert [tensor.shape[2].factor for tensor in result.outputs] == [3, 3, 1]


X = "x"
REFUSED = {
    "an unknown operator": ([("Einsum", [X], {"equation": "nchw->nc"})], "Einsum which exports do not allow"),
    "loops": ([("Loop", [X], {})], "Loop which exports do not allow"),
    "a size that depends on values": (
        [("ReduceSum", [X], {"keepdims": 0}), ("Cast", [0], {"to": 7}), ("Unsqueeze", [1, np.array([0])], {}),
         ("Expand", [X, 2], {})],
        "depends on values",
    ),
    "a product of batches": ([("Shape", [X], {"end": 1}), ("Mul", [0, 0], {}), ("Expand", [np.float32(0), 1], {})],
                             "depends on values"),
    "another pairing": ([("MatMul", [X, np.ones((7, 5), np.float32)], {})], "do not fit together"),
    "another shape": ([("Add", [X, np.ones((3, 1), np.float32)], {})], "other shapes"),
    "a target of another size": ([("Reshape", [X, np.array([-1, 7], INT)], {})], "does not fit its output"),
    "a fixed batch": ([("Reshape", [X, np.array([2, 192], INT)], {})], "does not fit its output"),
    "nothing left": ([("Slice", [X, np.array([8]), np.array([9]), np.array([3])], {})], "empty"),
    "a part of the batch": ([("Slice", [X, np.array([0]), np.array([1]), np.array([0])], {})], "part of the batch"),
    "more images": ([("Pad", [X, np.array([1, 0, 0, 0, 0, 0, 0, 0])], {})], "adds images"),
    "padding by name": ([("Conv", [X, np.ones((1, 4, 3, 3), np.float32)], {"auto_pad": "SAME_UPPER"})], "auto_pad"),
    "no stride": ([("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [0, 1]})], "unusual settings"),
    "padding to a large map": ([("MaxPool", [X], {"kernel_shape": [1, 1], "pads": [9_000] * 4})], "pads an image"),
    "an axis too many": ([("Gather", [X, np.array(0)], {"axis": 4})], "axis that its input lacks"),
    "an absent input": ([("Relu", ["nothing"], {})], "no node before it gives"),
    "an input left out": ([("MatMul", [X, ""], {})], "lacks an input"),
    "more parts than outputs": ([("Split", [X], {"axis": 1, "num_outputs": 2**40})], "another number of outputs"),
    "nine axes": ([("Reshape", [X, np.array([-1, 1, 1, 1, 1, 1, 1, 1, 192], INT)], {})], "more than 8 axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_bounded_is_refused(name):
    steps, reason = REFUSED[name]
    with pytest.raises(UnsafeOnnx, match=reason):
        bounded(built(steps))


# Whole files


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def add(model, operator, inputs, output, **attributes):
    model.graph.node.append(helper.make_node(operator, inputs, [f"network/{output}"], **attributes))
    return f"network/{output}"


def maps_of(model):
    """Feature maps of one of Foveola's layers, 4×8×8."""
    return next(n.output[0] for n in model.graph.node if n.op_type == "Relu")


def expand(model):
    add(model, "Expand", [maps_of(model), constant(model, "huge", [1, 4, 8000, 1, 1])], "more")


def tile(model):
    add(model, "Tile", [maps_of(model), constant(model, "huge", [1, 1, 10_000, 10_000])], "more")


def constants_that_grow(model):
    add(
        model, "Tile", [constant(model, "one", np.zeros((1, 1), np.float32)), constant(model, "huge", [2**15] * 2)], "x"
    )


def many_products(model):
    wide = add(model, "Reshape", [maps_of(model), constant(model, "column", [0, 256, 1])], "column")
    tall = add(model, "Reshape", [maps_of(model), constant(model, "row", [0, 1, 256])], "row")
    last = add(model, "MatMul", [wide, tall], "square")
    for number in range(9000):
        last = add(model, "MatMul", [last, last], f"power {number}")


def batch_by_batch(model):
    """As many values as the square of the batch's size."""
    flat = add(model, "Flatten", [maps_of(model)], "flat")
    turned = add(model, "Transpose", [flat], "turned")
    square = add(model, "MatMul", [flat, turned], "square")
    line = add(model, "Reshape", [square, constant(model, "line", [-1, 1, 1])], "line")
    add(model, "Expand", [line, constant(model, "huge", [1, 1000, 1000])], "more")


def numbers_that_grow(model):
    last = constant(model, "number", [2**30])
    for number in range(60):
        last = add(model, "Mul", [last, last], f"power {number}")
    add(model, "Expand", [maps_of(model), last], "more")


def images_of_any_size(model):
    add(model, "Relu", ["images"], "more")


def a_name_twice(model):
    add(model, "Relu", [maps_of(model)], "more")
    add(model, "Relu", [maps_of(model)], "more")


def batch_in_another_place(model):
    turned = add(model, "Transpose", [maps_of(model)], "turned", perm=[1, 0, 2, 3])
    model.graph.node.append(helper.make_node("Relu", [turned], ["more"]))


HOSTILE = {
    expand: "values for an image, of at most|other shapes",
    tile: "values for an image, of at most",
    constants_that_grow: "weights, of at most",
    many_products: "multiply-adds, of at most",
    batch_by_batch: "values for an image|unusual way",
    numbers_that_grow: "depends on values",
    images_of_any_size: "not resized",
    a_name_twice: "two values named",
    batch_in_another_place: "batch as its first axis",
}
STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def export(write, classifier_of):
    return write(classifier_of(STACK, (8, 8, 1)))


@pytest.mark.parametrize("change", HOSTILE)
def test_expensive_networks_are_refused_before_they_run(export, change):
    model = onnx_format.load(export)
    change(model)
    with pytest.raises(UnsafeOnnx, match=HOSTILE[change]):
        check_bounds(inspect_onnx(model.SerializeToString()).graph)


def test_refusing_an_expensive_network_takes_no_memory(export, peak_memory):
    model = onnx_format.load(export)
    tile(model)
    export.write_bytes(model.SerializeToString())
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from foveola.errors import ModelError\nfrom foveola.exports import onnx\n"
        "try:\n    onnx.open(Path(sys.argv[1]))\n"
        "except ModelError as error:\n    assert 'Tile' in str(error)\n"
        "else:\n    assert False"
    )
    assert peak_memory(code, export) < 200 * 2**20


def test_every_operator_has_a_rule_of_its_own():
    assert {"Einsum", "Loop", "If", "Scan", "ConstantOfShape", "NonZero", "Resize", "Constant"}.isdisjoint(_RULES)
