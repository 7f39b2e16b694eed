"""Cross-fitting: folds, and predictions by networks trained without the image."""

import numpy as np
import pytest
import torch

from foveola.errors import DataError
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


@pytest.fixture
def fitted(recipe_of):
    def run(train, *others, **options):
        settings = {"folds": 3, "rounds": 2, "seed": 0, "representatives": no_duplicates(len(train))} | options
        return cross_fit(train, others, recipe_of(epochs=20), device=torch.device("cpu"), **settings)

    return run


def test_every_image_has_held_out_predictions_that_follow_the_seed(fitted, toy):
    train, other = toy(), toy(7, seed=1)
    train_predictions, other_predictions = fitted(train, other)
    for predictions, images in ((train_predictions, train), (other_predictions, other)):
        assert predictions.held_out
        assert (predictions.labels == images.labels).all()
        assert (predictions.predicted == images.labels).mean() > 0.8
        assert np.abs(predictions.probabilities.sum(axis=1) - 1).max() < 1e-6
    again, _ = fitted(train, other)
    assert (again.logits == train_predictions.logits).all()
    assert (fitted(train, seed=1)[0].logits != train_predictions.logits).any()


class Memory:
    """A network that predicts class 0 for the images it was trained on, and class 1 for all others."""

    def __init__(self, recipe, train, seed):
        self.known = set(train.images[:, 0, 0, 0].tolist())

    def predict_logits(self, images):
        known = np.array([image[0, 0, 0] in self.known for image in images])
        return np.where(known[:, None], [9.0, 0, 0], [0, 9.0, 0]).astype(np.float32)


def test_no_network_predicts_an_image_it_was_trained_on(fitted, toy, monkeypatch):
    monkeypatch.setattr("foveola.training.cross_fit.build_classifier", Memory)
    monkeypatch.setattr("foveola.training.cross_fit.fit", lambda *arguments, **settings: None)
    train = toy()
    train.images[:, 0, 0, 0] = np.arange(48)
    train.images[40, 0, 0, 0] = 3  # a duplicate of image 3 for Memory
    (predictions,) = fitted(train)
    assert (predictions.predicted[np.delete(np.arange(48), [3, 40])] == 1).all()
    assert (predictions.predicted[[3, 40]] == 0).any()
    representatives = no_duplicates(48)
    representatives[40] = 3
    (predictions,) = fitted(train, representatives=representatives)
    assert (predictions.predicted == 1).all()


def test_every_training_is_announced(fitted, toy):
    announced = []
    fitted(toy(), announce=announced.append)
    assert announced == [0, 1, 2, 3, 4, 5]
