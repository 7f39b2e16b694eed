"""Whether an accuracy is that of guessing, and when a test is too small to tell."""

import math

import numpy as np
import pytest

from foveola.evaluation.intervals import grouped_wilson, wilson
from foveola.evaluation.overfitting import is_guessing, is_undecided, undecided_text
from foveola.predictions import Estimate


@pytest.mark.parametrize(
    ("right", "of", "supports", "guessing", "undecided"),
    [
        (200, 400, [200, 200], True, False),
        (215, 400, [200, 200], True, False),
        (240, 400, [200, 200], False, False),
        (3, 6, [3, 3], True, False),
        (5, 6, [3, 3], False, True),
        (3, 3, [1, 2], False, True),
        (12, 12, [6, 6], False, False),
        (90, 100, [95, 5], True, False),
        (2, 9, [3, 3, 3], True, False),
        (0, 9, [3, 3, 3], True, False),
        (9, 9, [9, 0], False, False),
    ],
    ids=[
        "guessing", "nearly", "a little better", "few, half right", "few, most right", "three, all right",
        "few, all right", "as good as one class", "three classes", "none right", "one class",
    ],
)  # fmt: skip
def test_accuracies_of_guessing(right, of, supports, guessing, undecided):
    assert is_guessing(wilson(right, of), supports) is guessing
    assert is_undecided(wilson(right, of), supports) is undecided


def test_all_right_in_few_groups_is_not_guessing_but_too_few():
    """The interval of two groups begins at 34 %, and that of four above a half."""
    accuracy = grouped_wilson(np.ones(18, bool), np.repeat([0, 1], [8, 10]))
    assert accuracy.low == pytest.approx(0.342, abs=1e-3)
    assert not is_guessing(accuracy, [8, 10])
    assert is_undecided(accuracy, [8, 10])
    assert "begins at 34.2 %" in undecided_text(accuracy, [8, 10])
    assert "reaches 55.6 %" in undecided_text(accuracy, [8, 10])
    enough = grouped_wilson(np.ones(18, bool), np.repeat([0, 1, 2, 3], [4, 4, 5, 5]))
    assert not is_undecided(enough, [9, 9])


def test_of_an_accuracy_that_is_not_defined_nothing_is_said():
    unknown = Estimate(math.nan, math.nan, math.nan, 0, "none")
    assert not is_guessing(unknown, [3, 3])
    assert not is_undecided(unknown, [3, 3])
