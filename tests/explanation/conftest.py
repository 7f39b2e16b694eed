"""Toy classifiers to look into."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from foveola.architecture import trace
from foveola.models.card import ModelCard
from foveola.models.classifier import Classifier
from foveola.models.network import build, initialize
from foveola.recipe import parse_recipe

NAMES = ("a", "b", "c")


@pytest.fixture
def classifier() -> Callable[..., Classifier]:
    """Make a classifier of these layers, with weights drawn by lot; a dense layer to the classes is added."""

    def make(*layers: dict[str, Any], shape: tuple[int, int, int] = (8, 10, 1), **card: Any) -> Classifier:
        stack = parse_recipe({"name": "toy", "layers": [*layers, {"type": "Dense", "units": "classes"}]}).layers
        described = ModelCard(class_names=NAMES, image_shape=shape, layers=stack, **card)
        network = build(trace(stack, described.network_shape, len(NAMES)))
        initialize(network, "he-normal", 1)
        generator = torch.Generator().manual_seed(2)
        for name, tensor in network.state_dict().items():
            if "running" in name or "bias" in name:
                tensor.uniform_(0.1, 0.9, generator=generator)
        return Classifier(network, described)

    return make


@pytest.fixture
def images() -> Callable[..., np.ndarray]:
    def draw(n: int = 3, height: int = 8, width: int = 10, channels: int = 1) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)

    return draw


@pytest.fixture
def untouched() -> Callable[[Classifier], Any]:
    """Everything about a model that looking into it might change, to be compared before and after."""

    def state(model: Classifier) -> Any:
        return (
            [(name, module.training, len(module._forward_hooks)) for name, module in model.named_modules()],
            [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        )

    return state
