"""Toy classifiers to explain."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from foveola.models.classifier import Classifier
from foveola.models.init import initialize
from foveola.models.metadata import ModelMetadata
from foveola.models.modules import build_network
from foveola.models.shapes import infer_shapes
from foveola.recipe import parse_recipe

NAMES = ("a", "b", "c")


@pytest.fixture
def classifier() -> Callable[..., Classifier]:
    """Make a classifier of these layers and a final dense layer, with random weights."""

    def make(*layers: dict[str, Any], shape: tuple[int, int, int] = (8, 10, 1), **metadata: Any) -> Classifier:
        stack = parse_recipe({"name": "toy", "layers": [*layers, {"type": "Dense", "units": "classes"}]}).layers
        model_metadata = ModelMetadata(class_names=NAMES, image_shape=shape, layers=stack, **metadata)
        network = build_network(infer_shapes(stack, model_metadata.network_shape, len(NAMES)))
        initialize(network, "he-normal", 1)
        generator = torch.Generator().manual_seed(2)
        for name, tensor in network.state_dict().items():
            if "running" in name or "bias" in name:
                tensor.uniform_(0.1, 0.9, generator=generator)
        return Classifier(network, model_metadata)

    return make


@pytest.fixture
def images() -> Callable[..., np.ndarray]:
    def draw(n: int = 3, height: int = 8, width: int = 10, channels: int = 1) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)

    return draw


@pytest.fixture
def state_of() -> Callable[[Classifier], Any]:
    """Everything that an explanation might change in a model, to compare before and after."""

    def state(model: Classifier) -> Any:
        return (
            [(name, module.training, len(module._forward_hooks)) for name, module in model.named_modules()],
            [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        )

    return state
