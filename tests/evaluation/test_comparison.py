"""Paired tests against published examples, closed formulas and simulations."""

import math

import numpy as np
import pytest

from foveola.errors import DataError
from foveola.evaluation import metrics
from foveola.evaluation.comparison import (
    accuracy_difference,
    holm,
    is_significant,
    mcnemar,
    metric_differences,
    p_text,
    scope,
    verdict,
)
from foveola.predictions import Estimate, Predictions


def correct_on(right):
    """Predictions that are right where `right` is true."""
    right = np.asarray(right).astype(int)
    return Predictions(np.eye(2, dtype=np.float32)[right], np.ones(len(right), np.int64), ("no", "yes"), True)


def pair(both, first, second, neither):
    """Two models, by the number of images on which both, only the first, only the second, or neither is right."""
    one = [1] * both + [1] * first + [0] * second + [0] * neither
    two = [1] * both + [0] * first + [1] * second + [0] * neither
    return correct_on(one), correct_on(two)


def scores(n=400, classes=3, noise=1.0, seed=0, labels_seed=9):
    labels = np.random.default_rng(labels_seed).integers(classes, size=n)
    logits = np.random.default_rng(seed).normal(0, noise, (n, classes)) + 1.5 * np.eye(classes)[labels]
    return Predictions(logits.astype(np.float32), labels, tuple("abcdef"[:classes]), True)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((20, 12, 2, 16), 0.0562, 0.3292),  # Armitage and Berry's sputum cultures, Newcombe's interval in StatsDirect
        ((59, 6, 16, 80), -0.1186, -0.0046),  # Cavo et al. 2012, as the R package contingencytables gives it
    ],
)
def test_newcombes_interval_equals_published_ones(table, low, high):
    one, two = pair(*table)
    difference = accuracy_difference([one], [two]).difference
    assert difference.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert (difference.low, difference.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))
    swapped = accuracy_difference([two], [one]).difference
    assert (swapped.low, swapped.high) == (pytest.approx(-difference.high), pytest.approx(-difference.low))


@pytest.mark.parametrize("table", [(20, 12, 2, 16), (1, 1, 7, 12), (0, 9, 3, 4), (5, 4, 4, 5)])
def test_mcnemar_is_the_binomial_tail(table):
    found = mcnemar(*pair(*table))
    _, first, second, _ = table
    differing = first + second
    tail = sum(math.comb(differing, k) for k in range(min(first, second) + 1)) / 2**differing
    assert (found.both_right, found.only_first, found.only_second, found.neither) == table
    assert found.p == pytest.approx(min(2 * tail, 1.0))


def test_equal_predictions_have_no_difference():
    one = scores(60)
    tested = accuracy_difference([one], [one])
    assert (tested.difference.value, tested.p) == (0.0, 1.0)
    assert tested.difference.low <= 0 <= tested.difference.high
    assert {(found.low, found.value, found.high) for found in metric_differences([one], [one], 20).values()} == {
        (0.0, 0.0, 0.0)
    }


def test_differences_are_those_of_the_metrics():
    one, two = scores(), scores(noise=1.6, seed=1)
    differences = metric_differences([one], [two], 50)
    assert set(differences) == set(metrics.METRICS) - {"accuracy"}
    for name, difference in differences.items():
        metric = metrics.METRICS[name]
        assert difference.value == pytest.approx(metric.compute(one).value - metric.compute(two).value, abs=1e-12), name


def test_ties_count_half_in_the_area():
    one, two = pair(20, 12, 2, 16)
    labels = np.arange(50) % 2
    one, two = (Predictions(model.logits, labels, model.class_names, True) for model in (one, two))
    difference = metric_differences([one], [two], 10)["auc_macro_ovr"]
    expected = metrics.auc_macro_ovr(one).value - metrics.auc_macro_ovr(two).value
    assert difference.value == pytest.approx(expected, abs=1e-12)


def test_the_paired_bootstrap_agrees_with_the_normal_interval_of_paired_losses():
    one, two = scores(2000), scores(2000, noise=1.3, seed=1)
    rows = np.arange(2000)

    def losses(model):
        return -np.log(model.probabilities[rows, model.labels])

    apart = losses(one) - losses(two)
    margin = 1.96 * apart.std(ddof=1) / math.sqrt(2000)
    difference = metric_differences([one], [two])["log_loss"]
    assert difference.low == pytest.approx(apart.mean() - margin, abs=0.15 * margin)
    assert difference.high == pytest.approx(apart.mean() + margin, abs=0.15 * margin)
    assert difference.method == "paired percentile bootstrap, 1000 resamples"


