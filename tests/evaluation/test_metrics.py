"""Metrics against their definitions, scikit-learn and simulations; and where each row of METRICS is shown."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics

import foveola
from foveola.cli import tables
from foveola.documents import Evaluation
from foveola.errors import ModelError
from foveola.evaluation.calibration import expected_calibration_error
from foveola.evaluation.intervals import wilson
from foveola.evaluation.metrics import (
    METRICS,
    accuracy,
    auc_macro_ovr,
    balanced_accuracy,
    brier,
    compute_metrics,
    confusion,
    ece,
    log_loss,
    macro_f1,
    per_class,
)
from foveola.predictions import Predictions
from foveola.tasks import softmax


def predictions_of(logits, labels, held_out=True):
    logits = np.asarray(logits, dtype=np.float32)
    names = tuple(f"class {index}" for index in range(logits.shape[1]))
    return Predictions(logits, np.asarray(labels, dtype=np.int64), names, held_out)


def random_predictions(n=600, classes=4, seed=0, signal=1.5):
    """Better than chance, with imbalanced classes."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += signal
    return predictions_of(logits, labels)


def test_log_loss_and_brier_are_their_definitions():
    predictions = random_predictions(200)
    exponentials = np.exp(predictions.logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    losses, squares = [], []
    for row, label in zip(probabilities, predictions.labels, strict=True):
        losses.append(-math.log(row[label]))
        squares.append(sum((p - (k == label)) ** 2 for k, p in enumerate(row)))
    assert log_loss(predictions).value == pytest.approx(np.mean(losses), rel=1e-9)
    assert brier(predictions).value == pytest.approx(np.mean(squares), rel=1e-9)


def test_values_equal_scikit_learns():
    predictions = random_predictions()
    labels, probabilities, classes = predictions.labels, predictions.probabilities, range(4)
    loss = sklearn.metrics.log_loss(labels, probabilities, labels=classes)
    area = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert accuracy(predictions).value == sklearn.metrics.accuracy_score(labels, predictions.predicted)
    assert log_loss(predictions).value == pytest.approx(loss, rel=1e-9)
    assert auc_macro_ovr(predictions).value == pytest.approx(area, rel=1e-12)


def test_auc_is_the_fraction_of_pairs_in_order():
    predictions = predictions_of(np.random.default_rng(1).integers(-2, 3, size=(60, 3)), np.arange(60) % 3)
    areas = []
    for label in range(3):
        inside = predictions.probabilities[predictions.labels == label, label]
        outside = predictions.probabilities[predictions.labels != label, label]
        pairs = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
        areas.append(pairs.mean())
    assert auc_macro_ovr(predictions).value == pytest.approx(np.mean(areas), abs=1e-12)


def test_auc_interval_of_two_classes_is_delongs():
    predictions = random_predictions(150, classes=2, signal=0.8)
    positive = predictions.labels == 1
    inside, outside = predictions.probabilities[positive, 1], predictions.probabilities[~positive, 1]
    pairs = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    variance = pairs.mean(axis=1).var(ddof=1) / len(inside) + pairs.mean(axis=0).var(ddof=1) / len(outside)

    estimate = auc_macro_ovr(predictions)

    assert estimate.method == "DeLong"
    area = estimate.value
    margin = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    for bound, sign in ((estimate.low, -1), (estimate.high, 1)):
        assert math.log(bound / (1 - bound)) == pytest.approx(math.log(area / (1 - area)) + sign * margin, rel=1e-6)


def test_auc_interval_of_many_classes_is_as_wide_as_a_bootstraps():
    predictions = random_predictions(800)
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
    truth = auc_macro_ovr(random_predictions(60_000, classes=3, seed=100)).value
    intervals = [auc_macro_ovr(random_predictions(150, classes=3, seed=seed)) for seed in range(200)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize(("sizes", "separated"), [((40, 40), 1 - 0.025 ** (1 / 40)), ((5, 80), 1 - 0.025 ** (1 / 5))])
def test_perfect_separation_bounds_the_area_by_the_rule_of_three(sizes, separated):
    """Of two classes, a fraction e of the smaller one on the wrong side takes e from both areas."""
    labels = np.repeat(np.arange(2), sizes)
    estimate = auc_macro_ovr(predictions_of(np.eye(2)[labels] * 5, labels))
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(1 - separated)


def test_the_area_of_ten_separated_classes_is_bounded_by_one_of_them():
    labels = np.arange(360) % 10
    estimate = auc_macro_ovr(predictions_of(np.eye(10)[labels] * 5, labels))
    assert estimate.low == pytest.approx(1 - (1 - 0.025 ** (1 / 36)) * (1 + 36 / 324) / 10)


@pytest.mark.parametrize("mislabelled", [0.0, 0.02])
@pytest.mark.parametrize("n", [30, 120])
def test_auc_interval_covers_areas_near_1(mislabelled, n):
    """Classes far apart, with a few labels swapped: most test sets of 30 are separated perfectly."""

    def draw(n, random):
        seen = random.integers(2, size=n)
        labels = np.where(random.random(n) < mislabelled, 1 - seen, seen)
        return predictions_of(3 * np.eye(2)[seen] + random.normal(0, 1, (n, 2)), labels)

    truth = METRICS["auc_macro_ovr"].weighted([draw(60_000, np.random.default_rng(0))])(np.ones(60_000))[0]
    random = np.random.default_rng(1)
    intervals = [auc_macro_ovr(draw(n, random)) for _ in range(200)]
    assert np.mean([one.low <= truth <= one.high for one in intervals]) >= 0.95 - 2 * 0.0154


def miscalibrated(n, factor, random):
    """Logits of the labels' distribution, times a factor, and how probable it is that each top class is right."""
    logits = random.normal(size=(n, 4)) * 3
    true = softmax(logits)
    labels = (true.cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(max=3)
    return predictions_of(logits * factor, labels), true.max(axis=1)


@pytest.mark.parametrize("factor", [1.0, 0.6, 1.4, 3.0])
@pytest.mark.parametrize("n", [25, 359, 3_000])
def test_the_interval_of_the_calibration_error_holds_the_truth(factor, n):
    predictions, right = miscalibrated(100_000, factor, np.random.default_rng(0))
    truth = abs(predictions.probabilities.max(axis=1) - right).mean()
    random = np.random.default_rng(n)
    found = [ece(miscalibrated(n, factor, random)[0]) for _ in range(100)]
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found)
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.95 - 2 * 0.0218


def test_a_perfect_model_shows_no_calibration_error_where_bins_alone_show_one():
    random = np.random.default_rng(3)
    models = [miscalibrated(359, 1.0, random)[0] for _ in range(60)]
    in_bins = np.median([expected_calibration_error(model.probabilities, model.labels) for model in models])
    assert np.median([ece(model).value for model in models]) < 0.3 * in_bins
    wrong = miscalibrated(20_000, 3.0, random)[0]
    assert ece(wrong).value == pytest.approx(expected_calibration_error(wrong.probabilities, wrong.labels), rel=0.02)


def test_per_class_and_confusion_by_hand():
    logits = np.eye(3)[[0, 0, 1, 1, 1, 0]] * 4
    predictions = predictions_of(logits, [0, 0, 0, 1, 1, 1])
    two_thirds, recall = 2 / 3, wilson(2, 3)
    row = {"precision": two_thirds, "recall": two_thirds, "f1": two_thirds, "support": 3}
    row |= {"recall_low": recall.low, "recall_high": recall.high}
    absent = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    absent |= {"recall_low": 0.0, "recall_high": 1.0}
    assert [metrics.model_dump() for metrics in per_class(predictions)] == [
        pytest.approx({"name": "class 0", **row}),
        pytest.approx({"name": "class 1", **row}),
        {"name": "class 2", **absent},
    ]
    np.testing.assert_array_equal(confusion(predictions), [[2, 1, 0], [1, 2, 0], [0, 0, 0]])


def test_confusion_rows_are_the_true_classes():
    np.testing.assert_array_equal(confusion(predictions_of([[0, 9], [0, 9]], [0, 1])), [[0, 1], [0, 1]])


def test_recall_intervals_are_wilsons():
    predictions = random_predictions(300)
    for label, row in enumerate(per_class(predictions)):
        members = predictions.labels == label
        expected = wilson(int((predictions.predicted[members] == label).sum()), int(members.sum()))
        assert (row.recall, row.recall_low, row.recall_high) == (expected.value, expected.low, expected.high)


@pytest.mark.parametrize("absent", ["none", "labels", "predictions", "both"])
@pytest.mark.parametrize("seed", range(3))
def test_macro_f1_and_balanced_accuracy_equal_scikit_learns(absent, seed):
    """A class may occur among neither labels nor predictions, or among one of both."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(3 if absent in ("labels", "both") else 4, size=200)
    predicted = generator.integers(3 if absent in ("predictions", "both") else 4, size=200)
    predictions = predictions_of(np.eye(4)[predicted] * 3, labels)
    f1 = sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0.0)
    recalls = sklearn.metrics.recall_score(labels, predicted, average=None, labels=np.unique(labels))
    ratios = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0.0)
    found = [(row.precision, row.recall, row.f1, row.support) for row in per_class(predictions)]
    np.testing.assert_allclose(found, np.transpose(ratios), rtol=1e-14)
    assert macro_f1(predictions).value == pytest.approx(f1, rel=1e-12)
    assert balanced_accuracy(predictions).value == pytest.approx(recalls.mean(), rel=1e-12)
    if set(predicted) <= set(labels):  # otherwise scikit-learn warns of a class that has no labels
        expected = sklearn.metrics.balanced_accuracy_score(labels, predicted)
        assert balanced_accuracy(predictions).value == pytest.approx(expected, rel=1e-12)


# Probabilities of the cells of a confusion matrix: imbalanced classes of different difficulty
CONFUSION = np.array([[0.42, 0.03, 0.05, 0.00], [0.04, 0.21, 0.03, 0.02], [0.01, 0.02, 0.10, 0.01], [0, 0, 0.02, 0.04]])


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_the_interval_contains_the_true_value(metric):
    """In at least 90 % of 300 simulated test sets of 500 images."""
    right, true, predicted = CONFUSION.diagonal(), CONFUSION.sum(axis=1), CONFUSION.sum(axis=0)
    truth = {"macro_f1": (2 * right / (true + predicted)).mean(), "balanced_accuracy": (right / true).mean()}[metric]
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        labels, given = np.divmod(generator.choice(16, 500, p=CONFUSION.ravel()), 4)
        estimate = METRICS[metric].compute(predictions_of(np.eye(4)[given], labels))
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= truth <= estimate.high
    assert 0.90 <= covered / 300 <= 0.985


@pytest.mark.parametrize("metric", METRICS)
def test_with_equal_weights_the_weighted_metric_is_the_metric(metric):
    models = [random_predictions(signal=signal) for signal in (0.5, 1.5)]
    values = METRICS[metric].weighted(models)(np.ones(600))
    assert values.tolist() == pytest.approx([METRICS[metric].compute(model).value for model in models], abs=1e-12)


def test_perfect_and_worst_predictions():
    labels = np.arange(40) % 4
    right = compute_metrics(predictions_of(np.eye(4)[labels] * 50, labels))
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro_ovr"):
        assert right[metric].value == 1.0
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro_ovr"):
        assert 0.6 < right[metric].low < 0.95
    assert right["log_loss"].value == pytest.approx(0.0, abs=1e-12)
    assert right["brier"].value == pytest.approx(0.0, abs=1e-12)
    wrong = compute_metrics(predictions_of(np.eye(4)[(labels + 1) % 4] * 50, labels))
    for metric in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert wrong[metric].value == 0.0
    assert wrong["log_loss"].value == pytest.approx(50.0, rel=1e-6), "nothing is clipped"
    assert wrong["brier"].value == pytest.approx(2.0)
    assert wrong["ece"].value == pytest.approx(1.0)
    assert wrong["auc_macro_ovr"].value < 0.5


def evaluation_of(predictions, split="test"):
    metrics, counts = compute_metrics(predictions), confusion(predictions).tolist()
    rows = per_class(predictions)
    return Evaluation(split=split, n=len(predictions), held_out=True, metrics=metrics, per_class=rows, confusion=counts)


def test_the_document_is_complete_and_strict_json():
    text = evaluation_of(random_predictions(), "validation").to_json()
    assert "NaN" not in text
    document = json.loads(text)
    assert {"format", "split", "n", "held_out", *METRICS, "per_class", "confusion"} <= document.keys()
    assert (document["format"], document["split"], document["n"]) == (1, "validation", 600)
    for name in METRICS:
        estimate = document[name]
        assert set(estimate) == {"value", "low", "high", "n", "method"}
        assert estimate["low"] <= estimate["value"] <= estimate["high"], name
        assert estimate["n"] == 600
    assert np.sum(document["confusion"]) == sum(row["support"] for row in document["per_class"]) == 600


def test_classes_without_images_are_left_out_of_the_auc_without_warning():
    full = random_predictions(400)
    kept = full.labels < 2
    predictions = predictions_of(full.logits[kept], full.labels[kept])
    area = compute_metrics(predictions)["auc_macro_ovr"]
    areas = [
        sklearn.metrics.roc_auc_score(predictions.labels == label, predictions.probabilities[:, label])
        for label in (0, 1)
    ]
    assert area.value == pytest.approx(np.mean(areas))
    assert area.method == "DeLong, 2 of 4 classes occur"
    assert [row.support > 0 for row in per_class(predictions)] == [True, True, False, False]


@pytest.mark.parametrize("n", [1, 30])
def test_a_single_class_has_no_auc(n):
    evaluation = evaluation_of(predictions_of(np.random.default_rng(0).normal(size=(n, 3)), np.zeros(n)))
    area = json.loads(evaluation.to_json())["auc_macro_ovr"]
    assert area["value"] is area["low"] is area["high"] is None
    assert "single class" in area["method"]
    assert not Evaluation.from_json(evaluation.to_json(), "evaluation.json").metrics["auc_macro_ovr"].is_defined


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="NaN or infinite"):
        compute_metrics(predictions_of([[0.0, math.nan]], [0]))


def test_huge_logits_do_not_overflow():
    evaluation = evaluation_of(predictions_of([[1e30, 0], [0, 1e30], [1e30, 0]], [0, 1, 1]))
    assert evaluation.metrics["log_loss"].value == pytest.approx(1e30 / 3)
    assert Evaluation.from_json(evaluation.to_json(), "evaluation.json") == evaluation


# Every row of METRICS is shown everywhere


@pytest.fixture(scope="module")
def compared(toy, toy_run, tiny, tmp_path_factory):
    """The comparison of two runs of the same data, and its page."""
    folder = tmp_path_factory.mktemp("compared")
    other = foveola.train(toy, tiny, overrides={"epochs": 1}, out=folder / "other", report=False, verbose=False)
    comparison = foveola.compare(toy_run, other.path, data=toy, out=folder / "page.html", verbose=False)
    return comparison, (folder / "page.html").read_text("utf-8")


def terminal(table):
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("key", METRICS)
def test_every_metric_has_its_texts(key):
    metric = METRICS[key]
    assert metric.key == key
    assert metric.title
    assert metric.meaning
    assert metric.better in ("higher", "lower")


@pytest.mark.parametrize("key", METRICS)
def test_every_metric_is_in_table_page_and_comparison(key, toy_run, toy_page, compared):
    run, title, meaning = foveola.Run(toy_run), METRICS[key].title, METRICS[key].meaning
    assert key in json.loads((run.path / "evaluation.json").read_text("utf-8"))
    assert f"\n{title} " in terminal(tables.evaluation(run.evaluation))
    assert f'<th scope="row">{title}</th>' in toy_page
    assert f"<td>{meaning}; interval: " in toy_page
    comparison, page = compared
    assert key == "accuracy" or key in comparison.pairs[0].differences
    assert f"\n{title} " in terminal(tables.comparison(comparison))
    assert f'<th scope="row">{title}</th>' in page


@pytest.fixture(scope="module")
def toy_page(toy_run, toy_npz, tmp_path_factory):
    """The report of the toy run."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    return foveola.report(toy_run, data=toy_npz, out=page, verbose=False).read_text("utf-8")


def test_metrics_need_no_torch():
    code = """
import sys, numpy as np
from foveola.evaluation import calibration, intervals, metrics
assert not {"sklearn", "scipy"} & set(sys.modules), "importing is quick"
from foveola.predictions import Predictions
metrics.compute_metrics(Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a", "b"), True))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_of_a_group_count_for_less_than_as_many_others():
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(2, size=20), 10)
    guesses = np.repeat(generator.integers(2, size=20), 10)
    logits = np.eye(2, dtype=np.float32)[guesses]
    alone, grouped = (
        accuracy(Predictions(logits, labels, ("a", "b"), held_out=True, groups=groups))
        for groups in (None, np.repeat(np.arange(20), 10))
    )
    assert alone.value == grouped.value
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)
    assert grouped.method == "Wilson, effective sample size of 20 groups"
    each = accuracy(Predictions(logits, labels, ("a", "b"), held_out=True, groups=np.arange(200)))
    assert (each.low, each.high) == (alone.low, alone.high)
