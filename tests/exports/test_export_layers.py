"""Layers of an export: which are listed, and that their outputs are those of the live model.

Every type of layer is compared in test_graph.py, by the fixture `agree`.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx as onnx_format
import pytest
from onnx import helper

from foveola.errors import DataError, ModelError
from foveola.explanation.activations import feature_maps
from foveola.exports import onnx
from foveola.exports.allowlist import LayerOutput, add_outputs, inspect_onnx
from foveola.exports.onnx import DIGEST_KEY, LAYERS_KEY

STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Dropout", "rate": 0.2},
    {"type": "Flatten"},
    {"type": "Dense", "units": 5, "activation": "tanh"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def classifier(classifier_of):
    return classifier_of(STACK, (8, 10, 1))


@pytest.fixture
def export(write, classifier):
    return write(classifier)


def layers_in(path):
    return [(layer.name, layer.type, layer.shape) for layer in onnx.open(path).layers]


# Names and shapes


def test_layers_have_the_names_of_the_live_model(export, classifier, images_of):
    assert layers_in(export) == [
        ("conv2d_1", "Conv2D", (8, 10, 4)),
        ("maxpool2d_1", "MaxPool2D", (4, 5, 4)),
        ("dense_1", "Dense", (5,)),
        ("logits", "Dense", (3,)),
    ]
    live = feature_maps(classifier, images_of((8, 10, 1))[0])
    assert {name for name, *_ in layers_in(export)} - live.keys() == {"logits"}


def test_names_list_the_layers_that_are_folded_together(write, classifier_of):
    path = write(classifier_of("fast", (28, 28, 1), 10, sign=1))
    assert [(name, shape) for name, _, shape in layers_in(path)] == [
        ("conv2d_1 + batchnorm_1", (28, 28, 16)),
        ("batchnorm_1", (14, 14, 16)),
        ("activation_1", (14, 14, 16)),
        ("conv2d_2 + batchnorm_2", (14, 14, 32)),
        ("batchnorm_2", (7, 7, 32)),
        ("activation_2", (7, 7, 32)),
        ("batchnorm_3", (7, 7, 32)),
        ("activation_3", (7, 7, 32)),
        ("conv2d_4 + batchnorm_4", (7, 7, 64)),
        ("batchnorm_4", (3, 3, 64)),
        ("activation_4", (3, 3, 64)),
        ("batchnorm_5", (3, 3, 64)),
        ("activation_5", (3, 3, 64)),
        ("logits", (10,)),
    ]


def test_layers_that_cannot_be_folded_keep_their_names(write, classifier_of):
    """The scales have both signs, and the temperature comes after the activation of the last layer."""
    stack = [*STACK[:2], {"type": "BatchNorm"}, STACK[3], {**STACK[4], "units": "classes"}]
    path = write(classifier_of(stack, (8, 10, 1)))
    assert [name for name, *_ in layers_in(path)] == ["conv2d_1", "maxpool2d_1", "batchnorm_1", "dense_1", "logits"]


# Outputs


def test_feature_maps_of_any_number_of_images_of_any_size(export, classifier, images_of):
    images = images_of((13, 9, 1), onnx.BATCH + 3)
    found = onnx.open(export).feature_maps(images)
    assert {maps.dtype for maps in found.values()} == {np.dtype(np.float32)}
    for number in (0, onnx.BATCH, onnx.BATCH + 2):
        live = feature_maps(classifier, images[number])
        for name in ("conv2d_1", "maxpool2d_1", "dense_1"):
            np.testing.assert_allclose(found[name][number], live[name], atol=1e-4)
    np.testing.assert_allclose(found["logits"], classifier.predict_logits(images), atol=1e-4)


def test_arrays_that_are_not_images_are_refused(export, images_of):
    with pytest.raises(DataError, match="uint8"):
        onnx.open(export).feature_maps(np.zeros((1, 8, 10, 1)))
    with pytest.raises(DataError, match="trained on grey ones"):
        onnx.open(export).feature_maps(images_of((8, 10, 3)))


def test_many_threads_share_one_session(export, images_of, monkeypatch):
    model, images = onnx.open(export), images_of((8, 10, 1), 16)
    opened, session = [], onnx._session
    monkeypatch.setattr(onnx, "_session", lambda data: opened.append(data) or session(data))
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(model.feature_maps, images[:, None]))
    assert len(opened) == 1
    together = model.feature_maps(images)
    for number, maps in enumerate(many):
        np.testing.assert_allclose(maps["conv2d_1"][0], together["conv2d_1"][number], atol=1e-5)


def test_feature_maps_need_neither_torch_nor_onnx(export):
    code = (
        "import sys, numpy, foveola\nmodel = foveola.open(sys.argv[1])\n"
        "print(model.feature_maps(numpy.zeros((1, 8, 10, 1), numpy.uint8))['conv2d_1'].shape)\n"
        "print([name for name in ('torch', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(export)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1, 8, 10, 4)\n[]\n", "")


def test_outputs_are_added_by_appending_bytes(export):
    """Lengths of more than 127 and of more than 16,383 bytes are varints of two and three bytes."""
    names = ["a", "ä" * 100, "b" * 20_000]
    model = onnx_format.load_model_from_string(add_outputs(export.read_bytes(), names))
    assert [output.name for output in model.graph.output] == ["logits", *names]
    expected = onnx_format.load(export)
    del model.graph.output[1:]
    assert model == expected


# Refused


@pytest.fixture
def describe(export):
    """Change the layers in the metadata of an export, and correct its checksum."""

    def run(change):
        contents = inspect_onnx(export.read_bytes())
        layers = change([LayerOutput.model_validate(layer) for layer in json.loads(contents.properties[LAYERS_KEY])])
        metadata = contents.properties | {LAYERS_KEY: json.dumps([layer.model_dump() for layer in layers])}
        model = onnx_format.load(export)
        metadata[DIGEST_KEY] = onnx.digest(model.graph.SerializeToString(), metadata)
        helper.set_model_props(model, metadata)
        export.write_bytes(model.SerializeToString())
        return onnx.open(export)

    return run


def test_missing_tensors_are_refused(describe, images_of):
    model = describe(lambda layers: [layers[0].model_copy(update={"tensor": "nothing"}), *layers[1:]])
    with pytest.raises(ModelError, match=r"(?s)layers cannot be computed.*nothing.*Export the run again"):
        model.feature_maps(images_of((8, 10, 1)))


@pytest.mark.parametrize("shape", [(8, 10, 5), (400,)])
def test_wrong_shapes_are_refused(describe, images_of, shape):
    model = describe(lambda layers: [layers[0].model_copy(update={"shape": shape}), *layers[1:]])
    with pytest.raises(ModelError, match=r"output of conv2d_1 is 8×10×4, but the export describes it as"):
        model.feature_maps(images_of((8, 10, 1)))
