"""The published weights of EfficientNet-Lite0 on photographs: logits as an independent implementation gives them."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images

import foveola
from foveola.exports import onnx
from foveola.images import Dataset, ImageSet
from foveola.models.classifier import Classifier
from foveola.models.metadata import ModelMetadata
from foveola.models.modules import build_network
from foveola.models.pretrained import ENTRIES, load_pretrained, read_pretrained
from foveola.models.shapes import infer_shapes
from foveola.recipe import load_recipe
from published_networks import published_logits

NAME = "efficientnet-lite0"
# ImageNet's classes of scikit-learn's two photographs, a tower of the Summer Palace and a flower: bell cote, daisy
CLASSES = [442, 985]


@pytest.fixture(scope="module")
def weights_file(real_data):
    path = real_data / "backbones" / NAME / "model.safetensors"
    if not path.is_file():
        pytest.skip(f"no pretrained weights at {path}")
    return path


@pytest.fixture(scope="module")
def photographs():
    """Scikit-learn's two photographs, resized to 224×224 by Pillow (bicubic), uint8 2×224×224×3."""
    images = load_sample_images().images
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    )


@pytest.fixture(scope="module")
def classifier(weights_file):
    """The network with its 1,000 published classes."""
    entry, recipe = ENTRIES[NAME], load_recipe(NAME)
    infos = infer_shapes(recipe.layers, (224, 224, 3), entry.classes)
    network = build_network(infos)
    load_pretrained(network, infos, read_pretrained(entry, weights_file), head=True)
    names = tuple(f"class {number}" for number in range(entry.classes))
    metadata = ModelMetadata(
        class_names=names, image_shape=(224, 224, 3), mean=(0.5,) * 3, std=(0.5,) * 3, layers=recipe.layers,
        recipe=NAME, channels="rgb",
    )  # fmt: skip
    return Classifier(network, metadata).eval()


def test_logits_of_photographs_are_those_of_the_published_network(classifier, weights_file, photographs):
    expected = published_logits(NAME, load_file(weights_file), photographs)
    assert np.abs(classifier.predict_logits(photographs) - expected).max() < 1e-4
    assert expected.argmax(axis=1).tolist() == CLASSES


def test_the_export_of_the_published_network_agrees(classifier, photographs, tmp_path):
    classifier.save(tmp_path / "model.safetensors")
    onnx.write(tmp_path / "model.safetensors", classifier, tmp_path / "model.onnx")
    export = onnx.open(tmp_path / "model.onnx")
    expected = classifier.predict_logits(photographs)
    for size in (1, 2):
        batches = [export.predict_logits(photographs[start : start + size]) for start in range(0, 2, size)]
        assert np.abs(np.concatenate(batches) - expected).max() < 1e-4


@pytest.mark.slow
def test_a_training_begins_with_the_weights_and_says_so(weights_file, real_data, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))
    images = np.concatenate([np.roll(photographs[:, ::2, ::2], shift, axis=2) for shift in range(0, 110, 7)])
    data = Dataset("photographs", ImageSet(images, np.arange(len(images)) % 2, ("temple", "flower")))
    overrides = {"image_size": 64, "steps": 1, "learning_rate": 1e-9, "precision": "float32", "validation": 0.2}
    run = foveola.train(data, NAME, overrides=overrides, out=tmp_path / "run", report=False, verbose=False)
    assert (run.status.pretrained.verified, run.status.pretrained.licence) == (True, "Apache-2.0")
    trained, published = load_file(run.model_path), load_file(weights_file)
    torch.testing.assert_close(trained["conv2d_1.weight"], published["conv_stem.weight"], atol=1e-6, rtol=0)
    onnx.write(run.model_path, foveola.open(run.path), tmp_path / "model.onnx")
    assert onnx.open(tmp_path / "model.onnx").metadata.pretrained == run.status.pretrained
