"""ONNX exports: predictors without torch; other or altered files are refused, most of them before they are run."""

import base64
import hashlib
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import foveola
from foveola.errors import DataError, ModelError
from foveola.exports import onnx
from foveola.exports.onnx import DIGEST_KEY, GOLDEN_KEY, LAYERS_KEY, SOURCE_KEY
from foveola.lazy import LazyImages
from foveola.models.metadata import METADATA_KEY, DataOrigin, ModelMetadata, Rejection

STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def classifier(classifier_of):
    return classifier_of(STACK, (8, 8, 1))


@pytest.fixture
def export(write, classifier):
    return write(classifier)


# The predictor


def test_an_export_has_the_metadata_of_its_model(export, classifier):
    model = onnx.open(export)
    assert model.metadata == classifier.metadata
    assert model.class_names == classifier.class_names


@pytest.mark.parametrize(
    ("shape", "size"), [((28, 28, 1), 64), ((32, 32, 3), 64), ((64, 64, 3), 16), ((96, 128, 3), 5), ((300, 300, 3), 1)]
)
def test_batches_of_large_images_are_small(shape, size):
    metadata = ModelMetadata.model_construct(image_shape=shape)
    assert onnx.batch_size(metadata) == size


@pytest.mark.parametrize("count", [1, onnx.BATCH, 2 * onnx.BATCH + 5])
def test_any_number_of_images_can_be_predicted(export, classifier, images_of, count):
    images = images_of((8, 8, 1), count)
    found = onnx.open(export).predict_logits(images)
    np.testing.assert_allclose(found, classifier.predict_logits(images), atol=5e-5)


def test_views_of_arrays_can_be_predicted(export, classifier, images_of):
    mirrored = images_of((8, 16, 1))[::-2, :, ::-2]
    found = onnx.open(export).predict_logits(mirrored)
    np.testing.assert_allclose(found, classifier.predict_logits(mirrored), atol=5e-5)


def test_arrays_that_are_not_images_are_refused(export):
    model = onnx.open(export)
    with pytest.raises(DataError, match="uint8"):
        model.predict_logits(np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(DataError, match="N×H×W×C"):
        model.predict_logits(np.zeros((8, 8, 1), np.uint8))


def test_parallel_batches_give_the_same_logits_in_order(export, images_of):
    images = images_of((8, 16, 1), 333)
    one, three = (onnx.open(export, threads=threads) for threads in (1, 3))
    assert one.session.get_session_options().intra_op_num_threads == 1
    assert np.array_equal(three.predict_logits(images), one.predict_logits(images))


def metadata_of(path):
    return {entry.key: entry.value for entry in onnx_format.load(path).metadata_props}


def test_metadata_can_be_read_with_the_onnx_package(classifier, write):
    origin = DataOrigin(name="bars", fingerprint="f" * 64, licence="CC0-1.0", validation=0.1, seed=3)
    changes = {"polarity": "dark on light", "reject": Rejection(error=0.01, threshold=0.8), "data": origin}
    classifier.metadata = classifier.metadata.model_copy(update=changes)
    path = write(classifier)
    onnx_format.checker.check_model(onnx_format.load(path), full_check=True)
    properties = metadata_of(path)
    metadata = json.loads(properties[METADATA_KEY])
    assert metadata["class_names"] == ["class 0", "class 1", "class 2"]
    assert (metadata["image_shape"], metadata["polarity"], metadata["reject"]["threshold"]) == (
        [8, 8, 1],
        "dark on light",
        0.8,
    )
    assert (metadata["data"]["fingerprint"], metadata["data"]["licence"]) == ("f" * 64, "CC0-1.0")
    golden = json.loads(properties[GOLDEN_KEY])
    images = np.frombuffer(base64.b64decode(golden["images"]), np.uint8).reshape(4, 8, 8, 1)
    np.testing.assert_allclose(golden["logits"], classifier.predict_logits(images), atol=1e-6)
    assert [layer["name"] for layer in json.loads(properties[LAYERS_KEY])] == ["conv2d_1", "maxpool2d_1", "logits"]


def test_an_export_has_the_checksum_of_its_model_file(export):
    source = hashlib.sha256(export.with_name("model.safetensors").read_bytes()).hexdigest()
    assert onnx.open(export).source == metadata_of(export)[SOURCE_KEY] == source


def test_the_same_model_gives_the_same_bytes(export, classifier, write):
    first = export.read_bytes()
    assert write(classifier).read_bytes() == first


def test_prediction_needs_neither_torch_nor_onnx(export, classifier, images_of, tmp_path):
    images = images_of((8, 8, 1))
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy, foveola\nmodel, folder = sys.argv[1:]\n"
        "logits = foveola.open(model).predict_logits(numpy.load(folder + '/images.npy'))\n"
        "numpy.save(folder + '/logits.npy', logits)\n"
        "print([name for name in ('torch', 'onnx', 'sklearn') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(export), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), classifier.predict_logits(images), atol=5e-5)


# Refused before ONNX Runtime parses it


@pytest.fixture
def alter(export):
    """Change the model inside an export; its checksum is corrected unless `sign` is False."""

    def run(change, sign=True):
        model = onnx_format.load(export, load_external_data=False)
        change(model)
        if sign:
            metadata = {entry.key: entry.value for entry in model.metadata_props}
            digest = onnx.digest(model.graph.SerializeToString(), metadata)
            for entry in model.metadata_props:
                if entry.key == DIGEST_KEY:
                    entry.value = digest
        export.write_bytes(model.SerializeToString())
        return export

    return run


@pytest.fixture
def unrun(monkeypatch):
    """Fail if ONNX Runtime gets the file."""

    def session(*arguments, **options):
        raise AssertionError("the file reached ONNX Runtime")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


def make_external(tensor, location):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def graph_that_reads(location):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "secret")
    make_external(tensor, location)
    output = helper.make_tensor_value_info("secret", TensorProto.FLOAT, [3])
    return helper.make_graph([], "inner", [], [output], [tensor])


