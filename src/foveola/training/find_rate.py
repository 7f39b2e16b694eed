"""Learning-rate finder: the range test (Smith 2017, https://arxiv.org/abs/1506.01186) and the rate that it suggests.

The learning rate grows exponentially from batch to batch while the training loss is recorded. The loss falls, is lowest
where the steps just do not throw the weights about, and rises again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from foveola.errors import NonFiniteLoss
from foveola.images import ImageSet
from foveola.models.classifier import Classifier
from foveola.recipe import Recipe
from foveola.training.loop import Batches, class_weights, seed_step, training_mode
from foveola.training.memory import keep_freed_memory
from foveola.training.step import TrainStep

Floats = NDArray[np.float64]

MIN_RATE, MAX_RATE = 1e-6, 10.0
# 30 for each power of ten
STEPS = 210
# Of the exponential moving average of the losses
SMOOTHING = 0.9
# Diverged: the smoothed loss is this many times its lowest value, or its first one
DIVERGED_OVER_LOWEST, DIVERGED_OVER_FIRST = 4.0, 1.5
# A loss that falls by less says nothing about learning rates
MIN_FALL = 0.1
# The suggestion, as a fraction of the rate with the lowest loss: docs/benchmarks.md, "Learning-rate finder"
FRACTION, ONE_CYCLE_FRACTION = 1 / 10, 1.0


@dataclass(frozen=True)
class RangeTest:
    """What a range test has recorded, one value a step until the loss diverged.

    Attributes
    ----------
    learning_rates, losses, smoothed : N; training loss of each batch, and its exponential moving average
    diverged : whether the test ended because the loss did
    """

    learning_rates: Floats
    losses: Floats
    smoothed: Floats
    diverged: bool

    @property
    def lowest(self) -> int:
        """The step with the lowest smoothed loss."""
        return int(self.smoothed.argmin())


def range_test(
    classifier: Classifier,
    train: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    flip: bool = False,
) -> RangeTest:
    """Train for some steps with a growing learning rate, and record the loss; the classifier is of no use afterwards.

    With Muon, its own learning rate grows by the same factor. Batches, augmentation and loss are the recipe's.

    Parameters
    ----------
    classifier : untrained, or initialised from a model that is to be fine-tuned
    train : training images, of the classifier's image shape
    flip, precision : as in `fit`
    """
    keep_freed_memory()
    classifier.to(device)
    recipe = recipe.model_copy(update={"steps": STEPS, "minimum_steps": 0})
    batches = Batches(train, recipe, seed, device)
    step = TrainStep(
        classifier, batches.images, batches.labels, recipe,
        precision=precision, flip_first=batches.half() if flip else None,
        class_weights=class_weights(train, recipe, device),
        image_weights=batches.weights,
        steps=STEPS, steps_per_epoch=batches.per_epoch,
    )  # fmt: skip
    training_mode(classifier, recipe)
    rates = np.geomspace(MIN_RATE, MAX_RATE, STEPS)
    losses: list[float] = []
    diverged = False
    indices = (batch for epoch in range(batches.epochs) for batch in batches.of_epoch(epoch + 1, len(losses)))
    for number, batch in enumerate(indices):
        seed_step(seed, number, device)
        try:
            step(batch, rates[number] / recipe.learning_rate)
            losses.append(step.epoch_metrics()[0])
        except NonFiniteLoss:
            diverged = True
            break
        smoothed = smooth(np.array(losses))
        if smoothed[-1] > min(DIVERGED_OVER_LOWEST * smoothed.min(), DIVERGED_OVER_FIRST * smoothed[0]):
            diverged = True
            break
    recorded = np.array(losses)
    return RangeTest(rates[: len(losses)], recorded, smooth(recorded), diverged)


def smooth(losses: Floats) -> Floats:
    """Exponential moving average of losses, N, without the bias of its beginning (Kingma and Ba, 2015).

    >>> smooth(np.array([2.0, 2.0, 1.0])).round(2).tolist()
    [2.0, 2.0, 1.63]
    """
    average, averages = 0.0, []
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * float(loss)
        averages.append(average / (1 - SMOOTHING**number))
    return np.array(averages)


def suggest(test: RangeTest, recipe: Recipe) -> float | None:
    """The learning rate to train with: a tenth of the one with the lowest loss.

    With the one-cycle schedule, all of it: the schedule reaches its peak in one step and leaves it again.

    Returns
    -------
    The rate, with two digits; None if the loss did not fall by a tenth at any rate.
    """
    if not len(test.smoothed) or test.smoothed[test.lowest] > (1 - MIN_FALL) * test.smoothed[0]:
        return None
    fraction = ONE_CYCLE_FRACTION if recipe.schedule == "one-cycle" else FRACTION
    return float(f"{fraction * test.learning_rates[test.lowest]:.2g}")
