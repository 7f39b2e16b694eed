"""Cross-fitting on the features of a network that stays as it is: seconds where training networks takes minutes."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveola.datasets.weights import find_weights
from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.tasks import softmax
from foveola.training.build import build_classifier
from foveola.training.cross_fit import as_logits, assign_folds
from foveola.training.head import choose_strength, compute_features, fit_regression, standardize
from foveola.training.loop import choose_precision


def cross_fit_head(
    images: ImageSet,
    learnt: NDArray[np.bool_],
    recipe: Recipe,
    *,
    folds: int,
    rounds: int,
    units: NDArray[np.int64],
    seed: int,
    device: torch.device,
    flip: bool = False,
    announce: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Predictions, NDArray[np.bool_]]:
    """As `cross_fit`, but only the last layer is fitted, by logistic regression, to features that are computed once.

    The layers before it are those that the recipe begins with, pretrained, and see no labels. The strength of the
    regularization is chosen once, by cross-validation on the training images.

    Parameters
    ----------
    images, learnt, folds, rounds, units, seed, flip : as of `cross_fit`
    recipe : its network ends with a dense layer, and has `head_views` views
    announce : called with the number of features that were computed, and of all

    Returns
    -------
    (predictions, judged) : as of `cross_fit`

    Raises
    ------
    DataError
        If the training images have fewer units than folds.
    RecipeError
        If the network does not end with a dense layer.
    """
    # Class weights would bias the probabilities
    recipe = recipe.model_copy(update={"class_weights": "none"})
    train = images.take(np.flatnonzero(learnt))
    classifier = build_classifier(recipe, train, seed, pretrained=find_weights(recipe)).to(device).eval()
    features = compute_features(
        classifier, images, recipe,
        seed=seed, precision=choose_precision(recipe.precision, device), flip=flip, announce=announce,
    )  # fmt: skip
    standardize(features, learnt)
    mean = np.zeros((len(images), len(images.class_names)))
    judged = np.ones(len(images), dtype=bool)
    # Products this thin are six times slower with two threads of OpenBLAS, which wait for each other
    with threadpool_limits(1, user_api="blas"):
        strength, _ = choose_strength(features[:, learnt], train, units[learnt], recipe, seed)
        for number in range(rounds):
            image_folds = assign_folds(images.labels, folds, seed + number * folds, units, learnt)
            for fold in range(folds):
                held_out, chosen = image_folds == fold, (image_folds != fold) & learnt
                weights, bias = fit_regression(features, images, chosen, recipe, strength)
                mean[held_out] += softmax(features[0, held_out] @ weights.T + bias) / rounds
                known = np.bincount(images.labels[chosen], minlength=len(images.class_names)) > 0
                judged[held_out] &= known[images.labels[held_out]]
    return Predictions(as_logits(mean), images.labels, images.class_names, held_out=True), judged