def add_node(model, operator, **attributes):
    model.graph.node.append(helper.make_node(operator, ["images"], ["more"], **attributes))


def add_subgraph(model):
    inner = graph_that_reads("../secret")
    add_node(model, "If", then_branch=inner, else_branch=inner)


def add_tensor_attribute(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32))
    make_external(tensor, "../secret")
    add_node(model, "Constant", value=tensor)


def add_function(model):
    function = helper.make_function("own", "f", ["x"], ["y"], [], [helper.make_opsetid("", 20)])
    model.functions.append(function)


def add_domain(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def drop_metadata(key):
    def change(model):
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    return change


def set_metadata(key, value):
    def change(model):
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = value(entry.value) if callable(value) else value

    return change


def change_golden(**changes):
    return set_metadata(GOLDEN_KEY, lambda text: json.dumps(json.loads(text) | changes))


ALTERED = {
    "external data above": (lambda m: make_external(m.graph.initializer[1], "../secret"), "external data"),
    "external data anywhere": (lambda m: make_external(m.graph.initializer[1], "/etc/hostname"), "external data"),
    "external data beside": (lambda m: make_external(m.graph.initializer[1], "model.safetensors"), "external data"),
    "external data in memory": (
        lambda m: make_external(m.graph.initializer[1], "*/_ORT_MEM_ADDR_/*"),
        "external data",
    ),
    "a tensor marked as external": (
        lambda m: setattr(m.graph.initializer[1], "data_location", TensorProto.EXTERNAL),
        "external data",
    ),
    "external data in a subgraph": (add_subgraph, "subgraphs"),
    "external data in an attribute": (add_tensor_attribute, "AttributeProto, field 5"),
    "external data in a sparse tensor": (
        lambda m: make_external(m.graph.sparse_initializer.add().values, "../secret"),
        "GraphProto, field 15",
    ),
    "external data for training": (
        lambda m: m.training_info.add().initialization.CopyFrom(graph_that_reads("../secret")),
        "ModelProto, field 20",
    ),
    "functions": (add_function, "defines functions"),
    "operators of another domain": (lambda m: add_node(m, "FusedMatMul", domain="com.microsoft"), "custom operators"),
    "another domain": (add_domain, "custom operators"),
    "no metadata": (drop_metadata(METADATA_KEY), "not an export of this version of Foveola"),
    "no golden examples": (drop_metadata(GOLDEN_KEY), "not an export of this version of Foveola"),
    "an older version": (
        drop_metadata(SOURCE_KEY),
        r"not an export of this version.*foveola\.source.*export the run again",
    ),
    "no layers": (drop_metadata(LAYERS_KEY), "not an export of this version"),
    "invalid layers": (set_metadata(LAYERS_KEY, '[{"name": 1}]'), "damaged or from a newer Foveola"),
    "metadata that is not JSON": (set_metadata(METADATA_KEY, "{"), "damaged or from a newer Foveola"),
    "metadata of a newer format": (
        set_metadata(METADATA_KEY, lambda text: text.replace('"format":1', '"format":2')),
        "damaged or from a newer Foveola",
    ),
    "golden examples that are not numbers": (
        set_metadata(GOLDEN_KEY, '{"images": "", "logits": [[NaN]]}'),
        "damaged or from a newer Foveola",
    ),
}


@pytest.mark.parametrize("change", ALTERED)
def test_files_that_foveola_never_writes_are_refused(alter, unrun, change):
    altered = alter(ALTERED[change][0])
    with pytest.raises(ModelError, match=ALTERED[change][1]) as refused:
        onnx.open(altered)
    assert str(altered) in str(refused.value)


def scale_weight(model, factor=1.5):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "dense_1.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, np.abs(values[0]).argmax()] *= factor
    tensor.raw_data = values.tobytes()


def test_a_changed_weight_is_found_by_the_checksum(alter, unrun):
    with pytest.raises(ModelError, match="checksum"):
        onnx.open(alter(scale_weight, sign=False))


def test_a_changed_class_name_is_found_by_the_checksum(alter, unrun):
    change = set_metadata(METADATA_KEY, lambda text: text.replace("class 1", "class 7"))
    with pytest.raises(ModelError, match="checksum"):
        onnx.open(alter(change, sign=False))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX file"),
        (b"\x93NUMPY garbage" * 9, "opened"),
        (pickle.dumps({"weights": [1, 2, 3]}), "opened"),
        (b"\x08\x08" * 200_000, "more than 100,000 fields"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "is truncated"),
        (b"\x3a\x00\x3a\x00", "exactly one graph"),
        (b"\x38\x07", "not a message"),
        (b"\x0b", "damaged or not an ONNX file"),
        (b"\x80" * 20, "damaged or not an ONNX file"),
        (b"\x3a\x00\x72\x03\x0a\x01\xff", "not UTF-8 text"),
    ],
    ids=["empty", "NPY", "pickle", "many fields", "long length", "two graphs", "number", "group", "varint", "text"],
)
def test_files_that_are_not_onnx_are_refused(tmp_path, unrun, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        onnx.open(path)


def test_other_onnx_files_are_refused(tmp_path, unrun):
    add = helper.make_node("Add", ["x", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph([add], "g", values[:1], values[1:])
    imports = [onnx_format.OperatorSetIdProto(version=20)]
    onnx_format.save(helper.make_model(graph, opset_imports=imports), tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="not an export of this version of Foveola"):
        onnx.open(tmp_path / "other.onnx")


def test_a_file_truncated_anywhere_is_refused(export, unrun):
    content = export.read_bytes()
    for length in [*range(0, 200), *range(200, len(content), 97), len(content) - 1]:
        export.write_bytes(content[:length])
        with pytest.raises(ModelError):
            onnx.open(export)


def test_damage_anywhere_is_refused_or_harmless(export, classifier, images_of):
    content, images = export.read_bytes(), images_of((8, 8, 1), 3)
    expected, random = classifier.predict_logits(images), np.random.default_rng(0)
    refused = 0
    for position in random.choice(len(content), 300, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random.integers(8)
        export.write_bytes(damaged)
        try:
            np.testing.assert_allclose(onnx.open(export).predict_logits(images), expected, atol=5e-5)
        except ModelError:
            refused += 1
    assert refused > 250


def test_missing_and_oversized_files_are_refused(export, tmp_path, unrun, monkeypatch):
    with pytest.raises(ModelError, match="cannot be read"):
        onnx.open(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        onnx.open(tmp_path)
    monkeypatch.setattr(onnx, "MAX_BYTES", export.stat().st_size - 1)
    with pytest.raises(ModelError, match="at most"):
        onnx.open(export)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_without_waiting(tmp_path, unrun):
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        onnx.open(tmp_path / "model.onnx")


# Refused by ONNX Runtime or the golden examples


def rename_input(model):
    model.graph.input[0].name = "pixels"
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]


def rename_output(model):
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"


def change_input_type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def add_output(model):
    model.graph.output.append(helper.make_tensor_value_info("images", TensorProto.UINT8, None))


INTERFACES = [rename_input, rename_output, change_input_type, add_output]


@pytest.mark.parametrize("change", INTERFACES)
def test_other_inputs_and_outputs_are_refused(alter, change):
    with pytest.raises(ModelError, match=r"it has inputs|Cast takes pixels, which no node before it gives"):
        onnx.open(alter(change))


def test_another_number_of_classes_is_refused(alter):
    change = set_metadata(METADATA_KEY, lambda text: text.replace('"class 2"', '"class 2","class 3"'))
    with pytest.raises(ModelError, match="float32 N×4"):
        onnx.open(alter(change))


def swap_axes(model, name):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.dims[0], tensor.dims[1] = tensor.dims[1], tensor.dims[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.graph.node[0], "op_type", "Nonsense"), "operator Nonsense, which Foveola never"),
        (lambda model: setattr(model.graph.initializer[-1], "raw_data", b""), "has 0 bytes, other than its shape says"),
        (lambda model: model.graph.node.pop(0), "which no node before it gives"),
        (lambda model: swap_axes(model, "conv2d_1.weight"), "cannot be run"),
    ],
    ids=["unknown operator", "missing values", "missing node", "other axes"],
)
def test_a_graph_that_does_not_run_is_refused(alter, change, message, capfd):
    with pytest.raises(ModelError, match=message):
        onnx.open(alter(change))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("factor", [1.5, np.nan, np.inf])
def test_altered_weights_are_found_by_the_golden_examples(alter, factor):
    with pytest.raises(ModelError, match="does not reproduce its golden examples"):
        onnx.open(alter(lambda model: scale_weight(model, factor)))


@pytest.mark.parametrize(
    "change",
    [
        change_golden(images="AAAA"),
        change_golden(images="no base64!"),
        change_golden(logits=[[1, 2, 3], [1, 2]]),
        change_golden(images="", logits=[]),
        set_metadata(METADATA_KEY, lambda text: text.replace("[8,8,1]", "[8,8,3]")),
    ],
    ids=["too few pixels", "not base64", "ragged", "none", "another shape"],
)
def test_invalid_golden_examples_are_refused(alter, change):
    with pytest.raises(ModelError, match=r"golden examples in .* cannot be run"):
        onnx.open(alter(change))


def test_golden_examples_of_another_number_of_classes_are_refused(alter):
    with pytest.raises(ModelError, match="does not reproduce its golden examples"):
        onnx.open(alter(change_golden(logits=[[0.0, 0.0]] * 4)))


def test_golden_examples_of_another_model_are_refused(alter, export, classifier_of, write):
    content = export.read_bytes()
    other = write(classifier_of([STACK[2], STACK[3]], (8, 8, 1)))
    examples = metadata_of(other)[GOLDEN_KEY]
    export.write_bytes(content)
    with pytest.raises(ModelError, match="does not reproduce its golden examples"):
        onnx.open(alter(set_metadata(GOLDEN_KEY, examples)))


def test_real_images_are_not_exported(export, classifier_of, write):
    """Golden images depend only on the shape: two models of the same shape have the same ones."""
    images = [json.loads(metadata_of(export)[GOLDEN_KEY])["images"]]
    other = write(classifier_of([STACK[2], STACK[3]], (8, 8, 1)))
    images.append(json.loads(metadata_of(other)[GOLDEN_KEY])["images"])
    assert images[0] == images[1]


def test_foveola_open_recognises_exports_by_their_suffix(export):
    assert isinstance(foveola.open(export), onnx.OnnxModel)


@pytest.mark.parametrize("count", [3, onnx.BATCH + 3])
def test_images_that_are_read_when_they_are_indexed_give_the_same_logits(classifier_of, images_of, write, count):
    class Source:
        hashes, image_shape = None, (8, 8, 1)

        def read(self, rows):
            return images[rows]

    images = images_of((8, 8, 1), count)
    model = onnx.open(write(classifier_of([{"type": "Flatten"}, {"type": "Dense", "units": "classes"}], (8, 8, 1))))
    lazy = LazyImages(Source(), np.arange(count))
    np.testing.assert_array_equal(model.predict_logits(lazy), model.predict_logits(images))
