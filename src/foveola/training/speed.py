"""How much training fits into a given time on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

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


def choose_length(
    candidates: Sequence[tuple[Recipe, float]],
    train: ImageSet,
    inferences: tuple[int, int],
    deadline: float,
    *,
    device: torch.device,
    flip: bool,
) -> Recipe:
    """Choose a network and a number of steps.

    Parameters
    ----------
    candidates : recipes from the smallest network to the largest, each with the fewest epochs that make it worth its
        time; the largest that gets so many is chosen, or else the smallest
    train : the training images
    inferences : how many images are classified after every epoch, and how many once at the end
    deadline : when training and final inference should have ended, by `time.perf_counter`

    Returns
    -------
    The recipe with `steps` set, so that it can be repeated exactly on a machine of any speed.
    """
    chosen = None
    for recipe, worthwhile in candidates:
        speed = measure(recipe, train, device, flip)
        steps_per_epoch = len(train) / min(recipe.batch_size, len(train))
        each, once = inferences
        left = deadline - time.perf_counter() - speed.image * once
        steps = int(left / (speed.step + speed.image * each / steps_per_epoch))
        if chosen is not None and steps < worthwhile * steps_per_epoch:
            break
        chosen = recipe.model_copy(update={"steps": max(steps, FEWEST_STEPS), "minimum_steps": 0})
    assert chosen is not None, "there is at least one candidate"
    return chosen


def measure(recipe: Recipe, train: ImageSet, device: torch.device, flip: bool) -> Speed:
    """Train a throw-away classifier for some steps, and classify some images with it."""
    classifier = new_classifier(recipe, train, 0)
    clock = _Clock()
    short = recipe.model_copy(update={"steps": WARM_UP_STEPS + TIMED_STEPS, "minimum_steps": 0})
    precision = choose_precision(recipe.precision, device)
    fit(classifier, train, None, short, seed=0, device=device, precision=precision, flip=flip, callbacks=[clock])
    sample = train.images[np.arange(TIMED_IMAGES) % len(train)]
    classifier.predict_logits(sample)
    start = time.perf_counter()
    classifier.predict_logits(sample)
    return Speed(float(np.mean(clock.steps[WARM_UP_STEPS:])), (time.perf_counter() - start) / TIMED_IMAGES)


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
