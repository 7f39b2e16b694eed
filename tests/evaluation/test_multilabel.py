"""Metrics of several labels an image against scikit-learn; thresholds; coverage of the bootstrap."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from foveola.documents import Evaluation
from foveola.errors import DataError
from foveola.evaluation import multilabel
from foveola.evaluation.calibration import fit_temperature
from foveola.evaluation.comparison import mcnemar
from foveola.evaluation.metrics import MULTILABEL_METRICS, compute_metrics
from foveola.evaluation.multilabel import best_thresholds, per_label
from foveola.predictions import Predictions
from foveola.tasks import log_losses, sigmoid

NAMES = ("cat", "dog", "bird")


def predictions_of(n=400, seed=0, **changes):
    generator = np.random.default_rng(seed)
    labels = generator.random((n, 3)) < (0.5, 0.3, 0.1)
    logits = np.round(generator.normal(size=(n, 3)) + 2 * labels - 1, 1).astype(np.float32)  # with ties
    return Predictions(logits, labels, NAMES, True, thresholds=(0.5, 0.4, 0.3), **changes)


@pytest.fixture(params=["plain", "weighted"])
def predictions(request):
    weights = np.random.default_rng(1).exponential(size=400)
    weights[::9] = 0
    return predictions_of(weights=weights if request.param == "weighted" else None)


def test_every_metric_is_that_of_scikit_learn(predictions):
    labels, weights, probabilities = predictions.labels, predictions.weights, sigmoid(predictions.logits)
    given = probabilities >= np.array([0.5, 0.4, 0.3])
    measured = compute_metrics(predictions)
    losses = [metrics.log_loss(labels[:, k], probabilities[:, k], sample_weight=weights) for k in range(3)]
    expected = {
        "mean_average_precision": metrics.average_precision_score(
            labels, probabilities, average="macro", sample_weight=weights
        ),
        "macro_f1": metrics.f1_score(labels, given, average="macro", sample_weight=weights),
        "micro_f1": metrics.f1_score(labels, given, average="micro", sample_weight=weights),
        "accuracy": metrics.accuracy_score(labels, given, sample_weight=weights),
        "log_loss": np.mean(losses),
    }
    assert set(measured) == set(expected) == set(MULTILABEL_METRICS)
    for key, value in expected.items():
        assert measured[key].value == pytest.approx(value, abs=1e-9), key
        assert measured[key].low < value < measured[key].high, key
        assert measured[key].n == 400


def test_each_label_has_the_metrics_of_scikit_learn(predictions):
    labels, weights, given = predictions.labels, predictions.weights, predictions.predicted
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, given, sample_weight=weights)
    for k, row in enumerate(per_label(predictions)):
        area = metrics.average_precision_score(labels[:, k], predictions.logits[:, k], sample_weight=weights)
        expected = {"precision": precision[k], "recall": recall[k], "f1": f1[k], "average_precision": area}
        for name, value in expected.items():
            assert getattr(row, name).value == pytest.approx(value, abs=1e-9), name
            assert getattr(row, name).low < value < getattr(row, name).high
        assert (row.name, row.support, row.predicted) == (NAMES[k], labels[:, k].sum(), given[:, k].sum())


def test_a_label_that_no_image_has_is_left_out():
    predictions = predictions_of()
    labels = predictions.labels.copy()
    labels[:, 2] = False
    predictions = replace(predictions, labels=labels, logits=predictions.logits - np.array([0, 0, 99], np.float32))
    measured, rows = compute_metrics(predictions), per_label(predictions)
    areas = [metrics.average_precision_score(labels[:, k], predictions.logits[:, k]) for k in range(2)]
    assert measured["mean_average_precision"].value == pytest.approx(np.mean(areas))
    assert math.isnan(rows[2].recall.value)
    assert math.isnan(rows[2].average_precision.value)
    assert measured["macro_f1"].is_defined
    document = Evaluation(
        split="test", n=400, task="multilabel", held_out=True, metrics=measured, per_class=[], confusion=[], labels=rows
    )
    again = Evaluation.from_json(document.to_json(), "")
    assert list(again.metrics) == list(MULTILABEL_METRICS)
    assert again.to_json() == document.to_json()


def test_copies_of_images_in_groups_do_not_make_intervals_narrower():
    single = compute_metrics(predictions_of())
    copies = predictions_of().take(np.tile(np.arange(400), 4), held_out=True)
    grouped = compute_metrics(replace(copies, groups=np.tile(np.arange(400), 4)))
    for key, estimate in compute_metrics(copies).items():
        width = single[key].high - single[key].low
        assert estimate.high - estimate.low == pytest.approx(width / 2, rel=0.15), key
        assert grouped[key].high - grouped[key].low == pytest.approx(width, rel=0.1), key
        assert grouped[key].value == pytest.approx(single[key].value)


@pytest.mark.parametrize("key", ["mean_average_precision", "macro_f1", "micro_f1", "log_loss"])
def test_intervals_cover_the_truth(key, monkeypatch):
    monkeypatch.setattr(multilabel, "RESAMPLES", 1)
    truth = MULTILABEL_METRICS[key].compute(predictions_of(30_000, 99)).value
    monkeypatch.setattr(multilabel, "RESAMPLES", 200)
    found = [MULTILABEL_METRICS[key].compute(predictions_of(300, seed)) for seed in range(100)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.88 <= covered <= 0.99


def test_thresholds_have_the_best_f1_of_all():
    generator = np.random.default_rng(3)
    for _ in range(4):
        labels = generator.random((60, 2)) < 0.4
        probabilities = np.round(sigmoid(generator.normal(size=(60, 2)) + labels), 2)
        weights = generator.integers(0, 3, 60).astype(float)
        chosen = best_thresholds(probabilities, labels, weights)
        for k, threshold in enumerate(chosen):
            every = [
                metrics.f1_score(labels[:, k], probabilities[:, k] >= other, sample_weight=weights, zero_division=0)
                for other in [*np.unique(probabilities[:, k]), threshold]
            ]
            assert every[-1] == pytest.approx(max(every))
    assert best_thresholds(np.full((4, 1), 0.9), np.zeros((4, 1), bool)) == (0.5,)
    assert best_thresholds(np.array([[0.2], [0.9]]), np.array([[False], [True]])) == (pytest.approx(0.55),)


def test_the_temperature_of_sigmoids_is_found_again():
    generator = np.random.default_rng(4)
    logits = 2 * generator.normal(size=(4000, 5))
    labels = generator.random((4000, 5)) < sigmoid(logits)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.05)


def test_the_loss_is_that_of_scikit_learn_and_never_infinite():
    logits = np.array([[800.0, -800.0], [0.3, -2.0]])
    labels = np.array([[False, True], [True, False]])
    losses = log_losses(logits, labels)
    assert losses[0] == 800
    assert losses[1] == pytest.approx(np.mean([np.log1p(np.exp(-0.3)), np.log1p(np.exp(-2))]))


def test_models_are_not_compared_in_pairs():
    with pytest.raises(DataError, match="several labels"):
        mcnemar(predictions_of(), predictions_of())
