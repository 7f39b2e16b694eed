"""Probabilities and losses of logits against SciPy's functions."""

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from foveola.tasks import log_losses, sigmoid

# From where float64 has nothing smaller to where it has nothing larger than float32
WIDE = np.concatenate([-np.geomspace(3e38, 1e-30, 300), [0.0], np.geomspace(1e-30, 3e38, 300)]).astype(np.float32)


def test_the_logistic_function_is_scipys_at_every_size():
    np.testing.assert_allclose(sigmoid(WIDE), expit(WIDE.astype(np.float64)), rtol=1e-15, atol=1e-308)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4, 1e30])
def test_log_losses_are_those_of_log_sum_exp(scale):
    random = np.random.default_rng(0)
    logits = (scale * random.normal(size=(500, 7))).astype(np.float32)
    labels = random.integers(7, size=500)
    exact = logits.astype(np.float64)
    expected = logsumexp(exact, axis=1) - exact[np.arange(500), labels]
    np.testing.assert_allclose(log_losses(logits, labels), expected, rtol=1e-12, atol=1e-15 * scale)
