"""Cross-fitting of the last layer: scikit-learn's regressions on the features, each image left out with its copies."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from foveola.errors import DataError
from foveola.explanation.activations import penultimate_features
from foveola.images import ImageSet
from foveola.training import cross_fit_head as cross_fit_head_module
from foveola.training.build import build_classifier
from foveola.training.cross_fit import assign_folds
from foveola.training.cross_fit_head import cross_fit_head
from foveola.training.head import MIDDLE_STRENGTH

LAYERS = [
    {"type": "Conv2D", "filters": 8, "padding": "same", "activation": "relu"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture
def recipe(recipe_of):
    return recipe_of(layers=LAYERS, head_views=1, precision="float32")


@pytest.fixture
def fitted(recipe):
    def run(images, learnt=None, **options):
        learnt = np.ones(len(images), bool) if learnt is None else learnt
        settings = {"folds": 3, "rounds": 2, "seed": 0, "units": np.arange(len(images))} | options
        return cross_fit_head(images, learnt, recipe, device=torch.device("cpu"), **settings)

    return run


def test_predictions_are_those_of_regressions_on_the_other_folds(fitted, recipe, toy, monkeypatch):
    monkeypatch.setattr("foveola.training.head.STRENGTHS", (MIDDLE_STRENGTH,))
    images = toy(60)
    learnt = np.arange(60) < 45
    predictions, judged = fitted(images, learnt)
    classifier = build_classifier(recipe, images.take(np.flatnonzero(learnt)), 0)
    features = penultimate_features(classifier, images.images)
    features = StandardScaler().fit(features[learnt]).transform(features)
    expected = np.zeros((60, 3))
    for number in range(2):
        folds = assign_folds(images.labels, 3, 3 * number, np.arange(60), learnt)
        for fold in range(3):
            train = (folds != fold) & learnt
            model = LogisticRegression(C=MIDDLE_STRENGTH, max_iter=1000, tol=1e-6)
            model.fit(features[train], images.labels[train])
            expected[folds == fold] += model.predict_proba(features[folds == fold]) / 2
    assert predictions.held_out and judged.all()
    assert predictions.probabilities == pytest.approx(expected, abs=5e-4)
    assert (fitted(images, learnt)[0].logits == predictions.logits).all()


def test_no_regression_has_seen_a_copy(fitted, toy, monkeypatch):
    chosen, fit = [], cross_fit_head_module.fit_regression

    def record(features, images, mask, *options):
        chosen.append(mask)
        return fit(features, images, mask, *options)

    monkeypatch.setattr(cross_fit_head_module, "fit_regression", record)
    units = np.arange(60) % 30
    fitted(toy(60), units=units)
    assert len(chosen) == 6
    assert all(0 < mask.sum() < 60 for mask in chosen)
    assert not any(np.isin(units[~mask], units[mask]).any() for mask in chosen)


def test_a_class_that_the_other_folds_lack_is_not_judged(fitted, toy):
    images = toy(counts=[20, 20, 1])
    predictions, judged = fitted(images)
    assert judged[:40].all() and not judged[40]
    assert np.isfinite(predictions.logits).all()
    two = ImageSet(images.images[19:21], images.labels[19:21], images.class_names)
    predictions, judged = fitted(two, folds=2)
    assert not judged.any()
    assert (predictions.predicted == [1, 0]).all()


def test_too_few_images_for_the_folds_are_refused(fitted, toy):
    with pytest.raises(DataError, match="cannot make 3 folds"):
        fitted(toy(2))
