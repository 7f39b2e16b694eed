"""Transfer learning: weights copied from another model, and frozen layers."""

import numpy as np
import pytest
import torch

from foveola.errors import ModelError
from foveola.images import ImageSet
from foveola.training.build import build_classifier
from foveola.training.transfer import transfer_weights

STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "BatchNorm"},
    {"type": "Flatten"},
    {"type": "Dense", "units": 5, "activation": "relu"},
    {"type": "Dense", "units": "classes"},
]


def changed(index, **settings):
    return [layer | settings if i == index else layer for i, layer in enumerate(STACK)]


def weights_of(classifier):
    return {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}


@pytest.fixture
def source(toy, recipe_of, train, tmp_path):
    fit = train(recipe_of(layers=STACK), toy(), seed=3)
    fit.classifier.save(tmp_path / "source.safetensors")
    return fit.classifier, tmp_path / "source.safetensors"


def test_all_matching_layers_are_copied(source, toy, recipe_of):
    original, path = source
    classifier = build_classifier(recipe_of(layers=STACK), toy(), 0)
    assert transfer_weights(classifier, path, freeze=False) == ["conv2d_1", "batchnorm_1", "dense_1", "dense_2"]
    source_weights, weights = weights_of(original), weights_of(classifier)
    assert all(torch.equal(source_weights[name], weights[name]) for name in source_weights)
    assert all(parameter.requires_grad for parameter in classifier.network.parameters())


@pytest.mark.parametrize(
    ("layers", "copied"),
    [
        (changed(3, units=6), ["conv2d_1", "batchnorm_1"]),
        ([*STACK[:4], {"type": "Dropout", "rate": 0.5}, STACK[4]], ["conv2d_1", "batchnorm_1", "dense_1", "dense_2"]),
        ([STACK[0], *STACK[2:]], ["conv2d_1", "dense_1", "dense_2"]),
    ],
)
def test_layers_are_copied_until_the_first_that_differs(layers, copied, source, toy, recipe_of):
    original, path = source
    classifier = build_classifier(recipe_of(layers=layers), toy(), 0)
    before = weights_of(classifier)
    assert transfer_weights(classifier, path, freeze=False) == copied
    for name, tensor in weights_of(classifier).items():
        expected = weights_of(original) if name.split(".")[0] in copied else before
        assert torch.equal(tensor, expected[name]), name


def test_freezing_leaves_the_last_layer_to_be_trained(source, toy, recipe_of):
    _, path = source
    data = toy()
    two = ImageSet(data.images, data.labels % 2, ("even", "odd"))
    classifier = build_classifier(recipe_of(layers=STACK), two, 0)
    before = weights_of(classifier)
    assert transfer_weights(classifier, path, freeze=True) == ["conv2d_1", "batchnorm_1", "dense_1"]
    assert torch.equal(classifier.network.dense_2.weight, before["dense_2.weight"])


@pytest.mark.parametrize("layers", [changed(0, filters=3), changed(0, kernel=5), STACK[2:]])
def test_a_network_whose_first_layer_differs_is_refused(layers, source, toy, recipe_of):
    classifier = build_classifier(recipe_of(layers=layers), toy(), 0)
    before = weights_of(classifier)
    with pytest.raises(ModelError, match=r"No layer of .* fits this network"):
        transfer_weights(classifier, source[1], freeze=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(classifier).items())


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_not_a_model_is_refused(content, toy, recipe_of, tmp_path):
    path = tmp_path / "source.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        transfer_weights(build_classifier(recipe_of(), toy(), 0), path, freeze=False)


def test_frozen_layers_keep_weights_and_running_statistics(source, toy, recipe_of, train):
    original, path = source
    classifier = build_classifier(recipe_of(layers=STACK), toy(), 0)
    assert transfer_weights(classifier, path, freeze=True) == ["conv2d_1", "batchnorm_1", "dense_1"]
    last_weights = classifier.network.dense_2.weight.clone()
    train(recipe_of(layers=STACK), toy(seed=5), classifier=classifier)
    source_weights, weights = weights_of(original), weights_of(classifier)
    for name in source_weights:
        if not name.startswith("dense_2"):
            assert torch.equal(weights[name], source_weights[name]), name
    assert not torch.equal(classifier.network.dense_2.weight, last_weights)
    assert np.isfinite(classifier.predict_logits(toy().images)).all()
