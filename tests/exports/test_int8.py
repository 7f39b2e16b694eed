"""int8: exported if it is as accurate and faster than float32, refused otherwise.

Times are set by the fixture `clock`; the real gain is not tested.
"""

import json
import shutil
from itertools import cycle
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest
from onnx import numpy_helper

import foveola
from foveola.datasets.splits import divide
from foveola.errors import DataError, ExportError, ModelError, UserError
from foveola.explanation.activations import feature_maps
from foveola.exports import int8, onnx
from foveola.files import CHECKSUM_FILE
from foveola.images import ImageSet
from foveola.recipe import recipe_names
from foveola.workflow.export import export

FASTER, SLOWER = (0.004, 0.001), (0.001, 0.004)
STACK = [
    {"type": "Conv2D", "filters": 8, "padding": "same"},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Conv2D", "filters": 8, "padding": "same", "activation": "gelu"},
    {"type": "AveragePool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": 16, "activation": "relu"},
    {"type": "Dense", "units": "classes"},
]

# Not on images this small: random weights of 50 layers amplify any difference
LARGE = ("efficientnet-lite0", "resnet18")
# As a MobileNet: separable convolutions, and sums with what came before them
SEPARABLE = [
    {"type": "Conv2D", "filters": 8, "padding": "same", "bias": False},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu6"},
    {"type": "DepthwiseConv2D", "padding": "same", "bias": False},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu6"},
    {
        "type": "Residual",
        "layers": [
            {"type": "Conv2D", "filters": 24, "kernel": 1, "bias": False},
            {"type": "BatchNorm"},
            {"type": "Activation", "function": "relu6"},
            {"type": "DepthwiseConv2D", "padding": "same", "bias": False},
            {"type": "BatchNorm"},
            {"type": "Activation", "function": "relu6"},
            {"type": "Conv2D", "filters": 8, "kernel": 1, "bias": False},
            {"type": "BatchNorm"},
        ],
    },
    {"type": "Conv2D", "filters": 16, "kernel": 1, "activation": "hard-swish"},
    {"type": "GlobalAveragePool2D"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def clock(monkeypatch):
    """Set the seconds of float32 and int8, which are timed in alternation; returns the batch sizes that were timed."""

    def run(times):
        sizes, turns = [], cycle(times)
        monkeypatch.setattr(int8, "seconds", lambda model, images: sizes.append(len(images)) or next(turns))
        return sizes

    return run


@pytest.fixture
def confident(images_of):
    """The images with the most confident predictions, labelled with them, so that float32 is always correct."""

    def run(classifier, count=64):
        images = images_of(classifier.metadata.image_shape, 400)
        logits = np.sort(classifier.predict_logits(images), axis=1)
        most_confident = np.argsort(logits[:, -2] - logits[:, -1])[:count]
        labels = classifier.predict_logits(images[most_confident]).argmax(axis=1)
        return ImageSet(images[most_confident], labels, classifier.class_names)

    return run


@pytest.fixture
def quantize(classifier_of, confident, clock, tmp_path):
    """Export a model as int8; returns the classifier, the validation images and the gain."""

    def run(stack, shape, classes=3, **changes):
        clock(FASTER)
        classifier = classifier_of(stack, shape, classes, **changes)
        classifier.save(tmp_path / "model.safetensors")
        images = confident(classifier)
        gain = int8.write(tmp_path / "model.safetensors", classifier, tmp_path / "model.onnx", images)
        return classifier, images, gain

    return run


@pytest.fixture
def run(toy_run, tmp_path):
    """A copy of the finished run, to be written into."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


# The export


@pytest.mark.parametrize(
    ("stack", "shape"),
    [
        (STACK, (12, 10, 1)),
        (STACK, (8, 8, 3)),
        (SEPARABLE, (16, 16, 3)),
        *((recipe, (28, 28, 1)) for recipe in recipe_names() if recipe not in LARGE),
        pytest.param("resnet18", (28, 28, 1), marks=pytest.mark.slow),
    ],
)
def test_logits_are_close_to_float32(quantize, tmp_path, stack, shape):
    classifier, images, gain = quantize(stack, shape)
    assert (gain.images, gain.accuracy, gain.accuracy_float32) == (64, 1, 1)
    model, expected = onnx.open(tmp_path / "model.onnx"), classifier.predict_logits(images.images)
    assert (model.metadata, model.class_names) == (classifier.metadata, classifier.class_names)
    found = model.predict_logits(images.images)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)


def test_weights_have_7_bits_and_a_scale_for_each_channel(quantize, tmp_path):
    quantize(STACK, (12, 10, 1))
    graph = onnx_format.load(tmp_path / "model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name: values for name, values in constants.items() if values.dtype == np.int8 and values.ndim > 1}
    assert sorted(values.shape for values in weights.values()) == [(3, 16), (8, 1, 3, 3), (8, 8, 3, 3), (16, 48)]
    for name, values in weights.items():
        assert 60 < np.abs(values.astype(int)).max() <= 64
        (reader,) = (node for node in graph.node if name in node.input)
        assert (reader.op_type, len(constants[reader.input[1]])) == ("DequantizeLinear", len(values))


def test_separable_and_residual_layers_are_computed_in_integers(quantize, tmp_path):
    """All but the first two convolutions: ONNX Runtime fuses what stands between these nodes into integer operators."""
    quantize(SEPARABLE, (16, 16, 3))
    graph = onnx_format.load(tmp_path / "model.onnx").graph
    writers = {tensor: node.op_type for node in graph.node for tensor in node.output}
    readers = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, set()).add(node.op_type)

    def surroundings(operator):
        return [
            ({writers.get(tensor) for tensor in node.input}, readers[node.output[0]])
            for node in graph.node
            if node.op_type == operator
        ]

    integers = ({"DequantizeLinear"}, {"QuantizeLinear"})
    convolutions = surroundings("Conv")
    assert [found == integers for found in convolutions] == [False, False, True, True, True, True]
    assert surroundings("Add") == [integers]
    assert not [node for node in graph.node if node.op_type == "Clip"][2:]  # the range of the integers clips


def test_biases_take_back_what_rounding_the_weights_shifts(quantize, tmp_path, monkeypatch):
    """In every layer, the mean of each channel is nearer to that of float32; measured where nothing else is rounded."""
    errors = []
    for correct in (int8._correct_biases, lambda *arguments: None):
        monkeypatch.setattr(int8, "_correct_biases", correct)
        classifier, images, _ = quantize(SEPARABLE, (16, 16, 3))
        found = onnx.open(tmp_path / "model.onnx").predict_logits(images.images)
        errors.append(np.abs((found - classifier.predict_logits(images.images)).mean(axis=0)).max())
    assert errors[0] < 0.7 * errors[1]


def test_layers_that_the_graph_still_computes_are_listed(quantize, tmp_path):
    classifier, images, _ = quantize(STACK, (12, 10, 1))
    model = onnx.open(tmp_path / "model.onnx")
    assert [layer.name for layer in model.layers] == [
        "activation_1", "maxpool2d_1", "conv2d_2", "averagepool2d_1", "dense_1", "logits"
    ]  # fmt: skip
    found, live = model.feature_maps(images.images[:1]), feature_maps(classifier, images.images[0])
    for name in found.keys() & live.keys():
        assert np.abs(found[name][0] - live[name]).max() < 0.1 * np.ptp(live[name])


def test_the_file_is_valid_onnx_without_other_operator_domains(quantize, tmp_path):
    """Opening checks it against the allowlist; here the onnx package checks it too."""
    quantize(STACK, (12, 10, 1))
    model = onnx_format.load(tmp_path / "model.onnx")
    onnx_format.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    assert [entry.domain for entry in model.opset_import] == [""]


def test_nothing_is_printed_or_logged(quantize, capfd, caplog):
    quantize(STACK, (12, 10, 1))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_models_are_timed_in_alternation_for_one_image_and_a_batch(classifier_of, confident, clock, tmp_path):
    sizes = clock(FASTER)
    classifier = classifier_of(STACK, (12, 10, 1))
    classifier.save(tmp_path / "model.safetensors")
    gain = int8.write(tmp_path / "model.safetensors", classifier, tmp_path / "model.onnx", confident(classifier, 5))
    assert sizes == [1] * 2 * int8.REPETITIONS + [onnx.BATCH] * 2 * int8.REPETITIONS
    assert (gain.seconds_float32, gain.seconds) == ((0.004, 0.004), (0.001, 0.001))


def test_networks_that_take_long_are_timed_less_often(classifier_of, confident, clock):
    sizes = clock((4.0, 1.0))
    classifier = classifier_of(STACK, (12, 10, 1))
    gain = int8.measure_gain(classifier, classifier, confident(classifier, 5))
    assert sizes == [1] * 2 * 5 + [onnx.BATCH] * 2 * 5
    assert (gain.seconds_float32, gain.seconds) == ((4.0, 4.0), (1.0, 1.0))


@pytest.mark.parametrize(("side", "count"), [(28, 1000), (64, 1000), (160, 327), (224, 200)])
def test_larger_images_need_fewer_for_calibration(side, count):
    images = np.broadcast_to(np.uint8(0), (1500, side, side, 3))
    assert len(int8._calibration_images(ImageSet(images, np.arange(1500) % 2, ("a", "b")))) == count


def test_a_single_slow_repetition_does_not_matter(classifier_of, confident, clock, tmp_path):
    clock([*FASTER * (int8.REPETITIONS - 1), 0.004, 60])
    classifier = classifier_of(STACK, (12, 10, 1))
    classifier.save(tmp_path / "model.safetensors")
    gain = int8.write(tmp_path / "model.safetensors", classifier, tmp_path / "model.onnx", confident(classifier, 5))
    assert gain.seconds == (0.001, 0.001)


# Exports that are not worth it


@pytest.mark.parametrize(
    ("times", "worth"),
    [((0.9, 0.9), True), ((0.9, 1.0), False), ((1.0, 0.9), False), ((0.97, 0.97), False), ((2.0, 2.0), False)],
)
def test_it_must_be_faster_for_one_image_and_a_batch(times, worth):
    assert int8.Gain(1000, 0.9, 0.9, (1, 64), times, (1.0, 1.0)).is_worth_it is worth


@pytest.mark.parametrize(("accuracy", "worth"), [(0.981, True), (0.978, True), (0.9779, False), (0.97, False)])
def test_it_may_lose_a_fifth_of_a_point_of_accuracy(accuracy, worth):
    assert int8.Gain(1000, accuracy, 0.98, (1, 64), (0.5, 0.5), (1.0, 1.0)).is_worth_it is worth


@pytest.mark.parametrize(
    ("images", "changed", "allowed"),
    [(10_000, 30, 0.002), (200, 1, 0.005), (200, 3, 3**0.5 / 200), (20, 2, 0.01), (1000, 0, 0.002)],
)
def test_few_images_allow_what_they_cannot_tell_and_never_more_than_a_point(images, changed, allowed):
    gain = int8.Gain(images, 0.9, 0.9, (1,), (0.5,), (1.0,), changed)
    assert gain.allowed_loss == pytest.approx(allowed)


def test_a_slower_export_is_not_kept(run, toy, clock):
    clock(SLOWER)
    before = sorted(run.rglob("*"))
    with pytest.raises(ExportError, match=r"4 ms \(float32: 1 ms\) for one image.*Nothing was written.*float32"):
        export(run, int8=True, data=toy, verbose=False)
    assert sorted(run.rglob("*")) == before


def test_a_less_accurate_export_is_not_kept(run, toy, clock, monkeypatch):
    """A quantised model that gives every image the same logits."""
    clock(FASTER)
    quantize = int8._quantize

    def quantize_badly(*arguments):
        graph = quantize(*arguments)
        for tensor in graph.initializer:
            if tensor.name.startswith("dense_1.weight") and tensor.data_type == onnx_format.TensorProto.INT8:
                values = numpy_helper.to_array(tensor)
                if values.ndim == 2:
                    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
        return graph

    monkeypatch.setattr(int8, "_quantize", quantize_badly)
    with pytest.raises(ExportError, match=r"33\.33% \(float32: .*\) of 9 images correct"):
        export(run, int8=True, data=toy, verbose=False)
    assert not (run / "exports").exists()


# The command


def test_the_command_reports_the_gain(run, toy, toy_npz, clock, foveola_command):
    clock(FASTER)
    code, out, _ = foveola_command("export", run, "--int8", "--data", toy_npz)
    assert code == 0
    assert "1 ms (float32: 4 ms) for one image" in " ".join(out.split())
    assert {path.name for path in (run / "exports").iterdir()} == {"model.int8.onnx", CHECKSUM_FILE}
    document = json.loads(foveola_command("export", run, "--int8", "--data", toy_npz, "--json").out)
    assert document["path"] == str(run / "exports" / "model.int8.onnx")
    assert document["parity"]["images"] == 1000
    assert document["int8"]["seconds"] == [0.001, 0.001]
    assert json.loads(foveola_command("export", run, "--data", toy_npz, "--json").out)["int8"] is None
    found = json.loads(foveola_command("evaluate", run / "exports" / "model.int8.onnx", toy_npz, "--json").out)
    assert found["accuracy"]["value"] == foveola.Run.open(run).evaluation.accuracy.value


def test_without_a_gain_the_command_exits_with_1(run, toy_npz, clock, foveola_command):
    clock(SLOWER)
    code, out, err = foveola_command("export", run, "--int8", "--data", toy_npz)
    assert (code, out) == (1, "")
    assert "not worth it for this model on this machine" in " ".join(err.split())


def test_only_validation_images_are_used(run, toy, monkeypatch):
    seen = []
    monkeypatch.setattr(int8, "write", lambda source, live, target, validation: seen.append(validation) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(run, int8=True, data=toy, verbose=False)
    splits = divide(toy, 0.2, 0.2, 0)[0]
    np.testing.assert_array_equal(seen[0].images, splits.validation.images)


def test_a_run_without_validation_images_is_refused(toy, tiny, tmp_path):
    run = foveola.train(toy, tiny, out=tmp_path / "run", overrides={"validation": 0.0}, verbose=False)
    with pytest.raises(DataError, match=r"trained without any.*--set validation"):
        export(run.path, int8=True, data=toy, verbose=False)


def test_data_other_than_the_training_data_is_refused(run, toy):
    other = foveola.Dataset("other", toy.train.take(range(59)))
    with pytest.raises(DataError, match="is not the data that"):
        export(run, int8=True, data=other, verbose=False)


def test_other_formats_are_refused(run, toy):
    with pytest.raises(UserError, match="not for safetensors"):
        export(run, "safetensors", int8=True, data=toy, verbose=False)


# Altered files


@pytest.mark.parametrize("kind", [np.int8, np.float32, np.int32], ids=["weights", "scales", "biases"])
def test_an_altered_file_is_refused(quantize, tmp_path, kind):
    quantize(STACK, (12, 10, 1))
    path = tmp_path / "model.onnx"
    model = onnx_format.load(path)
    kinds = (
        t for t in model.graph.initializer if t.name.startswith("dense_2") and numpy_helper.to_array(t).dtype == kind
    )
    last = max(kinds, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(last).copy()
    values[np.abs(values.astype(float)).reshape(len(values), -1).sum(axis=1).argmax()] *= (
        2 if kind == np.float32 else -1
    )
    last.raw_data = values.tobytes()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata[onnx.DIGEST_KEY] = onnx.digest(model.graph.SerializeToString(), metadata)
    onnx_format.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="does not reproduce its golden examples"):
        onnx.open(path)
