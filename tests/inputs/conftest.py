"""Fixtures of the tests of checks and fixes."""

import numpy as np
import pytest
from glyphs import STROKES, training_image

from foveola.inputs.checks import compute_statistics
from foveola.models.metadata import ImageStatistics


@pytest.fixture(scope="module")
def images():
    """80 training images, uint8 N×28×28×1."""
    random = np.random.default_rng(0)
    return np.stack([training_image(i % len(STROKES), random.uniform(0.1, 0.16)) for i in range(80)])


@pytest.fixture(scope="module")
def statistics(images) -> ImageStatistics:
    return compute_statistics(images)
