"""How much training fits into a given time on this machine."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from foveola.images import ImageSet
from foveola.models.classifier import new_classifier
from foveola.recipe import Recipe
from foveola.training.callbacks import Callback
from foveola.training.loop import Fit, choose_precision, fit

WARM_UP_STEPS = 5
TIMED_STEPS = 25
TIMED_IMAGES = 1024
FEWEST_STEPS = 20


@dataclass(frozen=True)
class Speed:
    """Of a recipe on this machine: seconds for a training step, and for an image that is only classified."""

    step: float
    image: float

    def epochs(self, seconds: float, steps_per_epoch: float, inferences: tuple[int, int]) -> float:
        """How many epochs fit, when so many images are classified after each of them and once at the end."""
        each, once = inferences
        return (seconds - self.image * once) / (self.step * steps_per_epoch + self.image * each)


def choose_length(
    candidates: Sequence[tuple[Recipe, float]],
    train: ImageSet,
    inferences: tuple[int, int],
    deadline: float,
    *,
    device: torch.device,
    flip: bool,
    network: nn.Module | None = None,
) -> Recipe:
    """Choose a network and a number of steps.

    Parameters
    ----------
    candidates : recipes from the smallest network to the largest, each with the fewest epochs that make it worth its
        time; the largest that gets so many is chosen, or else the smallest
    train : the training images
    inferences : how many images are classified after every epoch, and how many once at the end
    deadline : when training and final inference should have ended, by `time.perf_counter`
    network : the user's own, instead of the recipes' layers

    Returns
    -------
    The recipe with `steps` set, so that it can be repeated exactly on a machine of any speed.
    """
    chosen, speed, possible = None, Speed(0.0, 0.0), math.inf
    for recipe, worthwhile in candidates:
        # a larger network gets fewer epochs than the last one: where even those would not do, measuring is in vain
        if chosen is not None and possible < worthwhile:
            break
        measured = measure(recipe, train, device, flip, network)
        possible = measured.epochs(deadline - time.perf_counter(), _steps_per_epoch(recipe, train), inferences)
        if chosen is not None and possible < worthwhile:
            break
        chosen, speed = recipe, measured
    assert chosen is not None, "there is at least one candidate"
    per_epoch = _steps_per_epoch(chosen, train)
    # counted once more, because measuring what was not chosen has taken time as well
    steps = int(per_epoch * speed.epochs(deadline - time.perf_counter(), per_epoch, inferences))
    return chosen.model_copy(update={"steps": max(steps, FEWEST_STEPS), "minimum_steps": 0})


def measure(
    recipe: Recipe, train: ImageSet, device: torch.device, flip: bool, network: nn.Module | None = None
) -> Speed:
    """Train a throw-away classifier for some steps, and classify some images with it."""
    classifier = new_classifier(recipe, train, 0, network=copy.deepcopy(network))
    clock = _Clock()
    short = recipe.model_copy(update={"steps": WARM_UP_STEPS + TIMED_STEPS, "minimum_steps": 0})
    precision = choose_precision(recipe.precision, device)
    fit(classifier, train, None, short, seed=0, device=device, precision=precision, flip=flip, callbacks=[clock])
    sample = train.images[np.arange(TIMED_IMAGES) % len(train)]
    classifier.predict_logits(sample)
    start = time.perf_counter()
    classifier.predict_logits(sample)
    return Speed(float(np.mean(clock.steps[WARM_UP_STEPS:])), (time.perf_counter() - start) / TIMED_IMAGES)


def _steps_per_epoch(recipe: Recipe, train: ImageSet) -> float:
    return len(train) / min(recipe.batch_size, len(train))


class _Clock(Callback):
    """How long each step took, in seconds."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.last = time.perf_counter()

    def on_fit_start(self, fit: Fit) -> None:
        self.last = time.perf_counter()

    def on_step_end(self, fit: Fit) -> None:
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last = now
