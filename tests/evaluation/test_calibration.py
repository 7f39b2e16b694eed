import numpy as np
import pytest
from scipy.stats import foldnorm

from foveola.evaluation.calibration import (
    _folded_normal,
    calibration_gaps,
    expected_calibration_error,
    fit_temperature,
)
from foveola.tasks import log_losses, softmax


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
    """The grid's figure is the sum of losses and the negative log density of Student's t, as SciPy has it."""
    from scipy.stats import t

    for n in (30, 800):
        logits, labels = calibrated(n, seed=1)
        logits *= 2.5
        grid = np.geomspace(0.05, 20, 2_000)
        losses = [log_losses(logits / temperature, labels).sum() for temperature in grid]
        figures = losses - t.logpdf(np.log(grid), 10, scale=0.1)
        assert fit_temperature(logits, labels) == pytest.approx(grid[np.argmin(figures)], rel=0.01)


def loss_after(temperature, logits, labels):
    return log_losses(logits / temperature, labels).mean()


@pytest.mark.parametrize("n", [1, 9, 20, 80, 400])
def test_few_images_do_no_harm_to_calibrated_probabilities(n):
    """Worst of 60 draws; without the prior the log loss rises by more than 0.1 with 20 images."""
    logits, labels = calibrated(20_000, seed=2)
    generator = np.random.default_rng(3)
    before = loss_after(1.0, logits, labels)
    for _ in range(60):
        drawn = generator.integers(len(labels), size=n)
        temperature = fit_temperature(logits[drawn], labels[drawn])
        assert loss_after(temperature, logits, labels) <= before + 0.03


def test_images_that_are_all_right_do_not_make_probabilities_sharp_without_bound():
    """Ever sharper is then ever better for these images, but 12 of them say little."""
    logits, _ = calibrated(12)
    assert 0.8 < fit_temperature(logits * 4, (logits * 4).argmax(axis=1)) <= 1.0


def test_where_the_images_insist_the_prior_gives_way():
    logits, labels = calibrated(100, seed=4)
    assert fit_temperature(logits * 4, labels) == pytest.approx(4, rel=0.35)
    assert fit_temperature(logits / 4, labels) == pytest.approx(0.25, rel=0.35)


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


def test_gaps_with_noise_have_the_mean_and_the_spread_of_the_folded_normal_distribution():
    x, mean, deviation = _folded_normal()
    chosen = x[::60]
    np.testing.assert_allclose(mean[::60], foldnorm.mean(chosen), rtol=1e-12)
    np.testing.assert_allclose(deviation[::60], foldnorm.std(chosen), atol=1e-9)
