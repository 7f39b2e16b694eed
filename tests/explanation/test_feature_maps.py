"""Feature maps are what the layers compute in use, and looking leaves no trace."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveola.errors import DataError
from foveola.explanation.feature_maps import feature_maps
from foveola.explanation.filters import first_filters
from foveola.models.card import ModelCard
from foveola.models.classifier import Classifier

WEST = (
    {"type": "Conv2D", "filters": 4, "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Dropout", "rate": 0.5},
    {"type": "Flatten"},
)


def own(network, shape=(8, 10, 1)):
    return Classifier(network, ModelCard(class_names=("a", "b", "c"), image_shape=shape))


def test_every_layer_with_what_it_computes(classifier, images):
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


def test_the_image_is_converted_as_for_predicting(classifier, images):
    model = classifier(*WEST, channels="grey")
    (colour,) = images(1, 20, 30, 3)
    np.testing.assert_allclose(feature_maps(model, colour)["dense_1"], model.predict_logits(colour[None])[0], atol=1e-6)


def test_a_network_of_the_users_own(images):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
            nn.init.constant_(self.body[0].bias, -1)  # so that there is something for ReLU to change
            self.relu, self.dense = nn.ReLU(), nn.Linear(96, 3)

        def forward(self, x):
            x = self.relu(self.body(x)) - 1
            return self.dense(self.relu(x).flatten(1))

    maps = feature_maps(own(Own()), images(1)[0])
    assert list(maps) == ["body.0", "body.1", "relu", "relu (call 2)", "dense"]
    assert maps["body.0"].min() < 0 == maps["body.1"].min()  # the layer in place has not changed what was kept
    np.testing.assert_array_equal(maps["relu (call 2)"], np.maximum(maps["relu"] - 1, 0))


def test_a_network_that_is_a_single_layer(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(80, 3))
    assert list(feature_maps(own(network), images(1)[0])) == ["0", "1"]
    assert list(feature_maps(own(nn.Flatten()), images(1)[0])) == ["Flatten"]


def test_looking_leaves_the_model_as_it_was(classifier, images, untouched):
    model = classifier({"type": "Conv2D", "filters": 2}, {"type": "BatchNorm"}, {"type": "Flatten"}).train()
    model.network.batchnorm_1.eval()  # a mode of its own
    before = untouched(model)
    feature_maps(model, images(1)[0])
    assert untouched(model) == before


def test_also_when_something_raises(classifier, images, untouched):
    model = classifier(*WEST).train()
    before = untouched(model)
    with pytest.raises(DataError, match="colour"):
        feature_maps(model, images(1, channels=3)[0])
    model.network.flatten_1.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        feature_maps(model, images(1)[0])
    assert untouched(model) == before


def test_first_filters_are_the_first_convolutions_weights(classifier):
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
