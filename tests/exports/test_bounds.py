"""Bounds of ONNX graphs: expensive or unknown operators are refused before ONNX Runtime gets them."""

import numpy as np
import onnx as onnx_format
import pytest
from onnx import TensorProto, helper, numpy_helper

from foveola.errors import ModelError
from foveola.exports import onnx
from foveola.exports.allowlist import UnsafeOnnx, inspect_onnx
from foveola.exports.bounds import check_bounds
from foveola.exports.onnx import DIGEST_KEY

STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def export(write, classifier_of):
    return write(classifier_of(STACK, (8, 8, 1)))


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def node(model, operator, inputs, output="more", **attributes):
    model.graph.node.append(helper.make_node(operator, inputs, [output], **attributes))


def maps_of(model):
    """The feature maps of the convolution, 4×8×8."""
    return next(n.output[0] for n in model.graph.node if n.op_type == "Relu")


def constant_of_shape(model):
    node(model, "ConstantOfShape", [constant(model, "huge", [1_500_000_000])])


def expand(model):
    node(model, "Expand", [maps_of(model), constant(model, "huge", [1, 4, 80_000, 80_000])])


def tile(model):
    node(model, "Tile", [maps_of(model), constant(model, "huge", [1, 1, 10_000, 10_000])])


def big_resize(model):
    node(model, "Resize", ["images", "", "", constant(model, "huge", [100_000, 100_000])], axes=[1, 2])


def resize_by_the_image(model):
    node(model, "Shape", ["images"], "sides", start=1, end=3)
    node(model, "Mul", ["sides", constant(model, "factor", [1000, 1000])], "many")
    node(model, "Resize", ["images", "", "", "many"], "big", axes=[1, 2])
    node(model, "Transpose", ["big"], perm=[0, 3, 1, 2])


def not_smaller(model):
    sizes = constant(model, "wide", [1, 8])
    node(model, "Resize", ["images", "", "", sizes], axes=[1, 2], keep_aspect_ratio_policy="not_smaller")


def big_pad(model):
    node(model, "Pad", [maps_of(model), constant(model, "huge", [0, 0, 50_000, 50_000] * 2)])


def more_images(model):
    node(model, "Pad", [maps_of(model), constant(model, "huge", [10_000, 0, 0, 0] * 2)])


def wide_conv(model):
    weights = constant(model, "kernel", np.zeros((1, 4, 1, 1), np.float32))
    node(model, "Conv", [maps_of(model), weights], pads=[50_000] * 4, strides=[1, 1])


def big_window(model):
    node(model, "MaxPool", [maps_of(model)], kernel_shape=[1, 1], pads=[50_000] * 4, strides=[1, 1])


def doubling(model):
    name = maps_of(model)
    for number in range(40):
        node(model, "Concat", [name, name], f"double_{number}", axis=1)
        name = f"double_{number}"


def products(model):
    constant(model, "square", np.zeros((300, 300), np.float32))
    constant(model, "wide", np.zeros((8, 300), np.float32))
    weights = constant(model, "channels", np.zeros((1000, 4, 1, 1), np.float32))
    node(model, "Conv", [maps_of(model), weights], "deep", pads=[0] * 4, strides=[1, 1])
    node(model, "MatMul", ["deep", "wide"], "product_0")
    for number in range(200):
        node(model, "MatMul", [f"product_{number}", "square"], f"product_{number + 1}")


def products_of_constants(model):
    constant(model, "square", np.zeros((200, 200), np.float32))
    node(model, "MatMul", ["square", "square"])


def too_many_nodes_on_raw_images(model):
    for number in range(20):
        node(model, "Cast", ["images"], f"cast_{number}x", to=TensorProto.FLOAT)


def raw_convolution(model):
    weights = constant(model, "kernel", np.zeros((1, 8, 1, 1), np.float32))
    node(model, "Conv", ["images", weights], pads=[0] * 4, strides=[1, 1])


def little_data(model):
    model.graph.initializer.append(
        TensorProto(name="huge", dims=[2**40], data_type=TensorProto.FLOAT, raw_data=b"1234")
    )


def no_data(model):
    model.graph.initializer.append(TensorProto(name="huge", dims=[2**31, 0], data_type=TensorProto.FLOAT, raw_data=b""))


def strings(model):
    model.graph.initializer.append(TensorProto(name="huge", dims=[1], data_type=TensorProto.STRING, raw_data=b"1234"))


