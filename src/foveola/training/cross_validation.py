"""Judge a recipe by images that its networks have not learnt from: a held-out part, or repeated stratified k-fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from foveola.datasets.weights import find_weights
from foveola.errors import DataError, NonFiniteLoss
from foveola.images import ImageSet, Polarity
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.stratified import hold_out
from foveola.training.build import build_classifier
from foveola.training.callbacks import Callback, selection
from foveola.training.cross_fit import assign_folds
from foveola.training.loop import choose_precision, fit

Indices = NDArray[np.int64]
Score = Callable[[Predictions], float]


@dataclass(frozen=True)
class Fold:
    """Indices of the images that a network learns from, and of those that it is measured on."""

    train: Indices
    held_out: Indices


def one_fold(held_out: NDArray[np.bool_]) -> Fold:
    return Fold(np.flatnonzero(~held_out), np.flatnonzero(held_out))


def held_out_fold(images: ImageSet, units: Indices, fraction: float, seed: int) -> Fold:
    """One stratified part held out; images of one unit stay together.

    Raises
    ------
    DataError
        If a class cannot be on both sides.
    """
    groups = units if len(np.unique(units)) < len(units) else None
    return one_fold(hold_out(images.labels, groups, images.class_names, fraction, seed))


def k_folds(images: ImageSet, units: Indices, folds: int, repeats: int, seed: int) -> list[Fold]:
    """Repeated stratified k-fold: each image is held out once in each repetition.

    Parameters
    ----------
    units : a number for each image, N: images with the same one share a fold, because they are copies or of one group
    folds : number of folds, at least 2
    repeats : number of repetitions, each with other folds

    Returns
    -------
    folds × repeats folds

    Raises
    ------
    DataError
        If there are fewer units than folds, or a network would see no image of a class.
    """
    found = []
    for repeat in range(repeats):
        numbers = assign_folds(images.labels, folds, seed + repeat, units)
        found += [one_fold(numbers == number) for number in range(folds)]
    present = images.class_counts > 0
    for fold in found:
        seen = np.bincount(images.labels[fold.train], minlength=len(present)) > 0
        if missing := [images.class_names[label] for label in np.flatnonzero(present & ~seen)]:
            raise DataError(
                f"All images of class {missing[0]!r} are in one fold (copies, and images of a group, stay together), "
                f"so that a network would see none of them. Add images of this class, or remove it."
            )
    return found


def cross_validate(
    images: ImageSet,
    folds: Sequence[Fold],
    recipe: Recipe,
    score: Score,
    *,
    seed: int,
    device: torch.device,
    flip: bool = False,
    picture_polarity: Polarity | None = None,
    callbacks: Callable[[int], Sequence[Callback]] = lambda number: (),
    after_fold: Callable[[int, float], None] = lambda number, score: None,
) -> list[float]:
    """Train a network for each fold, and measure it on the images that are held out.

    Weights and early stopping are chosen as the recipe says, by the held-out images.

    Parameters
    ----------
    score : a number for predictions, such as their log loss
    seed : of each training; recipes that are compared with the same one differ in nothing else
    callbacks : called with the number of the fold, from 0, for callbacks of its training, which come first
    after_fold : called with the number and the score of each fold, as soon as it is known

    Returns
    -------
    The score of each fold.

    Raises
    ------
    NonFiniteLoss
        If a training diverges.
    """
    precision, pretrained = choose_precision(recipe.precision, device), find_weights(recipe)
    scores = []
    for number, fold in enumerate(folds):
        train, held_out = images.take(fold.train), images.take(fold.held_out)
        classifier = build_classifier(recipe, train, seed, picture_polarity=picture_polarity, pretrained=pretrained)
        fit(
            classifier, train, held_out, recipe, seed=seed, device=device, precision=precision, flip=flip,
            callbacks=[*callbacks(number), *selection(recipe)],
        )  # fmt: skip
        logits = classifier.predict_logits(held_out.images)
        if not np.isfinite(logits).all():
            raise NonFiniteLoss("After the last step, the network's outputs are not finite. Training has diverged.")
        scores.append(
            score(Predictions(logits, held_out.labels, held_out.class_names, held_out=True, weights=held_out.weights))
        )
        after_fold(number, scores[-1])
    return scores
