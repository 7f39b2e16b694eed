"""Cross-fitting: who is judged by whom."""

import numpy as np
import pytest
import torch

from foveola.errors import DataError
from foveola.training.cross_fit import cross_fit, deal


def alone(count):
    return np.arange(count)


def test_folds_are_stratified_and_drawn_by_seed():
    labels = np.repeat([0, 1, 2], [30, 9, 60])
    folds = deal(labels, 3, 0, alone(99))
    assert [np.bincount(labels[folds == fold]).tolist() for fold in range(3)] == [[10, 3, 20]] * 3
    assert (folds == deal(labels, 3, 0, alone(99))).all()
    assert (folds != deal(labels, 3, 1, alone(99))).any()


def test_duplicates_share_a_fold():
    labels = np.arange(40) % 2
    representatives = alone(40)
    representatives[[31, 32, 33]] = 2
    folds = deal(labels, 4, 0, representatives)
    assert set(folds[[2, 31, 32, 33]]) == {folds[2]}
    assert set(folds) == {0, 1, 2, 3}


def test_fewer_images_than_folds_are_refused():
    with pytest.raises(DataError, match="2 different images cannot make 3 folds"):
        deal(np.array([0, 1, 1]), 3, 0, np.array([0, 1, 1]))


@pytest.fixture
def fitted(recipe_of):
    def run(train, *others, **options):
        settings = {"folds": 3, "rounds": 2, "seed": 0, "representatives": alone(len(train))} | options
        return cross_fit(train, others, recipe_of(epochs=20), device=torch.device("cpu"), **settings)

    return run


def test_every_image_is_judged_and_the_seed_repeats_it(fitted, toy):
    train, other = toy(), toy(7, seed=1)
    own, others = fitted(train, other)
    for found, judged in ((own, train), (others, other)):
        assert found.held_out
        assert (found.labels == judged.labels).all()
        assert (found.predicted == judged.labels).mean() > 0.8
        assert np.abs(found.probabilities.sum(axis=1) - 1).max() < 1e-6
    again, _ = fitted(train, other)
    assert (again.logits == own.logits).all()
    assert (fitted(train, seed=1)[0].logits != own.logits).any()


class Memory:
    """A network that knows the images it has learnt from, and is sure that all others are of class 1."""

    def __init__(self, recipe, train, seed):
        self.known = set(train.images[:, 0, 0, 0].tolist())

    def predict_logits(self, images):
        learnt = np.array([image[0, 0, 0] in self.known for image in images])
        return np.where(learnt[:, None], [9.0, 0, 0], [0, 9.0, 0]).astype(np.float32)


def test_no_network_judges_what_it_has_learnt_from(fitted, toy, monkeypatch):
    monkeypatch.setattr("foveola.training.cross_fit.new_classifier", Memory)
    monkeypatch.setattr("foveola.training.cross_fit.fit", lambda *arguments, **settings: None)
    train = toy()
    train.images[:, 0, 0, 0] = np.arange(48)
    train.images[40, 0, 0, 0] = 3  # a copy of image 3, as far as a Memory can see
    (own,) = fitted(train)
    assert (own.predicted[np.delete(np.arange(48), [3, 40])] == 1).all()
    assert (own.predicted[[3, 40]] == 0).any()
    shared = alone(48)
    shared[40] = 3
    (own,) = fitted(train, representatives=shared)
    assert (own.predicted == 1).all()


def test_each_network_is_announced(fitted, toy):
    announced = []
    fitted(toy(), announce=announced.append)
    assert announced == [0, 1, 2, 3, 4, 5]
