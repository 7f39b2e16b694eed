"""The untrained classifier: initial weights and preprocessing of the training images."""

import numpy as np
import torch

from foveola.images import ImageSet
from foveola.recipe import parse_recipe
from foveola.training.build import build_classifier

CLASS_NAMES = ("a", "b", "c")
STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "BatchNorm"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


def some_images(n=20):
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)


def some_set():
    return ImageSet(some_images(), np.arange(20) % 3, CLASS_NAMES)


def recipe_of(**changes):
    return parse_recipe({"name": "toy", "layers": STACK, **changes})


def test_initial_weights_follow_the_seed():
    first, again, other = (build_classifier(recipe_of(), some_set(), seed) for seed in (1, 1, 2))
    assert torch.equal(first.network.conv2d_1.weight, again.network.conv2d_1.weight)
    assert not torch.equal(first.network.conv2d_1.weight, other.network.conv2d_1.weight)
    assert first.parameter_count == (9 + 1) * 4 + 2 * 4 + (64 + 1) * 3


def test_whitening_uses_images_of_every_class_if_data_is_sorted(monkeypatch):
    monkeypatch.setattr("foveola.training.build.MAX_PATCH_VALUES", 4 * 8 * 8 * 9)  # of four images
    images = np.zeros((40, 8, 8, 1), np.uint8)
    images[30:] = some_images(10)
    sorted_set = ImageSet(images, np.repeat([0, 1, 2, 2], 10), CLASS_NAMES)
    plain, whitened = (
        build_classifier(recipe_of(initialization=name), sorted_set, 0) for name in ("dirac", "whitened")
    )
    kernel = whitened.network.conv2d_1.weight
    assert not torch.equal(kernel, plain.network.conv2d_1.weight)
    torch.testing.assert_close(kernel[2:], -kernel[:2])
    assert torch.equal(whitened.network.dense_1.weight, plain.network.dense_1.weight)


def test_whitening_changes_nothing_in_a_network_without_convolutions():
    dense = [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]
    plain, whitened = (
        build_classifier(recipe_of(layers=dense, initialization=name), some_set(), 0) for name in ("dirac", "whitened")
    )
    assert torch.equal(whitened.network.dense_1.weight, plain.network.dense_1.weight)


def test_images_without_variance_can_be_scaled():
    data = ImageSet(np.full((6, 8, 8, 1), 7, np.uint8), np.arange(6) % 3, CLASS_NAMES)
    classifier = build_classifier(recipe_of(scaling="standard"), data, 0)
    assert np.isfinite(classifier.predict_logits(data.images)).all()
