"""Metrics of weighted images against scikit-learn's `sample_weight`, and the coverage of their intervals."""

import numpy as np
import pytest
from sklearn import metrics

from foveola.errors import DataError
from foveola.evaluation.auc import auc_macro_ovr
from foveola.evaluation.calibration import calibration_error, fit_temperature
from foveola.evaluation.comparison import mcnemar
from foveola.evaluation.curves import curves
from foveola.evaluation.intervals import effective_number, fraction, grouped_wilson, mean_interval, wilson
from foveola.evaluation.metrics import accuracy, compute_metrics, per_class
from foveola.evaluation.rejection import Rejection, evaluate_rejection
from foveola.predictions import Predictions

CLASSES = ("a", "b", "c", "d")


def predictions_of(n=300, seed=0, weights=None, groups=None):
    generator = np.random.default_rng(seed)
    labels = generator.integers(len(CLASSES), size=n)
    logits = generator.normal(size=(n, len(CLASSES))).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    logits = np.round(logits, 1)  # with ties
    return Predictions(logits, labels, CLASSES, True, groups, weights)


@pytest.fixture
def weighted():
    weights = np.random.default_rng(1).exponential(size=300)
    weights[::7] = 0
    return predictions_of(weights=weights)


def test_every_metric_is_that_of_scikit_learn(weighted):
    labels, predicted, weights = weighted.labels, weighted.predicted, weighted.weights
    probabilities = weighted.probabilities
    measured = compute_metrics(weighted)
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted, sample_weight=weights),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted, sample_weight=weights),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro", sample_weight=weights),
        "auc_macro_ovr": np.mean(
            [metrics.roc_auc_score(labels == k, probabilities[:, k], sample_weight=weights) for k in range(4)]
        ),
        "log_loss": metrics.log_loss(labels, probabilities, sample_weight=weights),
        "brier": np.average(((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1), weights=weights),
    }
    for key, value in expected.items():
        assert measured[key].value == pytest.approx(value, abs=1e-9), key
        assert measured[key].low < value < measured[key].high
        assert measured[key].n == 300


def test_ratios_of_classes_are_those_of_scikit_learn(weighted):
    labels, weights = weighted.labels, weighted.weights
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, weighted.predicted, sample_weight=weights
    )
    for k, row in enumerate(per_class(weighted)):
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[k], recall[k], f1[k]))
        assert row.support == (labels == k).sum()
        assert row.effective_support == pytest.approx(effective_number(weights[labels == k]))
        assert row.recall_low < row.recall < row.recall_high


def test_weights_of_one_change_nothing_but_the_interval_of_a_fraction():
    plain, ones = compute_metrics(predictions_of()), compute_metrics(predictions_of(weights=np.full(300, 2.5)))
    for key, estimate in plain.items():
        bounds = (estimate.value, estimate.low, estimate.high)
        assert (ones[key].value, ones[key].low, ones[key].high) == pytest.approx(bounds, abs=2e-3), key


def test_weights_of_whole_numbers_are_copies_of_images():
    plain = predictions_of()
    times = np.random.default_rng(2).integers(0, 4, size=300)
    copies = compute_metrics(plain.take(np.repeat(np.arange(300), times), held_out=True))
    weighted = compute_metrics(predictions_of(weights=times.astype(float)))
    for key in set(copies) - {"ece"}:  # its bins hold other images
        assert weighted[key].value == pytest.approx(copies[key].value), key
        assert weighted[key].high - weighted[key].low > copies[key].high - copies[key].low, key