def test_with_a_single_class_the_auc_is_not_defined():
    assert math.isnan(metric_differences([correct_on([1, 0, 1])], [correct_on([1, 1, 0])], 5)["auc_macro_ovr"].value)


def test_progress_is_reported():
    reported = []
    metric_differences([scores(30)], [scores(30, seed=1)], 3, lambda done, total: reported.append((done, total)))
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_over_seeds_it_is_welchs_test_if_all_images_are_equally_difficult():
    """No two trainings of a run are wrong on the same image, so only the variance between seeds is left."""
    from scipy.stats import ttest_ind

    n = 100
    wrong = (
        [[0], range(1, 18), range(18, 21)],
        [[0, 1, 18], [*range(2, 15), 19], [15, 16, 17, 20]],
    )
    tested = accuracy_difference(*([correct_on(~np.isin(np.arange(n), ours)) for ours in side] for side in wrong))
    accuracies = [[1 - len(ours) / n for ours in side] for side in wrong]
    reference = ttest_ind(*accuracies, equal_var=False)
    interval = reference.confidence_interval()
    assert tested.p == pytest.approx(reference.pvalue)
    assert tested.difference.low == pytest.approx(interval.low)
    assert tested.difference.high == pytest.approx(interval.high)


@pytest.mark.parametrize("table", [(300, 40, 20, 40), (20, 0, 0, 0), (0, 0, 0, 20), (0, 20, 0, 0), (19, 1, 0, 0)])
def test_trainings_that_agree_on_every_image_count_once(table):
    """No interval of width zero, no p of 0: the images' own spread is left."""
    one, two = pair(*table)
    single, several = accuracy_difference([one], [two]), accuracy_difference([one, one, one], [two, two, two])
    assert (several.difference, several.p) == (single.difference, single.p)
    assert several.test == "McNemar's exact test; the trainings of a side agree on every image"
    assert several.difference.low < several.difference.high
    assert 0 < several.p <= 1


def test_trainings_that_are_equally_accurate_by_chance_keep_the_images_spread():
    """Their accuracies agree, but not their mistakes."""
    n = 60
    wrong = ([[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]])
    sides = [[correct_on(~np.isin(np.arange(n), ours)) for ours in side] for side in wrong]
    tested = accuracy_difference(*sides)
    assert tested.difference.value == pytest.approx(1 / 60)
    assert tested.difference.low < 0 < tested.difference.high
    assert tested.p > 0.3


def test_models_without_a_mistake_have_intervals_of_a_width():
    labels = np.arange(30) % 3
    models = [Predictions(scale * np.eye(3)[labels], labels, ("a", "b", "c"), True) for scale in (3.0, 4.0, 5.0, 6.0)]
    for sides in ((models[:1], models[1:2]), (models[:2], models[2:])):
        tested, differences = accuracy_difference(*sides), metric_differences(*sides, 50)
        assert tested.p == 1.0
        for difference in (
            tested.difference,
            *(differences[key] for key in ("balanced_accuracy", "macro_f1", "auc_macro_ovr")),
        ):
            assert difference.value == 0.0
            assert difference.low < -0.02 < 0.02 < difference.high


def error_rates(n, trainings, seed_effect, draws, random):
    """How often recipes of equal accuracy are called different, as `benchmarks/comparison.py` simulates them."""
    called = 0
    for _ in range(draws):
        ease = np.log(1 / random.beta(1, 4, n) - 1)
        sides = []
        for _ in range(2):
            own = ease + random.normal(0, 1, n)
            effects = random.normal(0, seed_effect, trainings)
            sides.append([correct_on(random.random(n) < 1 / (1 + np.exp(-own - effect))) for effect in effects])
        tested = accuracy_difference(*sides)
        called += is_significant(tested.difference, tested.p)
    return called / draws


@pytest.mark.parametrize(("trainings", "seed_effect"), [(1, 0.0), (2, 0.0), (2, 0.3), (5, 0.0), (5, 0.3)])
def test_equal_recipes_are_seldom_called_different(trainings, seed_effect):
    rate = error_rates(100, trainings, seed_effect, 250, np.random.default_rng(trainings))
    assert rate <= 0.05 + 2 * 0.0138


