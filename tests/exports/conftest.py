"""Models with realistic weights, and their exports."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from foveola.explanation.activations import feature_maps
from foveola.exports import onnx
from foveola.images import ImageSet
from foveola.models.classifier import Classifier
from foveola.models.unfamiliarity import FeatureStatistics, calibrate, feature_layers
from foveola.recipe import load_recipe, parse_recipe
from foveola.training.build import build_classifier


@pytest.fixture(scope="session")
def images_of() -> Callable[..., np.ndarray]:
    def make(shape: tuple[int, ...], count: int = 20) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def classifier_of(images_of: Callable[..., np.ndarray]) -> Callable[..., Classifier]:
    """An untrained classifier with random statistics, scales and biases, as after training.

    `sign` is the sign of the scales of batch normalisation; by default both signs occur.
    """

    def make(
        recipe: str | list[dict], shape: tuple[int, int, int], classes: int = 3, sign: int = 0, **changes: object
    ) -> Classifier:
        custom = parse_recipe({"name": "custom", "layers": recipe, **changes}) if isinstance(recipe, list) else None
        names = tuple(f"class {number}" for number in range(classes))
        data = ImageSet(images_of(shape, 60), np.arange(60) % classes, names)
        classifier = build_classifier(custom or load_recipe(recipe, changes), data, seed=0)
        randomize(classifier, data.images, sign)
        classifier.metadata = classifier.metadata.model_copy(update={"temperature": 0.7})
        return classifier.eval()

    return make


@pytest.fixture(scope="session")
def measuring() -> Callable[..., Classifier]:
    """Let a classifier measure unfamiliarity, with the statistics of these images, uint8 N×H×W×C."""

    def make(classifier: Classifier, images: np.ndarray) -> Classifier:
        layers = [info.name for info in feature_layers(classifier.metadata)]
        logits, features = classifier.predict_features(images, layers)
        labels = np.arange(len(images)) % len(classifier.class_names)
        statistics = FeatureStatistics.of(features, labels)
        measure = calibrate(statistics, features, logits, layers)
        metadata = classifier.metadata.model_copy(update={"unfamiliarity": measure})
        return Classifier(classifier.network, metadata, statistics).eval()

    return make


@torch.no_grad()
def randomize(classifier: Classifier, images: np.ndarray, sign: int) -> None:
    """Random scales and biases; statistics near those of these images, without which deep networks forget the image."""
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in classifier.network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.weight.mul_(sign or torch.arange(len(norm.weight)) % 2 * 2 - 1)
        norm.momentum = 1.0
    for module in classifier.network.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            module.bias.normal_(0, 0.3, generator=generator)
    classifier.train()
    classifier(torch.from_numpy(images))
    for norm in norms:
        norm.running_mean += norm.running_var.sqrt() * torch.randn(len(norm.weight), generator=generator) / 5
        norm.running_var *= torch.empty(len(norm.weight)).uniform_(0.5, 1.5, generator=generator)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Classifier], Path]:
    """Save a classifier as model.safetensors and export it beside; returns the path of the export."""

    def run(classifier: Classifier) -> Path:
        classifier.save(tmp_path / "model.safetensors")
        onnx.write(tmp_path / "model.safetensors", classifier, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return run


@pytest.fixture
def agree(classifier_of, images_of, write) -> Callable[..., Path]:
    """Export a classifier and check that both give the same logits and feature maps; returns the path of the export."""

    def run(*recipe_and_shape: object, **changes: object) -> Path:
        classifier = classifier_of(*recipe_and_shape, **changes)
        path = write(classifier)
        images = images_of(classifier.metadata.image_shape)
        model = onnx.open(path)
        expected, actual = classifier.predict_logits(images), model.predict_logits(images)
        assert expected.std(axis=0).min() > 1e-3, "a network with the same logits for every image proves nothing"
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=allowed(expected))
        live, exported = feature_maps(classifier, images[0]), model.feature_maps(images[:1])
        assert list(exported) == [layer.name for layer in model.layers]
        np.testing.assert_allclose(exported["logits"][0], actual[0], rtol=1e-5, atol=allowed(expected))
        for name in exported.keys() & live.keys():
            np.testing.assert_allclose(
                exported[name][0], live[name], rtol=1e-4, atol=2 * allowed(live[name]), err_msg=name
            )
        return path

    def allowed(values: np.ndarray) -> float:
        """Differences of float32 that sums of values of this size may have."""
        return max(5e-5, 3e-5 * float(np.abs(values).max()))

    return run
