"""Time budgets: a network and a number of steps that fit into the given seconds on this machine."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from foveola.datasets.splits import Splits
from foveola.images import ImageSet
from foveola.models.layers import Layer, Shape
from foveola.models.shapes import count_multiply_adds
from foveola.models.unfamiliarity import count_training_images
from foveola.recipe import Recipe, load_recipe
from foveola.training.build import build_classifier
from foveola.training.callbacks import Callback
from foveola.training.loop import Fit, choose_precision, fit

# Recipes from the smallest network to the largest, each with the fewest epochs that make it worth its time: in the
# same time, `strong` is behind `fast` at 1.5 epochs and ahead at 2.6; `best` is level with `strong` at 4, and ahead
# once images are mirrored (docs/lab/recipes.md)
_CANDIDATES = (("fast", 0.0), ("strong", 2.0), ("best", 9.0))
# Fraction of the budget that is kept back, because the speed of a machine varies, and a few timed steps flatter it:
# with 0.02, six runs took 0.99 to 1.11 times their budget
_RESERVE = 0.05

# What is timed: of large networks less, which takes long enough to be timed well
WARM_UP_STEPS = 5
TIMED_STEPS = 25
MIN_TIMED_STEPS = 5
TIMED_IMAGES = 1024
MIN_TIMED_IMAGES = 64
TIMED_MULTIPLY_ADDS = 2**38
# The training accuracy is measured on at most so many images, and with so many multiply-adds
MAX_ACCURACY_IMAGES = 1000
MAX_ACCURACY_MULTIPLY_ADDS = 2**36
MIN_STEPS = 20
# With fewer, a network whose last layer was fitted is left as it is: they would do more harm than good
MIN_EPOCHS_AFTER_HEAD = 2.0


def budget_candidates(overrides: Mapping[str, Any] | None) -> list[tuple[Recipe, float]]:
    """The recipes that a budget chooses from if none is named, as candidates for `choose_steps`."""
    return [(load_recipe(name, overrides), epochs) for name, epochs in _CANDIDATES]


def fit_to_budget(
    candidates: Sequence[tuple[Recipe, float]],
    splits: Splits,
    deadline: float,
    reporting_seconds: float,
    *,
    device: torch.device,
    flip: bool,
    network: nn.Module | None = None,
) -> Recipe:
    """A recipe with as many steps as let the whole run, evaluation and plots included, end by the deadline.

    Parameters
    ----------
    candidates : recipes with their fewest epochs, as `choose_steps` takes them
    deadline : when the run should have ended, by `time.perf_counter`
    reporting_seconds : time for metrics and plots
    flip : whether images are flipped while the speed is measured
    network : the user's own, instead of the recipes' layers
    """
    reserve = _RESERVE * (deadline - time.perf_counter())
    return choose_steps(
        candidates,
        splits.train,
        partial(_count_inferences, splits, network),
        deadline - reserve - reporting_seconds,
        device=device,
        flip=flip,
        network=network,
    )


def _count_inferences(splits: Splits, network: nn.Module | None, recipe: Recipe) -> tuple[int, int]:
    """Number of images that a recipe's network classifies after every epoch, and once before and after all of them."""
    validation = 0 if splits.validation is None else len(splits.validation)
    test = 0 if splits.test is None else len(splits.test)
    height, width, channels = splits.train.image_shape
    shape, classes = (height + 2 * recipe.pad, width + 2 * recipe.pad, channels), len(splits.train.class_names)
    if network is not None:
        return validation, validation + test + min(len(splits.train), MAX_ACCURACY_IMAGES)
    # At the end, unfamiliarity is measured on training and validation images, too
    measured = count_training_images(recipe.layers, shape, classes, len(splits.train)) + validation
    measured += count_accuracy_images(recipe.layers, shape, classes, len(splits.train))
    return validation, validation + test + measured + recipe.head_views * len(splits.train)


