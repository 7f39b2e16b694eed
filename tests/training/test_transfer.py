"""Taking over another model's weights."""

import numpy as np
import pytest
import torch

from foveola.errors import ModelError
from foveola.images import ImageSet
from foveola.models.classifier import new_classifier
from foveola.training.transfer import take_over

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
def source(toy, recipe_of, learn, tmp_path):
    fit = learn(recipe_of(layers=STACK), toy(), seed=3)
    fit.classifier.save(tmp_path / "source.safetensors")
    return fit.classifier, tmp_path / "source.safetensors"


def test_all_layers_that_agree_are_taken_over(source, toy, recipe_of):
    original, path = source
    classifier = new_classifier(recipe_of(layers=STACK), toy(), 0)
    assert take_over(classifier, path, freeze=False) == ["conv2d_1", "batchnorm_1", "dense_1", "dense_2"]
    given, own = weights_of(original), weights_of(classifier)
    assert all(torch.equal(given[name], own[name]) for name in given)
    assert all(parameter.requires_grad for parameter in classifier.network.parameters())


@pytest.mark.parametrize(
    ("layers", "taken"),
    [
        (changed(3, units=6), ["conv2d_1", "batchnorm_1"]),
        ([*STACK[:4], {"type": "Dropout", "rate": 0.5}, STACK[4]], ["conv2d_1", "batchnorm_1", "dense_1", "dense_2"]),
        ([STACK[0], *STACK[2:]], ["conv2d_1", "dense_1", "dense_2"]),
    ],
)
def test_only_the_leading_layers_that_agree_are_taken_over(layers, taken, source, toy, recipe_of):
    original, path = source
    classifier = new_classifier(recipe_of(layers=layers), toy(), 0)
    before = weights_of(classifier)
    assert take_over(classifier, path, freeze=False) == taken
    for name, tensor in weights_of(classifier).items():
        expected = weights_of(original) if name.split(".")[0] in taken else before
        assert torch.equal(tensor, expected[name]), name


def test_other_classes_keep_their_own_last_layer(source, toy, recipe_of):
    _, path = source
    data = toy()
    two = ImageSet(data.images, data.labels % 2, ("even", "odd"))
    classifier = new_classifier(recipe_of(layers=STACK), two, 0)
    before = weights_of(classifier)
    assert take_over(classifier, path, freeze=True) == ["conv2d_1", "batchnorm_1", "dense_1"]
    assert torch.equal(classifier.network.dense_2.weight, before["dense_2.weight"])


@pytest.mark.parametrize("layers", [changed(0, filters=3), changed(0, kernel=5), STACK[2:]])
def test_a_network_that_begins_otherwise_is_refused(layers, source, toy, recipe_of):
    classifier = new_classifier(recipe_of(layers=layers), toy(), 0)
    before = weights_of(classifier)
    with pytest.raises(ModelError, match=r"No layer of .* fits this network"):
        take_over(classifier, source[1], freeze=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(classifier).items())


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_a_file_that_is_no_model_is_refused(content, toy, recipe_of, tmp_path):
    path = tmp_path / "source.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        take_over(new_classifier(recipe_of(), toy(), 0), path, freeze=False)


def test_frozen_layers_keep_weights_and_running_statistics(source, toy, recipe_of, learn):
    original, path = source
    classifier = new_classifier(recipe_of(layers=STACK), toy(), 0)
    assert take_over(classifier, path, freeze=True) == ["conv2d_1", "batchnorm_1", "dense_1"]
    head = classifier.network.dense_2.weight.clone()
    learn(recipe_of(layers=STACK), toy(seed=5), classifier=classifier)
    given, own = weights_of(original), weights_of(classifier)
    for name in given:
        if not name.startswith("dense_2"):
            assert torch.equal(own[name], given[name]), name
    assert not torch.equal(classifier.network.dense_2.weight, head)
    assert np.isfinite(classifier.predict_logits(toy().images)).all()
