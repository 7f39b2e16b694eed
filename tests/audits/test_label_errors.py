"""Label errors: ranked by the probability of the given label, from held-out predictions only."""

import numpy as np
import pytest

from foveola.audits.label_errors import find_label_errors
from foveola.errors import DataError
from foveola.predictions import Predictions


def predictions(probabilities, labels, held_out=True):
    logits = np.log(np.asarray(probabilities)).astype(np.float32)
    return Predictions(logits, np.asarray(labels), ("a", "b", "c"), held_out)


@pytest.fixture
def noisy():
    """300 images of three classes with 90 % for the true class; images 5, 105 and 205 have the next class as label."""
    true = np.repeat(np.arange(3), 100)
    labels = true.copy()
    wrong = [5, 105, 205]
    labels[wrong] = (true[wrong] + 1) % 3
    probabilities = np.full((300, 3), 0.05)
    probabilities[np.arange(300), true] = 0.9
    return probabilities, labels, wrong


def test_wrong_labels_are_found_with_their_class_and_probability(noisy):
    probabilities, labels, wrong = noisy
    found = find_label_errors(predictions(probabilities, labels))
    assert [suspect.index for suspect in found.suspects] == wrong
    assert [(suspect.given, suspect.suggested) for suspect in found.suspects] == [(1, 0), (2, 1), (0, 2)]
    assert [suspect.score for suspect in found.suspects] == pytest.approx([0.05] * 3)
    assert found.likely == 3


def test_the_least_probable_label_comes_first_however_large_the_margin(noisy):
    probabilities, labels, _ = noisy
    probabilities[105] = (0.05, 0.93, 0.02)
    probabilities[205] = (0.01, 0.50, 0.49)
    found = find_label_errors(predictions(probabilities, labels))
    assert [suspect.index for suspect in found.suspects] == [205, 105, 5]


def test_a_hard_image_is_a_suspect_but_not_a_likely_error(noisy):
    probabilities, labels, wrong = noisy
    probabilities[50] = (0.45, 0.50, 0.05)
    found = find_label_errors(predictions(probabilities, labels))
    assert [suspect.index for suspect in found.suspects] == [*wrong, 50]
    assert found.likely == 3


@pytest.mark.parametrize(("hard", "countable"), [(12, True), (13, False)])
def test_wrong_labels_are_counted_only_where_the_networks_contradict_few_others(noisy, hard, countable):
    """300 images: 4 % are 12."""
    probabilities, labels, _ = noisy
    probabilities[40 : 40 + hard] = (0.45, 0.50, 0.05)
    found = find_label_errors(predictions(probabilities, labels))
    assert (found.likely, len(found.suspects)) == (3, 3 + hard)
    assert found.countable == countable


def test_images_that_cannot_be_judged_are_no_suspects(noisy):
    probabilities, labels, wrong = noisy
    judged = np.arange(300) != wrong[1]
    found = find_label_errors(predictions(probabilities, labels), judged)
    assert [suspect.index for suspect in found.suspects] == [wrong[0], wrong[2]]
    assert found.likely == 2


def test_without_disagreement_there_are_no_suspects(noisy):
    probabilities, _, _ = noisy
    found = find_label_errors(predictions(probabilities, probabilities.argmax(axis=1)))
    assert (found.suspects, found.likely) == ((), 0)


def test_in_sample_predictions_are_refused(noisy):
    probabilities, labels, _ = noisy
    with pytest.raises(DataError, match=r"predictions on training images.*cross-fitted"):
        find_label_errors(predictions(probabilities, labels, held_out=False))
