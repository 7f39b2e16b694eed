import json
import math
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics

from foveola.errors import ModelError
from foveola.evaluation.calibration import expected_calibration_error
from foveola.evaluation.metrics import (
    METRICS,
    accuracy,
    auc_macro_ovr,
    brier,
    confusion,
    ece,
    evaluate,
    log_loss,
    per_class,
)
from foveola.predictions import Predictions, softmax


def predictions_of(logits, labels, held_out=True):
    logits = np.asarray(logits, dtype=np.float32)
    names = tuple(f"class {index}" for index in range(logits.shape[1]))
    return Predictions(logits, np.asarray(labels, dtype=np.int64), names, held_out)


def some(n=600, classes=4, seed=0, signal=1.5):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += signal
    return predictions_of(logits, labels)


def test_log_loss_and_brier_are_their_definitions():
    predictions = some(200)
    exponentials = np.exp(predictions.logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    losses, squares = [], []
    for row, label in zip(probabilities, predictions.labels, strict=True):
        losses.append(-math.log(row[label]))
        squares.append(sum((p - (k == label)) ** 2 for k, p in enumerate(row)))
    assert log_loss(predictions).value == pytest.approx(np.mean(losses), rel=1e-9)
    assert brier(predictions).value == pytest.approx(np.mean(squares), rel=1e-9)


def test_values_are_scikit_learns():
    predictions = some()
    labels, probabilities, classes = predictions.labels, predictions.probabilities, range(4)
    loss = sklearn.metrics.log_loss(labels, probabilities, labels=classes)
    area = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert accuracy(predictions).value == sklearn.metrics.accuracy_score(labels, predictions.predicted)
    assert log_loss(predictions).value == pytest.approx(loss, rel=1e-9)
    assert auc_macro_ovr(predictions).value == pytest.approx(area, rel=1e-12)


def test_auc_is_the_share_of_pairs_in_order():
    predictions = predictions_of(np.random.default_rng(1).integers(-2, 3, size=(60, 3)), np.arange(60) % 3)
    areas = []
    for label in range(3):
        inside = predictions.probabilities[predictions.labels == label, label]
        outside = predictions.probabilities[predictions.labels != label, label]
        pairs = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
        areas.append(pairs.mean())
    assert auc_macro_ovr(predictions).value == pytest.approx(np.mean(areas), abs=1e-12)


def test_auc_interval_of_two_classes_is_delongs():
    predictions = some(150, classes=2)
    positive = predictions.labels == 1
    inside, outside = predictions.probabilities[positive, 1], predictions.probabilities[~positive, 1]
    pairs = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    variance = pairs.mean(axis=1).var(ddof=1) / len(inside) + pairs.mean(axis=0).var(ddof=1) / len(outside)

    estimate = auc_macro_ovr(predictions)

    assert estimate.method == "DeLong"
    assert estimate.value - estimate.low == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)


def test_auc_interval_of_many_classes_is_as_wide_as_a_bootstraps():
    predictions = some(800)
    generator = np.random.default_rng(2)
    areas = []
    for _ in range(400):
        drawn = generator.integers(800, size=800)
        areas.append(
            sklearn.metrics.roc_auc_score(
                predictions.labels[drawn], predictions.probabilities[drawn], multi_class="ovr"
            )
        )
    estimate = auc_macro_ovr(predictions)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * np.std(areas), rel=0.12)


def test_auc_interval_covers_the_true_area():
    truth = auc_macro_ovr(some(60_000, classes=3, seed=100)).value
    intervals = [auc_macro_ovr(some(150, classes=3, seed=seed)) for seed in range(200)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.99


def test_ece_interval_holds_its_value():
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(3_000, 4)) * 2
    labels = (softmax(logits).cumsum(axis=1) < generator.random((3_000, 1))).sum(axis=1)
    for factor in (1, 3):
        predictions = predictions_of(logits * factor, labels)
        estimate = ece(predictions)
        assert estimate.value == pytest.approx(expected_calibration_error(predictions.probabilities, labels), abs=1e-12)
        assert 0 <= estimate.low < estimate.value < estimate.high


