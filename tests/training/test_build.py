"""The untrained classifier: initial weights and preprocessing of the training images."""

import numpy as np
import pytest
import torch

from foveola.errors import RecipeError
from foveola.images import ImageSet
from foveola.recipe import load_recipe, parse_recipe
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


@pytest.mark.parametrize(
    ("size", "message"), [(96, None), (100, "conv2d_1 has other weights or padding"), (2, "cannot be")]
)
def test_crops_must_suit_the_layers_of_whole_images(size, message):
    strided = {"type": "Conv2D", "filters": 4, "stride": 8, "kernel": 9, "padding": "same"}
    head = [{"type": "MaxPool2D", "size": 1}, {"type": "GlobalAveragePool2D"}, {"type": "Dense", "units": "classes"}]
    recipe = parse_recipe({"name": "x", "layers": [strided, *head], "augment": {"crop_size": size}})
    images = ImageSet(np.zeros((4, 128, 128, 1), np.uint8), np.arange(4) % 2, ("a", "b"))
    if message is None:
        build_classifier(recipe, images, 0)
    else:
        with pytest.raises(RecipeError, match=rf"augment.crop_size = {size} .*{message}"):
            build_classifier(recipe, images, 0)


def test_crops_need_a_global_pooling():
    recipe = load_recipe("fast", {"augment.crop_size": 16})
    with pytest.raises(RecipeError, match="layer dense_1 has other weights"):
        build_classifier(recipe, ImageSet(np.zeros((4, 32, 32, 1), np.uint8), np.arange(4) % 2, ("a", "b")), 0)
