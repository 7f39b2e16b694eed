"""The numbers behind the plots, against counting by hand and scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import auc, log_loss, roc_auc_score, roc_curve

from foveola.evaluation.curves import (
    ConfusedClasses,
    Curves,
    PredictedImage,
    RocCurve,
    confused_pairs,
    curves,
    least_certain,
    neighbour_map,
    neighbours,
    principal_plane,
    reliability,
    roc,
    worst_mistakes,
)
from foveola.predictions import Predictions
from foveola.tasks import softmax


def predictions(n=600, classes=4, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    logits = random.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return Predictions(logits, labels, tuple("abcdefgh"[:classes]), held_out=True)


def test_roc_equals_scikit_learns_and_the_thinned_curve_keeps_the_area():
    given = predictions(5000)
    for label in range(4):
        curve = roc(given, label)
        false, true = curve.false_positive_rate, curve.true_positive_rate
        assert curve.auc == pytest.approx(roc_auc_score(given.labels == label, given.probabilities[:, label]))
        assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
        assert len(false) == len(true) <= 80
        assert auc(false, true) == pytest.approx(curve.auc, abs=2e-3)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 40])
@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_points_of_roc_are_scikit_learns(n, levels, weighted):
    """With ties, with images of weight 0, and without what lies on a line."""
    random = np.random.default_rng(n + levels)
    labels = np.arange(n) % 2
    scores = random.integers(levels, size=n) / levels
    weights = random.integers(3, size=n).astype(np.float64) if weighted else None
    if weighted:
        weights[:2] = 1
    logits = np.log(np.stack([1.5 - scores, scores + 0.5], axis=1)).astype(np.float32)
    given = Predictions(logits, labels, ("no", "yes"), held_out=True, weights=weights)
    false, true, _ = roc_curve(labels, given.probabilities[:, 1], sample_weight=weights)
    curve = roc(given, 1)
    np.testing.assert_allclose(curve.false_positive_rate, false, rtol=0, atol=1e-15)
    np.testing.assert_allclose(curve.true_positive_rate, true, rtol=0, atol=1e-15)
    assert curve.auc == pytest.approx(auc(false, true), abs=1e-15)


def test_a_class_that_does_not_occur_has_no_roc():
    given = Predictions(np.eye(3, dtype=np.float32)[[0, 1]], np.array([0, 1]), ("a", "b", "c"), held_out=True)
    assert roc(given, 2) == RocCurve(name="c", auc=None, false_positive_rate=[], true_positive_rate=[])


def test_reliability_bins_have_equal_numbers_and_add_up():
    given = predictions(607)
    found = reliability(given.logits, given.labels)
    bins = found.bins
    assert {bin.n for bin in bins} == {40, 41}
    assert sum(bin.n for bin in bins) == 607
    right = (given.predicted == given.labels).mean()
    assert sum(bin.n * bin.accuracy for bin in bins) / 607 == pytest.approx(right)
    assert all(bin.low <= bin.accuracy <= bin.high for bin in bins)
    assert [bin.confidence for bin in bins] == sorted(bin.confidence for bin in bins)
    gaps = [bin.n * abs(bin.confidence - bin.accuracy) for bin in bins]
    assert found.ece <= sum(gaps) / 607
    assert found.log_loss == pytest.approx(log_loss(given.labels, given.probabilities))


def test_fewer_images_than_bins():
    given = predictions(4)
    assert [bin.n for bin in reliability(given.logits, given.labels).bins] == [1, 1, 1, 1]


def test_logits_before_the_temperature_are_multiplied_by_it():
    given = predictions()
    diagram = curves(given, temperature=2.0).reliability
    assert diagram.before == reliability(2 * given.logits, given.labels)
    assert diagram.before.ece != diagram.after.ece
    assert curves(given, temperature=1.0).reliability.before == diagram.after


def test_pairs_count_both_directions():
    counts = np.array([[9, 1, 0], [4, 9, 2], [0, 3, 9]])
    assert [tuple(pair) for pair in confused_pairs(counts)] == [(0, 1, 1, 4), (1, 2, 2, 3)]
    assert [pair.images for pair in confused_pairs(counts)] == [5, 5]
    assert confused_pairs(np.diag([3, 4])) == []


def test_worst_and_least_certain_are_ranked():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.3, 0.7], [0.99, 0.01]])
    given = Predictions(np.log(probabilities), np.array([1, 1, 1, 0, 0]), ("a", "b"), held_out=True)
    assert worst_mistakes(given).tolist() == [0, 3, 2]
    assert least_certain(given).tolist() == [2, 3, 1, 0, 4]
    listed = curves(given, temperature=1.0)
    first = listed.worst_mistakes[0]
    assert first == PredictedImage(index=0, true="b", given="a", probability=first.probability)
    assert first.probability == pytest.approx(0.9)
    assert listed.confused_pairs == [ConfusedClasses(classes=("a", "b"), taken_for_the_other=(1, 2))]


def test_the_document_is_strict_json():
    document = curves(predictions(3000), temperature=1.7)
    assert Curves.model_validate(json.loads(json.dumps(document.model_dump(mode="json"), allow_nan=False))) == document
    assert len(document.risk_coverage.coverage) <= 80
    assert document.risk_coverage.coverage[-1] == 1


def test_confused_classes_become_neighbours():
    counts = 100 * np.eye(6, dtype=np.int64)
    for one, other in ((0, 3), (1, 5), (2, 4)):
        counts[one, other] = counts[other, one] = 40
    order = neighbours(counts).tolist()
    assert sorted(order) == list(range(6))
    assert {frozenset(order[start : start + 2]) for start in (0, 2, 4)} == {
        frozenset(pair) for pair in ((0, 3), (1, 5), (2, 4))
    }
    assert neighbours(np.eye(2, dtype=np.int64)).tolist() == [0, 1]


def test_the_plane_keeps_the_largest_variance():
    random = np.random.default_rng(0)
    flat = random.normal(size=(200, 2)) * (9, 4)
    turn, _ = np.linalg.qr(random.normal(size=(20, 20)))
    points, share = principal_plane(flat @ turn[:2] + 0.01 * random.normal(size=(200, 20)))
    distances = np.linalg.norm(points[:, None] - points, axis=2), np.linalg.norm(flat[:, None] - flat, axis=2)
    np.testing.assert_allclose(*distances, atol=0.2)
    assert share > 0.99


def test_the_map_puts_similar_directions_together():
    vectors, groups = make_blobs(90, n_features=12, centers=3, cluster_std=0.5, random_state=0)
    lengths = np.random.default_rng(0).uniform(0.5, 2, (90, 1))
    points = neighbour_map(lengths * vectors)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    np.testing.assert_array_equal(points, neighbour_map(lengths * vectors))


@pytest.mark.parametrize("layout", [lambda vectors: principal_plane(vectors)[0], neighbour_map])
def test_identical_vectors_get_one_point(layout):
    assert not layout(np.ones((12, 5))).any()


def test_confidence_is_the_highest_softmax_probability():
    given = predictions(30)
    highest = np.sort(softmax(given.logits).max(axis=1))
    assert reliability(given.logits, given.labels).bins[0].confidence == pytest.approx(highest[:2].mean())
