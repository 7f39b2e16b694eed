"""Cross-fitting: predictions for every image by networks that were trained without it and without its copies."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from foveola.datasets.weights import find_weights
from foveola.errors import DataError
from foveola.images import ImageSet, Labels
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.tasks import softmax
from foveola.training.build import build_classifier
from foveola.training.loop import choose_precision, fit

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FOLDS = 3  # separates this stream of random numbers from those of the training loop


def cross_fit(
    images: ImageSet,
    learnt: Mask,
    recipe: Recipe,
    *,
    folds: int,
    rounds: int,
    units: Indices,
    seed: int,
    device: torch.device,
    flip: bool = False,
    announce: Callable[[int], None] = lambda number: None,
) -> tuple[Predictions, Mask]:
    """Train a network for each fold on the training images of the other folds, and predict the images of the fold.

    Every image, of whichever split, is in one fold of each round, so each is predicted by as many networks, trained on
    as many images: the averages are comparable.

    Parameters
    ----------
    images : all images
    learnt : which of them are training images, N; the others are only predicted
    folds : number of folds, stratified by class
    rounds : number of repetitions, each with new folds; the probabilities are averaged
    units : a number for each image, N: images with the same one share a fold. Duplicates must, because a network
        trained on a copy has seen the image, and so must the images of a group
    announce : called before each training with its number, from 0

    Returns
    -------
    (predictions, judged) : held-out predictions, and for which images they say something about the label, N: all
        networks that predicted the image were trained on images of its class

    Raises
    ------
    DataError
        If the training images have fewer units than folds.
    NonFiniteLoss
        If a training diverges.
    """
    # Class weights would bias the probabilities, and cannot be computed if a fold's training images lack a class
    recipe = recipe.model_copy(update={"class_weights": "none"})
    precision, pretrained = choose_precision(recipe.precision, device), find_weights(recipe)
    mean = np.zeros((len(images), len(images.class_names)))
    judged = np.ones(len(images), dtype=bool)
    for number in range(rounds * folds):
        if number % folds == 0:
            image_folds = assign_folds(images.labels, folds, seed + number, units, learnt)
        announce(number)
        held_out = np.flatnonzero(image_folds == number % folds)
        fold_train = images.take(np.flatnonzero((image_folds != number % folds) & learnt))
        classifier = build_classifier(recipe, fold_train, seed + number, pretrained=pretrained)
        fit(
            classifier, fold_train, None, recipe,
            seed=seed + number, device=device, precision=precision, flip=flip,
        )  # fmt: skip
        if len(held_out):
            mean[held_out] += softmax(classifier.predict_logits(images.images[held_out])) / rounds
        judged[held_out] &= (fold_train.class_counts > 0)[images.labels[held_out]]
    return Predictions(as_logits(mean), images.labels, images.class_names, held_out=True), judged


def assign_folds(labels: Labels, folds: int, seed: int, units: Indices, learnt: Mask | None = None) -> Indices:
    """The fold of each image, N, from 0: stratified by class, random by seed, one for all images of a unit.

    Units with training images are assigned first, then the others, so that the training images, too, are stratified.

    Parameters
    ----------
    learnt : which images are training images, N; None: all

    Raises
    ------
    DataError
        If the training images have fewer units than folds.
    """
    learnt = np.ones(len(labels), dtype=bool) if learnt is None else learnt
    count = len(np.unique(units[learnt]))
    if count < folds:
        different = f"{count} different image{'s' if count > 1 else ''}"
        raise DataError(f"{different} cannot make {folds} folds. Give more images, or fewer folds.")
    random = np.random.default_rng((seed, _FOLDS))
    with_learnt = np.isin(units, units[learnt])
    image_folds = np.empty(len(labels), dtype=np.int64)
    # Copies in other splits follow the training images, and do not count against the balance of these
    for part, counted in ((with_learnt, learnt), (~with_learnt, ~learnt)):
        members = np.flatnonzero(part)
        image_folds[members] = _balanced(labels[members], units[members], counted[members], folds, random)
    return image_folds


def _balanced(labels: Labels, units: Indices, counted: Mask, folds: int, random: np.random.Generator) -> Indices:
    """Folds with nearly as many counted images of each class, N: large units first, then the single images."""
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    image_folds = np.full(len(labels), -1)
    counts = np.zeros((folds, labels.max(initial=0) + 1))
    totals = np.maximum(np.bincount(labels[counted], minlength=counts.shape[1]), 1)
    by_unit = np.split(unit.argsort(kind="stable"), np.cumsum(sizes)[:-1]) if len(sizes) else []
    order = random.permutation(len(sizes))
    order = order[(-sizes[order]).argsort(kind="stable")]
    for number in order[sizes[order] > 1]:
        members = by_unit[number]
        own = np.bincount(labels[members[counted[members]]], minlength=counts.shape[1])
        fold = np.lexsort((counts.sum(axis=1), counts @ (own / totals)))[0]
        image_folds[members] = fold
        counts[fold] += own
    singles = image_folds < 0
    for label in np.unique(labels[singles]):
        members = random.permutation(np.flatnonzero(singles & (labels == label)))
        chosen = _fill(counts[:, label], counts.sum(axis=1), len(members))
        image_folds[members] = chosen
        counts[:, label] += np.bincount(chosen, minlength=folds)
    return image_folds


def _fill(levels: NDArray[np.float64], totals: NDArray[np.float64], count: int) -> Indices:
    """Folds for `count` images, each the one with the fewest images of the class, then the fewest in all."""
    slots = levels + np.arange(count)[:, None]
    order = np.lexsort((np.broadcast_to(totals, slots.shape).ravel(), slots.ravel()))
    return order[:count] % len(levels)


def as_logits(probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logits, float32 N×K, whose softmax gives these probabilities; finite for a probability of 0, too."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
