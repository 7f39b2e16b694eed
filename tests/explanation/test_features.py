"""What the last dense layer gets."""

import numpy as np
import torch
from torch import nn

from foveola.explanation.features import last_features
from foveola.models.card import ModelCard
from foveola.models.classifier import Classifier

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 6, 6, 1), dtype=np.uint8)
CARD = ModelCard(class_names=("a", "b"), image_shape=(6, 6, 1))


def test_features_and_the_last_layer_give_the_logits():
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))
    classifier = Classifier(network, CARD).train()
    features = last_features(classifier, IMAGES)
    assert features.shape == (300, 5)
    with torch.no_grad():
        logits = network[-1](torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(logits, classifier.predict_logits(IMAGES), atol=1e-5)
    assert classifier.training
    assert not network[-1]._forward_pre_hooks


def test_without_a_dense_layer_they_are_the_logits():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(network, CARD)
    np.testing.assert_array_equal(last_features(classifier, IMAGES), classifier.predict_logits(IMAGES))