def reshape(model):
    node(model, "Reshape", [maps_of(model), constant(model, "shape", [-1, 1])])


def mixed_images(model):
    node(model, "Transpose", [maps_of(model)], perm=[1, 0, 2, 3])


def flattened_images(model):
    node(model, "Flatten", [maps_of(model)], axis=0)


def sum_over_images(model):
    node(model, "ReduceMean", [maps_of(model), constant(model, "axes", [0])])


def outer_product(model):
    column = constant(model, "column", np.zeros((1, 60_000, 1, 1), np.float32))
    row = constant(model, "row", np.zeros((1, 1, 1, 60_000), np.float32))
    node(model, "GlobalMaxPool", [maps_of(model)], "points")
    node(model, "Add", ["points", column], "tall")
    node(model, "Add", ["tall", row])


def divided_by_zero(model):
    node(model, "Div", [constant(model, "one_more", [1]), constant(model, "zero", [0])])


def two_of_a_name(model):
    node(model, "Relu", [maps_of(model)], maps_of(model))


def later(model):
    node(model, "Relu", ["never"])


HOSTILE = [
    constant_of_shape, expand, tile, big_resize, resize_by_the_image, not_smaller, big_pad, more_images, wide_conv,
    big_window, doubling, products, products_of_constants, too_many_nodes_on_raw_images, raw_convolution, little_data,
    no_data, strings, reshape, mixed_images, flattened_images, sum_over_images, outer_product, divided_by_zero,
    two_of_a_name, later,
]  # fmt: skip


def signed(path, change):
    """An export with a change, whose checksum is right."""
    model = onnx_format.load(path)
    change(model)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    for entry in model.metadata_props:
        if entry.key == DIGEST_KEY:
            entry.value = onnx.digest(model.graph.SerializeToString(), properties)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("change", HOSTILE)
def test_expensive_graphs_are_refused_before_they_run(export, change, monkeypatch):
    monkeypatch.setattr(onnx, "_session", lambda data: pytest.fail("the file reached ONNX Runtime"))
    with pytest.raises(ModelError, match=r"model\.onnx was not opened: the file (has|is)"):
        onnx.open(signed(export, change))


def test_refusing_an_expensive_graph_takes_no_memory(export, peak_memory):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from foveola.errors import ModelError\nfrom foveola.exports import onnx\n"
        "try:\n    onnx.open(Path(sys.argv[1]))\n"
        "except ModelError as error:\n    assert 'ConstantOfShape' in str(error)\n"
        "else:\n    assert False"
    )
    assert peak_memory(code, signed(export, constant_of_shape)) < 200 * 2**20


@pytest.mark.parametrize(("field", "value"), [("ir_version", 8), ("producer_name", "other"), ("producer_version", "1")])
def test_another_head_is_refused(export, field, value):
    with pytest.raises(ModelError, match="altered or damaged"):
        onnx.open(signed(export, lambda model: setattr(model, field, value)))


def test_another_operator_set_is_refused(export):
    with pytest.raises(ModelError, match="altered or damaged"):
        onnx.open(signed(export, lambda model: setattr(model.opset_import[0], "version", 21)))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("recipe", ["fast", "strong"])
def test_recipes_on_large_images_are_within_bounds(write, classifier_of, recipe, resize, monkeypatch):
    monkeypatch.setattr(onnx, "record_golden", lambda live, metadata: onnx.GoldenExamples(images="", logits=()))
    classifier = classifier_of(recipe, (96, 64, 3), classes=10)
    update = {"resize": resize, "channels": "rgb"}
    classifier.metadata = classifier.metadata.model_copy(update=update)
    check_bounds(inspect_onnx(write(classifier).read_bytes()).graph)


def test_a_letterbox_is_bounded_exactly(write, classifier_of, monkeypatch):
    """Its padding depends on the image; the padded image does not."""
    from foveola.exports import bounds

    classifier = classifier_of(STACK, (8, 8, 1))
    classifier.metadata = classifier.metadata.model_copy(update={"resize": "letterbox", "channels": "grey"})
    graph = inspect_onnx(write(classifier).read_bytes()).graph
    monkeypatch.setattr(bounds, "MAX_LAYER_VALUES", 10 * 10 * 4)  # of the convolution with its padding
    check_bounds(graph)
    monkeypatch.setattr(bounds, "MAX_LAYER_VALUES", 8 * 8 * 4 - 1)
    with pytest.raises(UnsafeOnnx, match="256 values"):
        check_bounds(graph)