def test_over_seeds_the_interval_has_its_coverage():
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(300):
        hard = generator.beta(4, 1, 200)
        sides = [
            [correct_on(generator.random(200) < np.clip(hard + generator.normal(0, 0.03), 0, 1)) for _ in range(4)]
            for _ in range(2)
        ]
        difference = accuracy_difference(*sides).difference
        covered += difference.low <= 0 <= difference.high
    assert 0.91 <= covered / 300 <= 0.985


def test_over_seeds_the_interval_of_a_metric_equals_its_closed_form():
    """Log loss by bootstrap: its covariance is that of the losses, divided by the images."""
    from scipy.stats import t

    sides = [[scores(1500, seed=seed) for seed in (0, 1, 2)], [scores(1500, 3, 1.2, seed) for seed in (3, 4, 5)]]
    difference = metric_differences(*sides)["log_loss"]
    rows = np.arange(1500)
    losses = np.array([-np.log(model.probabilities[rows, model.labels]) for side in sides for model in side])
    covariance = np.cov(losses) / 1500
    blocks = covariance[:3, :3], covariance[3:, 3:]
    off = [(block.sum() - block.trace()) / 6 for block in blocks]
    images = max(sum(off) - 2 * covariance[:3, 3:].mean(), 0)
    trainings = [losses[part].mean(axis=1).var(ddof=1) / 3 for part in (slice(3), slice(3, 6))]
    assert difference.value == pytest.approx(losses[:3].mean() - losses[3:].mean())
    least = sum((block.trace() / 3 - mean) / 3 for block, mean in zip(blocks, off, strict=True))
    variance = max(sum(trainings), least) + images
    freedom = variance**2 / sum(part**2 / 2 for part in trainings) if sum(trainings) >= least else math.inf
    margin = t.ppf(0.975, freedom) * math.sqrt(variance)
    assert difference.high - difference.value == pytest.approx(margin, rel=0.05)
    assert difference.method == "Student's t over 3 and 3 trainings and 1,500 images"


def test_holm_is_the_textbook_procedure():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


def test_predictions_of_other_images_are_refused():
    one, two = scores(50), scores(50, labels_seed=3)
    for compare in (accuracy_difference, metric_differences):
        with pytest.raises(DataError, match="not measured on the same test images"):
            compare([one], [two])


def estimate(value, low, high):
    return Estimate(value, low, high, 1000, "by hand")


@pytest.mark.parametrize(
    ("difference", "p", "options", "text"),
    [
        (
            estimate(-0.019, -0.023, -0.015),
            1e-9,
            {},
            "these two trained models differ: cnn is better by 1.9 points, 95 % CI 1.5–2.3",
        ),
        (
            estimate(0.019, 0.015, 0.023),
            1e-9,
            {"trainings": 5},
            "the recipes differ: dnn is better by 1.9 points (means of 5 trainings), 95 % CI 1.5–2.3",
        ),
        (
            estimate(0.003, -0.002, 0.008),
            0.25,
            {},
            "no significant difference between these two trained models "
            "(dnn leads by 0.3 points, 95 % CI −0.2 to 0.8): the interval includes 0",
        ),
        (
            estimate(-0.0123, -0.0241, -0.0004),
            0.0612,
            {},
            "no significant difference between these two trained models "
            "(cnn leads by 1.23 points, 95 % CI 0.04–2.41): p = 0.061 is not below 0.05",
        ),
        (
            estimate(0.0, -0.01, 0.01),
            1.0,
            {},
            "no significant difference between these two trained models: "
            "dnn and cnn are equally accurate, 95 % CI −1.0 to 1.0",
        ),
        (
            estimate(0.0, 0.0, 0.0),
            1.0,
            {"same": True},
            "no difference: dnn and cnn predict the same class for every image",
        ),
    ],
)
def test_the_verdict_in_words(difference, p, options, text):
    assert verdict("dnn", "cnn", difference, p, **options) == text
    assert is_significant(difference, p) == (" differ: " in text)


def test_a_verdict_says_what_it_holds_for():
    assert scope(1, "foveola compare a b --seeds 5") == (
        "This holds for the trained models: another seed can turn it round. "
        "To compare the recipes: foveola compare a b --seeds 5"
    )
    assert scope(1, None).endswith("train each recipe with several seeds")
    assert scope(5, None) == "This holds for the recipes, from 5 trainings each: also with other seeds."


def test_p_values_as_people_write_them():
    assert [p_text(p) for p in (0.00004, 0.00123, 0.5)] == ["p < 0.0001", "p = 0.0012", "p = 0.5"]
