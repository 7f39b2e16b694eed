import numpy as np
import pytest

from foveola.evaluation.calibration import calibration_gaps, expected_calibration_error, fit_temperature, log_losses
from foveola.predictions import softmax


def calibrated(n, classes=5, seed=0, scale=2.0):
    """Logits whose softmax is the true distribution of the labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, classes)) * scale
    labels = (softmax(logits).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return logits, labels


@pytest.mark.parametrize("true_temperature", [0.25, 1.0, 3.0, 12.0])
def test_a_known_temperature_is_recovered(true_temperature):
    logits, labels = calibrated(20_000)
    assert fit_temperature((logits * true_temperature).astype(np.float32), labels) == pytest.approx(
        true_temperature, rel=0.05
    )


def test_temperature_is_the_best_on_a_grid():
    logits, labels = calibrated(800, seed=1)
    logits *= 2.5
    grid = np.geomspace(0.05, 20, 2_000)
    losses = [log_losses(logits / temperature, labels).mean() for temperature in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[np.argmin(losses)], rel=0.01)


def test_the_temperature_stays_1_if_the_images_do_not_determine_it():
    logits, labels = calibrated(9)
    assert fit_temperature(logits * 5, labels) == 1.0, "fewer than two images a class"
    logits, _ = calibrated(500)
    assert fit_temperature(logits, logits.argmax(axis=1)) == 1.0, "all are right"


def test_temperature_does_not_overflow():
    logits, labels = calibrated(500)
    assert fit_temperature((logits * 1e4).astype(np.float32), labels) == pytest.approx(20.0, rel=1e-3)


def test_log_losses_of_huge_logits_are_exact():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], dtype=np.float32)
    np.testing.assert_array_equal(log_losses(logits, np.array([0, 0])), [0.0, 1e4])


@pytest.mark.parametrize("n", [7, 15, 100, 1_003])
def test_ece_equals_a_plain_loop(n):
    logits, labels = calibrated(n, seed=n)
    probabilities = softmax(logits * 1.7)

    rows = sorted((max(row), float(row.argmax() == label)) for row, label in zip(probabilities, labels, strict=True))
    sizes = [n // 15 + (1 if index < n % 15 else 0) for index in range(15)]
    error, start = 0.0, 0
    for size in sizes:
        members = rows[start : start + size]
        error += abs(sum(confidence for confidence, _ in members) - sum(right for _, right in members)) / n
        start += size

    assert expected_calibration_error(probabilities, labels) == pytest.approx(error, abs=1e-12)


def test_ece_of_known_cases():
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert expected_calibration_error(certain, np.array([0, 1, 2, 0])) == 0.0
    assert expected_calibration_error(certain, np.array([1, 2, 0, 1])) == 1.0
    half = np.full((1_000, 2), 0.5)
    assert expected_calibration_error(half, np.tile([0, 1, 1, 0], 250), bins=10) == pytest.approx(0.0, abs=1e-12)


def test_ece_falls_when_the_temperature_is_right():
    logits, labels = calibrated(20_000, seed=6)
    sharp = logits * 4
    before = expected_calibration_error(softmax(sharp), labels)
    after = expected_calibration_error(softmax(sharp / fit_temperature(sharp, labels)), labels)
    assert after < 0.02 < 0.1 < before


def test_gaps_keep_their_input_and_sum_to_positive_bins():
    logits, labels = calibrated(200, seed=7)
    probabilities = softmax(logits)
    before = probabilities.copy()
    gaps = calibration_gaps(probabilities, labels, bins=4)
    np.testing.assert_array_equal(probabilities, before)
    order = probabilities.max(axis=1).argsort(kind="stable")
    assert all(gaps[members].sum() >= 0 for members in np.array_split(order, 4))
