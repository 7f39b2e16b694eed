"""Cross-fitting: every image judged by networks that have never seen it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.images import ImageSet, Labels
from foveola.models.classifier import new_classifier
from foveola.predictions import Predictions, softmax
from foveola.recipe import Recipe
from foveola.training.loop import choose_precision, fit

Indices = NDArray[np.int64]

_FOLDS = 3  # what separates this stream of random numbers from those of the training


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
    """Train a network for each fold, on the images of the other folds.

    Parameters
    ----------
    train : images to learn from and to judge, each by the networks that have learnt from other folds than its own
    others : images to judge only, by all networks
    folds : how many parts the training images are dealt into, by class and seed
    rounds : how often, dealt anew; the probabilities are averaged
    representatives : of each training image, the index of the one whose fold it shares, N. Duplicates must share one:
        a network that has learnt from a copy has seen the image.
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
    # Weights would tilt the probabilities, and a class may be missing from what a fold learns from
    recipe = recipe.model_copy(update={"class_weights": "none"})
    precision = choose_precision(recipe.precision, device)
    own, *rest = (np.zeros((len(judged), len(train.class_names))) for judged in (train, *others))
    for number in range(rounds * folds):
        if number % folds == 0:
            fold = deal(train.labels, folds, seed + number, representatives)
        announce(number)
        held_out, learnt = (np.flatnonzero(mask) for mask in (fold == number % folds, fold != number % folds))
        part, own_seed = train.take(learnt), seed + number
        classifier = new_classifier(recipe, part, own_seed)
        fit(
            classifier, part, None, recipe,
            seed=own_seed, device=device, precision=precision, flip=flip,
        )  # fmt: skip
        own[held_out] += softmax(classifier.predict_logits(train.images[held_out])) / rounds
        for mean, other in zip(rest, others, strict=True):
            mean += softmax(classifier.predict_logits(other.images)) / (rounds * folds)
    return [
        Predictions(_logits(mean), judged.labels, judged.class_names, held_out=True)
        for mean, judged in zip((own, *rest), (train, *others), strict=True)
    ]


def deal(labels: Labels, folds: int, seed: int, representatives: Indices) -> Indices:
    """The fold of each image, N, from 0: stratified by class, drawn by seed, shared with its representative.

    Raises
    ------
    DataError
        If there are fewer images, duplicates apart, than folds.
    """
    dealt, copies = np.unique(representatives, return_inverse=True)
    if len(dealt) < folds:
        raise DataError(f"{len(dealt)} different images cannot make {folds} folds. Give more images, or fewer folds.")
    order = np.random.default_rng((seed, _FOLDS)).permutation(len(dealt))
    order = order[labels[dealt][order].argsort(kind="stable")]
    fold = np.empty(len(dealt), dtype=np.int64)
    fold[order] = np.arange(len(dealt)) % folds
    return fold[copies]


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logits, float32 N×K, whose softmax these probabilities are; finite also for 0."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