def test_the_calibration_error_and_the_temperature_follow_the_weights():
    generator = np.random.default_rng(3)
    labels = generator.integers(2, size=4000)
    right = generator.random(4000) < np.where(np.arange(4000) < 2000, 0.95, 0.6)
    logits = np.where(np.eye(2)[np.where(right, labels, 1 - labels)] == 1, np.log(19), 0.0)  # a confidence of 0.95
    sure = np.arange(4000) < 2000
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for part, error in ((sure, 0.0), (~sure, 0.35)):
        assert calibration_error(probabilities, labels, part * 2.0).value == pytest.approx(error, abs=0.03)
        one = fit_temperature(logits, labels, part * 2.0)
        assert one == pytest.approx(fit_temperature(logits[part], labels[part]), rel=1e-3)


def test_curves_are_weighted(weighted):
    found = curves(weighted, 1.0)
    area = metrics.roc_auc_score(weighted.labels == 2, weighted.probabilities[:, 2], sample_weight=weighted.weights)
    assert found.roc[2].auc == pytest.approx(area)
    assert sum(one.n for one in found.reliability.after.bins) == (weighted.weights > 0).sum()


def test_coverage_and_error_of_a_rejection_threshold_are_weighted(weighted):
    rejection = Rejection(target_error=0.1, threshold=0.5)
    result = evaluate_rejection(weighted, rejection)
    confident = weighted.probabilities.max(axis=1) >= 0.5
    assert result.coverage.value == pytest.approx(np.average(confident, weights=weighted.weights))
    wrong, weights = (weighted.predicted != weighted.labels)[confident], weighted.weights[confident]
    assert result.accepted_error.value == pytest.approx(np.average(wrong, weights=weights))


@pytest.mark.parametrize("heavy_are_worse", [False, True])
def test_the_interval_of_a_weighted_accuracy_covers_the_truth(heavy_are_worse):
    generator = np.random.default_rng(4)
    everyone = generator.lognormal(size=100_000)
    rate = np.where(everyone > np.median(everyone), 0.8, 0.95) if heavy_are_worse else np.full(100_000, 0.9)
    truth = np.average(rate, weights=everyone)
    covered = 0
    for _ in range(400):
        drawn = generator.integers(100_000, size=150)
        found = fraction(generator.random(150) < rate[drawn], weights=everyone[drawn])
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.99


def test_the_interval_of_a_weighted_auc_covers_the_truth():
    covered, truth = 0, 0.7602  # of normal scores whose means are one standard deviation apart
    for seed in range(200):
        generator = np.random.default_rng(seed)
        labels = np.arange(120) % 2
        scores = (generator.normal(size=120) + labels).astype(np.float32)
        logits = np.stack([np.zeros(120, np.float32), scores], axis=1)
        found = auc_macro_ovr(Predictions(logits, labels, ("a", "b"), True, weights=generator.exponential(size=120)))
        covered += found.low <= truth <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_weighted_groups_have_the_interval_of_their_number():
    """Equal weights give what groups give; a group that repeats one answer says no more than one image."""
    answers = np.random.default_rng(5).random(50) < 0.8
    successes, groups = np.repeat(answers, 4), np.repeat(np.arange(50), 4)
    assert fraction(successes, groups, np.full(200, 3.0)).low == pytest.approx(grouped_wilson(successes, groups).low)
    all_right = fraction(np.ones(200, bool), groups, np.ones(200))
    assert (all_right.value, all_right.low) == (1.0, wilson(50, 50).low)


def test_the_bootstrap_of_a_weighted_mean_has_its_width():
    generator = np.random.default_rng(6)
    values, weights = generator.normal(size=2000), generator.exponential(size=2000)
    found = mean_interval(values, weights)
    assert found.value == pytest.approx(np.average(values, weights=weights))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / np.sqrt(effective_number(weights)), rel=0.15)


def test_what_takes_no_weights_says_so(weighted):
    with pytest.raises(DataError, match="Paired tests count every image once"):
        mcnemar(weighted, weighted)
    with pytest.raises(DataError, match="weigh 0"):
        compute_metrics(predictions_of(weights=np.zeros(300)))
    assert "weighted" in auc_macro_ovr(weighted).method
    assert "weights" in accuracy(weighted).method
