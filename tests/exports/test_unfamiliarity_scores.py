"""Scores of unfamiliarity in exports: those of the model, checked when written and opened, at no cost to logits."""

import json

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
from onnx import numpy_helper

from foveola.errors import ExportError, ModelError
from foveola.exports import int8, onnx
from foveola.exports.allowlist import OUTPUT, UNFAMILIARITY, keep_output
from foveola.exports.onnx import DIGEST_KEY, GOLDEN_KEY
from foveola.exports.parity import UNFAMILIARITY_TOLERANCE, check_parity
from foveola.images import ImageSet
from foveola.models.unfamiliarity import Outputs, choose_threshold

STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]
NORMALISED = [
    {"type": "Conv2D", "filters": 6, "padding": "same", "bias": False},
    {"type": "MaxPool2D"},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "silu"},
    {"type": "Dropout", "rate": 0.2},
    {"type": "Conv2D", "filters": 5},
    {"type": "BatchNorm"},
    {"type": "GlobalAveragePool2D"},
    {"type": "Dense", "units": 7, "activation": "tanh"},
    {"type": "Dropout", "rate": 0.2},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def classifier(classifier_of, measuring, images_of):
    return measuring(classifier_of(STACK, (8, 8, 1)), images_of((8, 8, 1), 60))


@pytest.fixture
def export(write, classifier):
    return write(classifier)


@pytest.mark.parametrize(
    ("recipe", "shape", "sign"),
    [(STACK, (8, 8, 1), 0), *((NORMALISED, (12, 10, 3), sign) for sign in (-1, 0, 1)), ("lenet5", (28, 28, 1), 0),
     ("fast", (28, 28, 1), 0), ("strong", (28, 28, 1), 0), ("mlp", (8, 8, 1), 0)],
)  # fmt: skip
def test_the_scores_are_those_of_the_model(classifier_of, measuring, images_of, write, recipe, shape, sign):
    classifier = measuring(classifier_of(recipe, shape, sign=sign), images_of(shape, 60))
    model, images = onnx.open(write(classifier)), images_of(shape, 130)
    expected, found = classifier.predict_outputs(images), model.predict_outputs(images)
    np.testing.assert_allclose(found.unfamiliarity, expected.unfamiliarity, atol=UNFAMILIARITY_TOLERANCE / 2)
    np.testing.assert_allclose(found.logits, expected.logits, atol=5e-5)
    np.testing.assert_array_equal(model.predict_logits(images), found.logits)
    foreign = np.full_like(images[:3], 255)
    np.testing.assert_allclose(
        model.predict_outputs(foreign).unfamiliarity,
        classifier.predict_outputs(foreign).unfamiliarity,
        atol=UNFAMILIARITY_TOLERANCE / 2,
    )


def test_other_runtimes_get_a_second_output(export, classifier, images_of):
    images = images_of((8, 8, 1))
    logits, scores = onnxruntime.InferenceSession(export.read_bytes()).run(None, {"images": images})
    expected = classifier.predict_outputs(images)
    np.testing.assert_allclose(logits, expected.logits, atol=5e-5)
    np.testing.assert_allclose(scores, expected.unfamiliarity, atol=1e-3)


def test_logits_alone_are_computed_by_the_graph_without_the_measure(export, classifier_of, write):
    kept = onnx_format.load_from_string(keep_output(export.read_bytes(), OUTPUT))
    plain = onnx_format.load(write(classifier_of(STACK, (8, 8, 1))))
    assert kept.graph == plain.graph
    assert kept.opset_import == plain.opset_import


def test_without_the_measure_there_is_one_output(classifier_of, write, images_of):
    model = onnx.open(write(classifier_of(STACK, (8, 8, 1))))
    assert [output.name for output in model.session.get_outputs()] == [OUTPUT]
    assert model.predict_outputs(images_of((8, 8, 1))).unfamiliarity is None


def changed(export, change):
    """The export with another model and the right checksum."""
    model = onnx_format.load(export)
    change(model)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    digest = onnx.digest(model.graph.SerializeToString(), entries)
    for entry in model.metadata_props:
        entry.value = digest if entry.key == DIGEST_KEY else entry.value
    export.write_bytes(model.SerializeToString())
    return export


def scale(name, factor):
    def change(model):
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))

    return change


def drop_scores(model):
    del model.graph.output[1]


def drop_golden_scores(model):
    for entry in model.metadata_props:
        if entry.key == GOLDEN_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"unfamiliarity": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale("whitening", 1.1), "golden examples"),
        (scale("feature center", 2), "golden examples"),
        (scale("energy weight", float("nan")), "golden examples"),
        (drop_scores, "is not an export"),
        (drop_golden_scores, "golden examples"),
    ],
)
def test_other_scores_are_refused_when_opened(export, change, message):
    with pytest.raises(ModelError, match=message):
        onnx.open(changed(export, change))


@pytest.mark.parametrize("wrong", [lambda s: s + 0.02, lambda s: s * np.nan, lambda s: s[:1], lambda s: None])
def test_other_scores_are_refused_when_exported(classifier, images_of, wrong):
    class Wrong:
        predict_logits = staticmethod(classifier.predict_logits)

        @staticmethod
        def predict_outputs(images):
            outputs = classifier.predict_outputs(images)
            return Outputs(outputs.logits, wrong(outputs.unfamiliarity))

    images = images_of((8, 8, 1))
    check_parity(classifier, classifier, images)
    with pytest.raises(ExportError, match="unfamiliarity"):
        check_parity(classifier, Wrong(), images)


def test_int8_chooses_its_own_threshold_on_its_own_scores(classifier_of, measuring, images_of, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "measure_gain", lambda *_: int8.Gain(60, 1, 1, (1,), (1.0,), (2.0,)))
    images = images_of((12, 10, 3), 60)
    classifier = measuring(classifier_of(NORMALISED, (12, 10, 3)), images)
    classifier.save(tmp_path / "model.safetensors")
    validation = ImageSet(images[:40], np.arange(40) % 3, classifier.class_names)
    int8.write(tmp_path / "model.safetensors", classifier, tmp_path / "model.onnx", validation)
    model = onnx.open(tmp_path / "model.onnx")
    measure, scores = model.metadata.unfamiliarity, model.predict_outputs(images[:40]).unfamiliarity
    assert (measure.threshold, measure.false_alarms) == choose_threshold(scores) == (scores.max(), 1 / 41)
    assert UNFAMILIARITY in [output.name for output in model.scoring_session.get_outputs()]
