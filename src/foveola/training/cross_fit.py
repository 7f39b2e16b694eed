"""Cross-fitting: predictions for every image by networks that were trained without it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.images import ImageSet, Labels
from foveola.predictions import Predictions, softmax
from foveola.recipe import Recipe
from foveola.training.build import build_classifier
from foveola.training.loop import choose_precision, fit

Indices = NDArray[np.int64]

_FOLDS = 3  # separates this stream of random numbers from those of the training loop


def cross_fit(
    train: ImageSet,
    others: Sequence[ImageSet],
    recipe: Recipe,
    *,
    folds: int,
    rounds: int,
    representatives: Indices,
    seed: int,
    device: torch.device,
    flip: bool = False,
    announce: Callable[[int], None] = lambda number: None,
) -> list[Predictions]:
    """Train a network for each fold on the images of the other folds, and predict held-out probabilities.

    Parameters
    ----------
    train : training images; each is predicted by the networks that were trained without its fold
    others : images that are only predicted, by all networks
    folds : number of folds that the training images are split into, stratified by class
    rounds : number of repetitions, each with new folds; the probabilities are averaged
    representatives : for each training image, the index of the one whose fold it shares, N. Duplicates must share one,
        because a network trained on a copy has seen the image.
    announce : called before each training with its number, from 0

    Returns
    -------
    Predictions of `train`, then of each of `others`, all held out

    Raises
    ------
    DataError
        If there are fewer images than folds.
    NonFiniteLoss
        If a training diverges.
    """
    # Class weights would bias the probabilities, and cannot be computed if a fold's training images lack a class
    recipe = recipe.model_copy(update={"class_weights": "none"})
    precision = choose_precision(recipe.precision, device)
    train_mean, *other_means = (np.zeros((len(images), len(train.class_names))) for images in (train, *others))
    for number in range(rounds * folds):
        if number % folds == 0:
            image_folds = assign_folds(train.labels, folds, seed + number, representatives)
        announce(number)
        held_out = np.flatnonzero(image_folds == number % folds)
        fold_train = train.take(np.flatnonzero(image_folds != number % folds))
        classifier = build_classifier(recipe, fold_train, seed + number)
        fit(
            classifier, fold_train, None, recipe,
            seed=seed + number, device=device, precision=precision, flip=flip,
        )  # fmt: skip
        train_mean[held_out] += softmax(classifier.predict_logits(train.images[held_out])) / rounds
        for mean, other in zip(other_means, others, strict=True):
            mean += softmax(classifier.predict_logits(other.images)) / (rounds * folds)
    return [
        Predictions(_logits(mean), images.labels, images.class_names, held_out=True)
        for mean, images in zip((train_mean, *other_means), (train, *others), strict=True)
    ]


def assign_folds(labels: Labels, folds: int, seed: int, representatives: Indices) -> Indices:
    """The fold of each image, N, from 0: stratified by class, random by seed, the same as its representative's.

    Raises
    ------
    DataError
        If there are fewer images, counting duplicates once, than folds.
    """
    unique, inverse = np.unique(representatives, return_inverse=True)
    if len(unique) < folds:
        raise DataError(f"{len(unique)} different images cannot make {folds} folds. Give more images, or fewer folds.")
    order = np.random.default_rng((seed, _FOLDS)).permutation(len(unique))
    order = order[labels[unique][order].argsort(kind="stable")]
    unique_folds = np.empty(len(unique), dtype=np.int64)
    unique_folds[order] = np.arange(len(unique)) % folds
    return unique_folds[inverse]


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logits, float32 N×K, whose softmax gives these probabilities; finite for a probability of 0, too."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