def count_accuracy_images(layers: Sequence[Layer], network_shape: Shape, classes: int, images: int) -> int:
    """On how many of so many training images the training accuracy is measured."""
    cost = count_multiply_adds(layers, network_shape, classes)
    return min(images, MAX_ACCURACY_IMAGES, MAX_ACCURACY_MULTIPLY_ADDS // max(cost, 1))


@dataclass(frozen=True)
class TrainingSpeed:
    """Speed of a recipe on this machine: seconds per training step, and per image in inference."""

    step: float
    image: float

    def epochs(self, seconds: float, steps_per_epoch: float, inferences: tuple[int, int]) -> float:
        """Number of epochs that fit into the seconds; `inferences` is as `choose_steps` takes it."""
        per_epoch, at_end = inferences
        return (seconds - self.image * at_end) / (self.step * steps_per_epoch + self.image * per_epoch)


def choose_steps(
    candidates: Sequence[tuple[Recipe, float]],
    train: ImageSet,
    inferences: Callable[[Recipe], tuple[int, int]],
    deadline: float,
    *,
    device: torch.device,
    flip: bool,
    network: nn.Module | None = None,
) -> Recipe:
    """Choose a recipe and its number of steps.

    Parameters
    ----------
    candidates : recipes from the smallest network to the largest, each with the fewest epochs that make it worth its
        time; the largest that gets as many is chosen, or else the smallest
    train : the training images
    inferences : gives for a recipe the number of images that are classified after every epoch, and once besides
    deadline : when training and final inference should have ended, by `time.perf_counter`
    network : the user's own, instead of the recipes' layers

    Returns
    -------
    The recipe with `steps` set, so that it can be repeated exactly on a machine of any speed. If its last layer is
    fitted first and too little time is left after that, with `epochs` 0.
    """
    chosen, speed, epochs = None, TrainingSpeed(0.0, 0.0), math.inf
    for recipe, min_epochs in candidates:
        # A larger network gets fewer epochs than the last one: if even those are too few, it is not measured
        if chosen is not None and epochs < min_epochs:
            break
        candidate_speed = measure_speed(recipe, train, device, flip, network)
        left = deadline - time.perf_counter()
        epochs = candidate_speed.epochs(left, _steps_per_epoch(recipe, train), inferences(recipe))
        if chosen is not None and epochs < min_epochs:
            break
        chosen, speed = recipe, candidate_speed
    assert chosen is not None, "there is at least one candidate"
    steps_per_epoch = _steps_per_epoch(chosen, train)
    # Computed again, because measuring a candidate that was not chosen has taken time, too
    epochs = speed.epochs(deadline - time.perf_counter(), steps_per_epoch, inferences(chosen))
    if chosen.head_views and epochs < MIN_EPOCHS_AFTER_HEAD:
        return chosen.model_copy(update={"epochs": 0, "steps": None, "minimum_steps": 0})
    return chosen.model_copy(update={"steps": max(int(steps_per_epoch * epochs), MIN_STEPS), "minimum_steps": 0})


def measure_speed(
    recipe: Recipe, train: ImageSet, device: torch.device, flip: bool, network: nn.Module | None = None
) -> TrainingSpeed:
    """Measure the speed of training and inference with a throw-away classifier."""
    classifier = build_classifier(recipe, train, 0, network=copy.deepcopy(network))
    timer = _StepTimer()
    timed_steps, images = TIMED_STEPS, TIMED_IMAGES
    if network is None:
        cost = count_multiply_adds(recipe.layers, classifier.metadata.network_shape, len(train.class_names))
        affordable = TIMED_MULTIPLY_ADDS // max(cost, 1)
        timed_steps = min(max(affordable // (3 * recipe.batch_size), MIN_TIMED_STEPS), TIMED_STEPS)
        images = min(max(affordable // 4, MIN_TIMED_IMAGES), TIMED_IMAGES)
    short = {"steps": WARM_UP_STEPS + timed_steps, "minimum_steps": 0, "unfreeze": 0.0}
    short_recipe = recipe.model_copy(update=short)
    precision = choose_precision(recipe.precision, device)
    fit(
        classifier, train, None, short_recipe,
        seed=0, device=device, precision=precision, flip=flip, callbacks=[timer],
    )  # fmt: skip
    sample = train.images[np.arange(images) % len(train)]
    classifier.predict_logits(sample)  # warm-up
    start = time.perf_counter()
    classifier.predict_logits(sample)
    return TrainingSpeed(float(np.mean(timer.seconds[WARM_UP_STEPS:])), (time.perf_counter() - start) / images)


def _steps_per_epoch(recipe: Recipe, train: ImageSet) -> float:
    return len(train) / min(recipe.batch_size, len(train))


class _StepTimer(Callback):
    """Times each training step, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last = time.perf_counter()

    def on_fit_start(self, fit: Fit) -> None:
        self.last = time.perf_counter()

    def on_step_end(self, fit: Fit) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
