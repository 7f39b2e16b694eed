import math

import numpy as np
import pytest

from foveola.evaluation.intervals import bootstrap, grouped_wilson, mean_interval, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (7, 9), (12, 12), (9_934, 10_000)])
def test_wilson_is_the_closed_formula(successes, n):
    z, rate = 1.959963984540054, successes / n
    center = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))

    estimate = wilson(successes, n)

    assert estimate.value == rate
    assert estimate.low == pytest.approx(center - margin, abs=1e-12)
    assert estimate.high == pytest.approx(center + margin, abs=1e-12)
    assert (estimate.n, estimate.method) == (n, "Wilson")


def test_wilson_has_width_at_0_and_100_percent():
    assert wilson(20, 20).low < 0.85
    assert wilson(0, 20).high > 0.15


def test_mean_interval_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=4_000)
    margin = 1.96 * values.std(ddof=1) / math.sqrt(len(values))

    estimate = mean_interval(values)

    assert estimate.value == pytest.approx(values.mean(), abs=1e-12)
    assert estimate.low == pytest.approx(values.mean() - margin, abs=0.15 * margin)
    assert estimate.high == pytest.approx(values.mean() + margin, abs=0.15 * margin)


def test_mean_interval_has_its_coverage():
    generator = np.random.default_rng(2)
    intervals = [mean_interval(generator.exponential(size=100)) for _ in range(200)]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.89 <= covered <= 0.985


def test_bootstrap_of_any_statistic_repeats_with_its_seed():
    values = np.random.default_rng(3).exponential(size=500)

    def median(images):
        return float(np.median(values[images]))

    first = bootstrap(median, 500, resamples=300, seed=4)
    assert first == bootstrap(median, 500, resamples=300, seed=4)
    assert first != bootstrap(median, 500, resamples=300, seed=5)
    assert first.value == np.median(values)
    # The standard error of a median is 1 / (2 · density · √n), and the density of this median is 0.5.
    assert (first.high - first.low) / 2 == pytest.approx(1.96 / math.sqrt(500), rel=0.35)
    assert first.method == "percentile bootstrap, 300 resamples"


def test_groups_of_one_image_give_wilson_s_interval():
    successes = np.arange(50) < 40
    assert grouped_wilson(successes, np.arange(50)) == wilson(40, 50)


def test_pairs_of_copies_count_once():
    """200 pairs that agree are 200 images; the t quantile of 199 degrees of freedom is 0.6 % above the normal's."""
    successes = np.repeat(np.arange(200) < 160, 2)
    grouped, single = grouped_wilson(successes, np.arange(400) // 2), wilson(160, 200)
    assert (grouped.value, grouped.n) == (0.8, 400)
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high), abs=1e-3)
    assert "200 groups" in grouped.method


def test_images_that_all_agree_count_as_their_groups():
    grouped, single = grouped_wilson(np.ones(60, bool), np.arange(60) // 6), wilson(10, 10)
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))


@pytest.mark.parametrize(("groups", "size", "correlation"), [(15, 20, 0.3), (50, 10, 0.1), (40, 30, 0.6)])
def test_the_interval_of_groups_holds_the_truth_as_often_as_it_says(groups, size, correlation):
    """Beta-binomial groups, 80 % of whose images succeed; Wilson's interval of single images holds it less often."""
    random = np.random.default_rng(0)
    alpha, beta = (share * (1 / correlation - 1) for share in (0.8, 0.2))
    hits = []
    for _ in range(400):
        successes = random.random((groups, size)) < random.beta(alpha, beta, (groups, 1))
        estimate = grouped_wilson(successes.ravel(), np.repeat(np.arange(groups), size))
        hits.append(estimate.low <= 0.8 <= estimate.high)
    assert 0.92 < np.mean(hits) < 0.98
