"""Fixtures: toy images that a small network learns within a few steps, and a function that trains on them."""

import numpy as np
import pytest
import torch

from foveola.images import ImageSet
from foveola.recipe import parse_recipe
from foveola.training.build import build_classifier
from foveola.training.loop import fit

NAMES = ("top", "middle", "bottom")
DENSE = [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]


@pytest.fixture(scope="session")
def toy():
    """Function that makes n noisy 6×6×1 images with a bright band; the class is its position."""

    def make(n=48, seed=0, counts=None):
        generator = np.random.default_rng(seed)
        labels = np.arange(n) % 3 if counts is None else np.repeat(np.arange(3), counts)
        images = generator.integers(0, 120, (len(labels), 6, 6, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] += 60
        return ImageSet(images, labels, NAMES)

    return make


@pytest.fixture(scope="session")
def recipe_of():
    def make(**changes):
        short = {"name": "toy", "layers": DENSE, "epochs": 2, "batch_size": 16, "learning_rate": 0.01}
        return parse_recipe(short | changes)

    return make


@pytest.fixture(scope="session")
def train():
    """Function that trains a classifier, by default a new one on the CPU, and returns the Fit."""

    def run(
        recipe, images, validation=None, *, seed=0, network=None, flip=False, callbacks=(), classifier=None,
        precision=torch.float32, device="cpu",
    ):  # fmt: skip
        classifier = classifier or build_classifier(recipe, images, seed, network=network)
        return fit(
            classifier, images, validation, recipe,
            seed=seed, device=torch.device(device), precision=precision, flip=flip, callbacks=callbacks,
        )  # fmt: skip

    return run
