"""Repeated stratified k-fold: every image held out once, classes in proportion, units together; scores as by hand."""

import numpy as np
import pytest
import torch

from foveola.errors import DataError, NonFiniteLoss
from foveola.training.build import build_classifier
from foveola.training.callbacks import Callback
from foveola.training.cross_validation import Fold, cross_validate, held_out_fold, k_folds
from foveola.training.loop import fit


@pytest.fixture(scope="module")
def images(toy):
    """60 images, sorted by class."""
    return toy(counts=[20, 20, 20])


def accuracy(predictions):
    return float((predictions.predicted == predictions.labels).mean())


def test_each_repetition_holds_every_image_out_once_in_proportion(images):
    folds = k_folds(images, np.arange(len(images)), 4, 3, seed=0)
    assert len(folds) == 12
    for repeat in range(3):
        parts = folds[4 * repeat : 4 * repeat + 4]
        assert sorted(np.concatenate([fold.held_out for fold in parts])) == list(range(len(images)))
        for fold in parts:
            assert sorted([*fold.train, *fold.held_out]) == list(range(len(images)))
            assert np.bincount(images.labels[fold.held_out]).tolist() == [5, 5, 5]
    assert not np.array_equal(folds[0].held_out, folds[4].held_out)


def test_units_stay_together(images):
    units = np.arange(len(images)) // 4
    folds = [*k_folds(images, units, 5, 2, seed=1), held_out_fold(images, units, 0.2, seed=1)]
    for fold in folds:
        assert not set(units[fold.train]) & set(units[fold.held_out])
        assert len(np.unique(images.labels[fold.train])) == 3


def test_too_few_units_are_refused(images):
    with pytest.raises(DataError, match="cannot make 5 folds"):
        k_folds(images, images.labels, 5, 1, seed=0)
    with pytest.raises(DataError, match="network would see none"):
        k_folds(images, images.labels, 2, 1, seed=0)


def test_scores_are_those_of_trainings_by_hand(images, recipe_of):
    recipe = recipe_of()
    folds = k_folds(images, np.arange(60), 3, 1, seed=0)
    told = []
    scores = cross_validate(
        images, folds, recipe, accuracy, seed=5, device=torch.device("cpu"),
        after_fold=lambda number, score: told.append((number, score)),
    )  # fmt: skip
    assert told == list(enumerate(scores))
    for fold, score in zip(folds, scores, strict=True):
        train, held_out = images.take(fold.train), images.take(fold.held_out)
        classifier = build_classifier(recipe, train, 5)
        fit(classifier, train, held_out, recipe, seed=5, device=torch.device("cpu"), precision=torch.float32)
        predicted = classifier.predict_logits(held_out.images).argmax(axis=1)
        assert score == np.mean(predicted == held_out.labels)


def test_the_best_weights_are_measured_if_the_recipe_keeps_them(images, recipe_of):
    recipe = recipe_of(keep="best", epochs=6, patience=3, monitor="val_accuracy")
    seen = []

    class Record(Callback):
        def on_epoch_end(self, fit):
            seen.append(fit.metrics["val_accuracy"])

    fold = held_out_fold(images, np.arange(60), 0.2, seed=0)
    (score,) = cross_validate(
        images, [fold], recipe, accuracy, seed=0, device=torch.device("cpu"), callbacks=lambda number: [Record()]
    )
    assert score == max(seen)


def test_a_diverged_network_is_not_scored(images, recipe_of):
    recipe = recipe_of(optimizer="sgd", learning_rate=1e38)
    with pytest.raises(NonFiniteLoss):
        cross_validate(
            images, [Fold(np.arange(40), np.arange(40, 60))], recipe, accuracy, seed=0, device=torch.device("cpu")
        )
