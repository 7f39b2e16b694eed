"""Feature maps, features and filters are those of the model, which stays unchanged."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveola.errors import DataError
from foveola.explanation.activations import feature_maps, first_filters, penultimate_features
from foveola.models.classifier import Classifier
from foveola.models.metadata import ModelMetadata

WEST = (
    {"type": "Conv2D", "filters": 4, "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Dropout", "rate": 0.5},
    {"type": "Flatten"},
)


IMAGES = np.random.default_rng(0).integers(0, 256, (300, 6, 6, 1), dtype=np.uint8)
METADATA = ModelMetadata(class_names=("a", "b"), image_shape=(6, 6, 1))


def classifier_from(network, shape=(8, 10, 1)):
    return Classifier(network, ModelMetadata(class_names=("a", "b", "c"), image_shape=shape))


# Feature maps


def test_feature_maps_are_the_outputs_of_every_layer(classifier, images):
    model, image = classifier(*WEST), images(1)[0]
    maps = feature_maps(model.train(), image)
    assert list(maps) == ["conv2d_1", "maxpool2d_1", "dropout_1", "flatten_1", "dense_1"]

    x = torch.from_numpy(image[None, None, :, :, 0] / np.float32(255))
    convolved = F.relu(F.conv2d(x, model.network.conv2d_1.weight, model.network.conv2d_1.bias))
    pooled = F.max_pool2d(convolved, 2)
    for name, expected in (("conv2d_1", convolved), ("maxpool2d_1", pooled), ("dropout_1", pooled)):
        np.testing.assert_allclose(maps[name], expected[0].permute(1, 2, 0).detach(), atol=1e-6)
    assert maps["conv2d_1"].shape == (6, 8, 4)
    np.testing.assert_allclose(maps["flatten_1"], maps["maxpool2d_1"].reshape(-1), atol=1e-6)
    np.testing.assert_allclose(maps["dense_1"], model.predict_logits(image[None])[0], atol=1e-6)
    assert {values.dtype for values in maps.values()} == {np.dtype(np.float32)}


def test_the_image_is_converted_as_for_prediction(classifier, images):
    model = classifier(*WEST, channels="grey")
    (colour,) = images(1, 20, 30, 3)
    np.testing.assert_allclose(feature_maps(model, colour)["dense_1"], model.predict_logits(colour[None])[0], atol=1e-6)


def test_innermost_modules_of_a_custom_network_are_layers(images):
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
            nn.init.constant_(self.body[0].bias, -1)  # so that ReLU changes something
            self.relu, self.dense = nn.ReLU(), nn.Linear(96, 3)

        def forward(self, x):
            x = self.relu(self.body(x)) - 1
            return self.dense(self.relu(x).flatten(1))

    maps = feature_maps(classifier_from(Custom()), images(1)[0])
    assert list(maps) == ["body.0", "body.1", "relu", "relu (call 2)", "dense"]
    assert maps["body.0"].min() < 0 == maps["body.1"].min()  # the in-place layer did not change the stored output
    np.testing.assert_array_equal(maps["relu (call 2)"], np.maximum(maps["relu"] - 1, 0))


def test_a_single_layer_can_be_the_network(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(80, 3))
    assert list(feature_maps(classifier_from(network), images(1)[0])) == ["0", "1"]
    assert list(feature_maps(classifier_from(nn.Flatten()), images(1)[0])) == ["Flatten"]


def test_feature_maps_leave_the_model_unchanged(classifier, images, state_of):
    model = classifier({"type": "Conv2D", "filters": 2}, {"type": "BatchNorm"}, {"type": "Flatten"}).train()
    model.network.batchnorm_1.eval()  # differs from the mode of the network
    before = state_of(model)
    feature_maps(model, images(1)[0])
    assert state_of(model) == before


def test_errors_leave_the_model_unchanged(classifier, images, state_of):
    model = classifier(*WEST).train()
    before = state_of(model)
    with pytest.raises(DataError, match="colour"):
        feature_maps(model, images(1, channels=3)[0])
    model.network.flatten_1.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        feature_maps(model, images(1)[0])
    assert state_of(model) == before


# Penultimate features


def test_the_last_layer_turns_penultimate_features_into_logits():
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))
    classifier = Classifier(network, METADATA).train()
    features = penultimate_features(classifier, IMAGES)
    assert features.shape == (300, 5)
    with torch.no_grad():
        logits = network[-1](torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(logits, classifier.predict_logits(IMAGES), atol=1e-5)
    assert classifier.training
    assert not network[-1]._forward_pre_hooks


def test_without_a_dense_layer_the_features_are_the_logits():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(network, METADATA)
    np.testing.assert_array_equal(penultimate_features(classifier, IMAGES), classifier.predict_logits(IMAGES))


# Filters


def test_first_filters_are_the_weights_of_the_first_convolution(classifier):
    model = classifier(
        {"type": "Conv2D", "filters": 5, "kernel": 3}, {"type": "Conv2D", "filters": 2}, {"type": "Flatten"},
        shape=(9, 9, 3),
    )  # fmt: skip
    filters = first_filters(model)
    assert filters.shape == (5, 3, 3, 3)
    assert filters.dtype == np.float32
    weight = model.network.conv2d_1.weight
    assert filters[4, 0, 2, 1] == weight[4, 1, 0, 2].item()
    filters[:] = 0
    assert weight.abs().max() > 0
