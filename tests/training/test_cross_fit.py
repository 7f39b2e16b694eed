"""Cross-fitting: folds, and predictions by networks trained without the image."""

import numpy as np
import pytest
import torch

from foveola.errors import DataError
from foveola.images import ImageSet
from foveola.training.cross_fit import assign_folds, cross_fit


def no_duplicates(count):
    return np.arange(count)


def test_folds_are_stratified_and_follow_the_seed():
    labels = np.repeat([0, 1, 2], [30, 9, 60])
    folds = assign_folds(labels, 3, 0, no_duplicates(99))
    assert [np.bincount(labels[folds == fold]).tolist() for fold in range(3)] == [[10, 3, 20]] * 3
    assert (folds == assign_folds(labels, 3, 0, no_duplicates(99))).all()
    assert (folds != assign_folds(labels, 3, 1, no_duplicates(99))).any()


def test_duplicates_share_a_fold():
    labels = np.arange(40) % 2
    representatives = no_duplicates(40)
    representatives[[31, 32, 33]] = 2
    folds = assign_folds(labels, 4, 0, representatives)
    assert set(folds[[2, 31, 32, 33]]) == {folds[2]}
    assert set(folds) == {0, 1, 2, 3}


def test_fewer_images_than_folds_are_refused():
    with pytest.raises(DataError, match="2 different images cannot make 3 folds"):
        assign_folds(np.array([0, 1, 1]), 3, 0, np.array([0, 1, 1]))


def test_large_units_leave_the_folds_balanced():
    """Two patients of 20 images and 50 of one: every fold has a third of each class."""
    labels = np.concatenate([np.zeros(20), np.ones(20), np.arange(50) % 2]).astype(np.int64)
    units = np.concatenate([np.full(20, 500), np.full(20, 501), np.arange(50)])
    folds = assign_folds(labels, 3, 0, units)
    counts = np.array([np.bincount(labels[folds == fold], minlength=2) for fold in range(3)])
    assert counts.max() <= 20 and counts.min() >= 12
    assert all(len(set(folds[units == unit])) == 1 for unit in (500, 501))


def test_classes_with_few_images_do_not_fill_one_fold():
    folds = assign_folds(np.arange(30), 3, 0, no_duplicates(30))
    assert np.bincount(folds).tolist() == [10, 10, 10]


def test_other_splits_do_not_disturb_the_balance_of_the_training_images():
    labels = np.concatenate([np.repeat([0, 1], 15), np.zeros(100)]).astype(np.int64)
    learnt = np.arange(130) < 30
    units = no_duplicates(130)
    units[30:60] = 0  # thirty copies of a training image among the test images
    folds = assign_folds(labels, 3, 0, units, learnt)
    assert [np.bincount(labels[learnt & (folds == fold)]).tolist() for fold in range(3)] == [[5, 5]] * 3
    assert set(folds[30:60]) == {folds[0]}
    assert np.ptp(np.bincount(folds[60:])) <= 1


@pytest.fixture
def fitted(recipe_of):
    def run(train, *others, **options):
        splits = (train, *others)
        images, labels = (np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels"))
        everything = ImageSet(images, labels, train.class_names)
        learnt = np.arange(len(everything)) < len(train)
        settings = {"folds": 3, "rounds": 2, "seed": 0, "units": no_duplicates(len(everything))} | options
        return cross_fit(everything, learnt, recipe_of(epochs=20), device=torch.device("cpu"), **settings)

    return run


def test_every_image_has_held_out_predictions_that_follow_the_seed(fitted, toy):
    train, other = toy(), toy(7, seed=1)
    predictions, judged = fitted(train, other)
    assert predictions.held_out and judged.all()
    assert (predictions.labels == np.concatenate([train.labels, other.labels])).all()
    right = predictions.predicted == predictions.labels
    assert right[:48].mean() > 0.8 and right[48:].mean() > 0.8
    assert np.abs(predictions.probabilities.sum(axis=1) - 1).max() < 1e-6
    assert (fitted(train, other)[0].logits == predictions.logits).all()
    assert (fitted(train, other, seed=1)[0].logits != predictions.logits).any()


class Memory:
    """A network that predicts class 0 for the images it was trained on, and class 1 for all others."""

    def __init__(self, recipe, train, seed, pretrained=None):
        self.known = set(train.images[:, 0, 0, 0].tolist())

    def predict_logits(self, images):
        known = np.array([image[0, 0, 0] in self.known for image in images])
        return np.where(known[:, None], [9.0, 0, 0], [0, 9.0, 0]).astype(np.float32)


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr("foveola.training.cross_fit.build_classifier", Memory)
    monkeypatch.setattr("foveola.training.cross_fit.fit", lambda *arguments, **settings: None)


@pytest.mark.parametrize("copy", [40, 51], ids=["in training", "in another split"])
def test_no_network_predicts_an_image_whose_copy_it_was_trained_on(fitted, toy, memory, copy):
    train, other = toy(), toy(6, seed=1)
    train.images[:, 0, 0, 0], other.images[:, 0, 0, 0] = np.arange(48), np.arange(100, 106)
    (train.images if copy < 48 else other.images)[copy % 48, 0, 0, 0] = 3  # a duplicate of image 3 for Memory
    predictions, _ = fitted(train, other)
    assert (predictions.predicted[np.delete(np.arange(54), [3, copy])] == 1).all()
    assert (predictions.predicted[[3, copy]] == 0).any()
    units = no_duplicates(54)
    units[copy] = 3
    predictions, _ = fitted(train, other, units=units)
    assert (predictions.predicted == 1).all()


class Counting(Memory):
    """Networks that name one class each, so that the averages count them."""

    made = 0

    def __init__(self, recipe, train, seed, pretrained=None):
        Counting.made += 1
        self.logits = np.where(np.arange(3) == Counting.made % 3, 99.0, 0)

    def predict_logits(self, images):
        return np.tile(self.logits, (len(images), 1)).astype(np.float32)


def test_every_image_of_every_split_is_predicted_by_one_network_a_round(fitted, toy, monkeypatch):
    """Averages over one network a round are multiples of 1/rounds; over all networks, they would be equal."""
    monkeypatch.setattr("foveola.training.cross_fit.build_classifier", Counting)
    monkeypatch.setattr("foveola.training.cross_fit.fit", lambda *arguments, **settings: None)
    predictions, _ = fitted(toy(), toy(30, seed=1), folds=3, rounds=2)
    for part in (predictions.probabilities[:48], predictions.probabilities[48:]):
        assert np.unique(part.round(4)).tolist() == [0, 0.5, 1]


def test_a_class_that_no_network_has_learnt_is_not_judged(fitted, toy):
    train = toy(counts=[20, 20, 1])
    _, judged = fitted(train)
    assert judged[:40].all() and not judged[40]
    copied = train.take([*range(41), 40])
    assert not fitted(copied, units=np.array([*range(41), 40]))[1][40:].any()


def test_every_training_is_announced(fitted, toy):
    announced = []
    fitted(toy(), announce=announced.append)
    assert announced == [0, 1, 2, 3, 4, 5]
