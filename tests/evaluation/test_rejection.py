"""Thresholds against brute force over all thresholds."""

import numpy as np
import pytest
from scipy.stats import binomtest

from foveola.evaluation.rejection import choose_threshold, coverage_at, evaluate_rejection, risk_coverage
from foveola.models.metadata import Rejection
from foveola.predictions import Predictions


def predictions_of(n, seed, levels=None):
    """Better than chance; with `levels`, so few different probabilities that many are the same."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=n)
    logits = generator.normal(size=(n, 3)) * 2
    logits[np.arange(n), labels] += 2
    if levels is not None:
        logits = np.eye(3)[logits.argmax(axis=1)] * np.ceil(generator.random((n, 1)) * levels)
    return Predictions(logits.astype(np.float32), labels, ("a", "b", "c"), held_out=True)


def brute_force(predictions):
    """(coverage, risk, threshold) of every probability that occurs, from the highest on, counted image by image."""
    top = [max(row) for row in predictions.probabilities.tolist()]
    wrong = [int(row.argmax() != label) for row, label in zip(predictions.logits, predictions.labels, strict=True)]
    rows = []
    for threshold in sorted(set(top), reverse=True):
        chosen = [error for probability, error in zip(top, wrong, strict=True) if probability >= threshold]
        rows.append((len(chosen) / len(top), sum(chosen) / len(chosen), threshold))
    return rows


CASES = [(1, 0, None), (7, 1, None), (200, 2, None), (200, 3, 4), (150, 4, 1), (600, 5, 20)]


@pytest.mark.parametrize(("n", "seed", "levels"), CASES)
def test_the_curve_equals_brute_force(n, seed, levels):
    predictions = predictions_of(n, seed, levels)
    coverage, risk = risk_coverage(predictions)
    expected = brute_force(predictions)
    np.testing.assert_allclose(coverage, [row[0] for row in expected], rtol=1e-12)
    np.testing.assert_allclose(risk, [row[1] for row in expected], rtol=1e-12)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx((predictions.predicted != predictions.labels).mean())


@pytest.mark.parametrize(("n", "seed", "levels"), CASES)
@pytest.mark.parametrize("error", [0.0, 0.01, 0.05, 0.1, 0.5, 1.0])
def test_no_threshold_within_the_target_error_has_more_coverage(n, seed, levels, error):
    predictions = predictions_of(n, seed, levels)
    good = [row for row in brute_force(predictions) if row[1] <= error]
    expected = max(good, default=(0.0, None, None))
    assert coverage_at(predictions, error) == expected[0]
    assert choose_threshold(predictions, error) == expected[2]


@pytest.mark.parametrize("error", [0.0, 0.02, 0.1])
def test_the_chosen_threshold_keeps_the_target_error(error):
    predictions = predictions_of(500, 6)
    rejection = Rejection(target_error=error, threshold=choose_threshold(predictions, error))
    confident = rejection.is_confident(predictions.probabilities)
    assert confident.mean() == coverage_at(predictions, error) > 0
    assert (predictions.predicted != predictions.labels)[confident].mean() <= error


def test_no_prediction_is_confident_if_the_most_confident_is_wrong():
    predictions = Predictions(np.array([[9.0, 0], [1, 0], [1, 0]], np.float32), np.array([1, 0, 0]), ("a", "b"), True)
    assert choose_threshold(predictions, 0.3) is None
    assert coverage_at(predictions, 0.3) == 0.0
    rejection = Rejection(target_error=0.3, threshold=None)
    assert not rejection.is_confident(predictions.probabilities).any()
    result = evaluate_rejection(predictions, rejection)
    assert (result.threshold, result.n, result.accepted_error) == (None, 0, None)
    assert result.coverage.value == 0.0


def test_coverage_and_error_rate_have_intervals():
    predictions = predictions_of(400, 8)
    result = evaluate_rejection(predictions, Rejection(target_error=0.05, threshold=0.8))
    confident = predictions.probabilities.max(axis=1) >= 0.8
    wrong = int((predictions.predicted != predictions.labels)[confident].sum())
    assert (result.error, result.threshold, result.n) == (0.05, 0.8, confident.sum())
    for estimate, successes, n in (
        (result.coverage, confident.sum(), 400),
        (result.accepted_error, wrong, result.n),
    ):
        interval = binomtest(int(successes), int(n)).proportion_ci(method="wilson")
        assert estimate.value == pytest.approx(successes / n)
        assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
