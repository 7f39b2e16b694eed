"""Student's t distribution against SciPy's and closed forms."""

import math

import pytest
from scipy.stats import t

from foveola.evaluation.student import NORMAL_95, student_95, student_tail

FREEDOMS = [1, 1.01, 1.7, 2, 3, 4.5, 8, 15, 29, 60, 123.4, 500, 3_000, 1e5, 1e8, 1e13, math.inf]


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_the_quantile_is_scipys(freedom):
    assert student_95(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-10)  # of SciPy 1.15; 1e-13 since


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("value", [0.0, 1e-3, 0.3, 1.0, 1.96, 4.0, 12.7, 37.0])
def test_the_tail_is_scipys_also_where_it_is_small(value, freedom):
    assert student_tail(value, freedom) == pytest.approx(t.sf(value, freedom), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("value", [1e-9, 1e-6, 0.01, 2.0, 1e4])
def test_one_degree_of_freedom_is_cauchys_distribution(value):
    assert student_tail(value, 1) == pytest.approx(math.atan2(1, value) / math.pi, rel=1e-13)


def test_infinitely_many_are_the_normal_distribution():
    assert student_95(math.inf) == pytest.approx(NORMAL_95, rel=1e-15)
    assert student_tail(3.0, math.inf) == pytest.approx(math.erfc(3 / math.sqrt(2)) / 2, rel=1e-14)