def test_per_class_and_confusion_by_hand():
    logits = np.eye(3)[[0, 0, 1, 1, 1, 0]] * 4
    predictions = predictions_of(logits, [0, 0, 0, 1, 1, 1])
    third = 2 / 3
    row = {"precision": third, "recall": third, "f1": third, "support": 3}
    assert per_class(predictions) == [
        pytest.approx({"name": "class 0", **row}),
        pytest.approx({"name": "class 1", **row}),
        {"name": "class 2", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    ]
    np.testing.assert_array_equal(confusion(predictions), [[2, 1, 0], [1, 2, 0], [0, 0, 0]])


def test_confusion_rows_are_the_true_classes():
    np.testing.assert_array_equal(confusion(predictions_of([[0, 9], [0, 9]], [0, 1])), [[0, 1], [0, 1]])


def test_perfect_and_worst_predictions():
    labels = np.arange(40) % 4
    right = evaluate(predictions_of(np.eye(4)[labels] * 50, labels), "test")
    assert right["accuracy"]["value"] == right["auc_macro_ovr"]["value"] == 1.0
    assert right["accuracy"]["low"] < 0.95
    assert right["log_loss"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert right["brier"]["value"] == pytest.approx(0.0, abs=1e-12)
    wrong = evaluate(predictions_of(np.eye(4)[(labels + 1) % 4] * 50, labels), "test")
    assert wrong["accuracy"]["value"] == 0.0
    assert wrong["log_loss"]["value"] == pytest.approx(50.0, rel=1e-6), "nothing is clipped"
    assert wrong["brier"]["value"] == pytest.approx(2.0)
    assert wrong["ece"]["value"] == pytest.approx(1.0)
    assert wrong["auc_macro_ovr"]["value"] < 0.5


def test_the_document_is_whole_and_strict_json():
    document = json.loads(json.dumps(evaluate(some(), "validation"), allow_nan=False))
    assert list(document) == ["split", "n", "held_out", *METRICS, "per_class", "confusion"]
    assert (document["split"], document["n"], document["held_out"]) == ("validation", 600, True)
    for name in METRICS:
        figure = document[name]
        assert set(figure) == {"value", "low", "high", "n", "method"}
        assert figure["low"] <= figure["value"] <= figure["high"], name
        assert figure["n"] == 600
    assert np.sum(document["confusion"]) == sum(row["support"] for row in document["per_class"]) == 600


def test_classes_without_images_are_left_out_of_the_auc_and_nothing_warns():
    full = some(400)
    kept = full.labels < 2
    predictions = predictions_of(full.logits[kept], full.labels[kept])
    document = evaluate(predictions, "test")
    areas = [
        sklearn.metrics.roc_auc_score(predictions.labels == label, predictions.probabilities[:, label])
        for label in (0, 1)
    ]
    assert document["auc_macro_ovr"]["value"] == pytest.approx(np.mean(areas))
    assert document["auc_macro_ovr"]["method"] == "DeLong, 2 of 4 classes occur"
    assert [row["support"] > 0 for row in document["per_class"]] == [True, True, False, False]


@pytest.mark.parametrize("n", [1, 30])
def test_a_single_class_has_no_auc(n):
    document = evaluate(predictions_of(np.random.default_rng(0).normal(size=(n, 3)), np.zeros(n)), "test")
    area = document["auc_macro_ovr"]
    assert area["value"] is area["low"] is area["high"] is None
    assert "single class" in area["method"]
    json.dumps(document, allow_nan=False)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="NaN or infinite"):
        evaluate(predictions_of([[0.0, math.nan]], [0]), "test")


def test_huge_logits_do_not_overflow():
    predictions = predictions_of([[1e30, 0], [0, 1e30], [1e30, 0]], [0, 1, 1])
    document = evaluate(predictions, "test")
    assert document["log_loss"]["value"] == pytest.approx(1e30 / 3)
    json.dumps(document, allow_nan=False)


def test_evaluating_needs_no_torch():
    code = """
import sys, numpy as np
from foveola.evaluation import calibration, intervals, metrics
assert not {"sklearn", "scipy"} & set(sys.modules), "importing is quick"
from foveola.predictions import Predictions
metrics.evaluate(Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a", "b"), True), "test")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
