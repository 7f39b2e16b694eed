"""The training loop: one tensor of images, gathered, augmented and learnt from in whole batches on the device.

The order of an epoch is a function of (seed, epoch); augmentation and dropout are functions of (seed, step). Nothing
else is random, so that training can go on from any step as if it had never stopped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from foveola.images import ImageSet
from foveola.models.classifier import Classifier
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.training.callbacks import Callback, Metrics
from foveola.training.memory import keep_freed_memory
from foveola.training.optimizers import schedule
from foveola.training.step import Step

# What separates the streams of random numbers that one seed gives
_ORDER, _STEP = 1, 2


@dataclass
class Fit:
    """Where a training stands; what callbacks see.

    `epoch` and `step` count from 1 and give what was done; `epochs` and `steps` give the whole, early stops apart.
    `metrics` are the figures of this epoch. Setting `stop` ends the training after this epoch.
    """

    recipe: Recipe
    classifier: Classifier
    train: ImageSet
    validation: ImageSet | None
    epochs: int
    steps: int
    steps_per_epoch: int
    epoch: int = 0
    step: int = 0
    learning_rate: float = 0.0
    metrics: Metrics = field(default_factory=dict)
    stop: bool = False
    chosen_epoch: int = 0
    _validated: tuple[int, Predictions] | None = None

    @property
    def validation_predictions(self) -> Predictions:
        """Of the weights as they are after this epoch, on the validation images."""
        if self.validation is None:
            raise ValueError("There are no validation images: the recipe's validation is 0.")
        if self._validated is None or self._validated[0] != self.step:
            logits = self.classifier.predict_logits(self.validation.images)
            predictions = Predictions(logits, self.validation.labels, self.validation.class_names, held_out=True)
            self._validated = self.step, predictions
        return self._validated[1]


def fit(
    classifier: Classifier,
    train: ImageSet,
    validation: ImageSet | None,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    flip: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Fit:
    """Train a classifier in place.

    Parameters
    ----------
    classifier : its network learns; parameters that need no gradient stay as they are
    train : images of the classifier's own shape
    validation : what selection may use; None for none
    flip : whether half of the images are mirrored
    precision : torch.bfloat16 or torch.float32, of the products; weights are float32

    Raises
    ------
    NonFiniteLoss
        When the loss or its gradient is NaN or infinite, before the optimizer steps; the last finite weights stay.
    """
    keep_freed_memory()
    classifier.to(device)
    batches = _Batches(train, recipe, seed, device)
    state = Fit(recipe, classifier, train, validation, batches.epochs, batches.steps, batches.per_epoch)
    step = Step(
        classifier, batches.images, batches.labels, recipe,
        precision=precision, flip=flip, class_weights=_class_weights(train, recipe, device),
        steps=batches.steps, steps_per_epoch=batches.per_epoch,
    )  # fmt: skip
    _call(callbacks, "on_fit_start", state)
    while state.epoch < state.epochs and not state.stop:
        state.epoch += 1
        state.metrics = {}
        _call(callbacks, "on_epoch_start", state)
        _learning_mode(classifier)
        for chosen in batches.of_epoch(state.epoch):
            _seed_step(seed, state.step, device)
            share = schedule(recipe, state.step, state.steps, state.steps_per_epoch)
            state.learning_rate = share * recipe.learning_rate
            step(chosen, share)
            state.step += 1
            _call(callbacks, "on_step_end", state)
        loss, accuracy = step.figures()
        state.metrics |= {"loss": loss, "accuracy": accuracy}
        if validation is not None:
            state.metrics |= _validate(state.validation_predictions)
        state.chosen_epoch = state.epoch
        _call(callbacks, "on_epoch_end", state)
    _call(callbacks, "on_fit_end", state)
    classifier.eval()
    return state


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies in it (AVX-512 BF16, AMX, Arm BF16; any recent GPU), else float32.

    A rule and no measurement, so that the same machine always computes the same.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bf16" else torch.float32
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        able = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if able else torch.float32


class _Batches:
    """The training images on the device, and their order."""

    def __init__(self, train: ImageSet, recipe: Recipe, seed: int, device: torch.device) -> None:
        # copied only if need be: PyTorch takes neither read-only arrays nor mirrored views
        self.images = torch.from_numpy(np.require(train.images, requirements=["C", "W"])).to(device)
        self.labels = torch.from_numpy(train.labels).to(device)
        self.size = min(recipe.batch_size, len(train))
        self.random = recipe.batches == "random"
        self.seed = seed
        self.per_epoch = recipe.steps_per_epoch or self._whole_batches()
        self.steps = recipe.steps or max(recipe.epochs * self.per_epoch, recipe.minimum_steps)
        self.epochs = math.ceil(self.steps / self.per_epoch)

    def _whole_batches(self) -> int:
        """Batches an epoch, the last one smaller; a single image left over waits for the next epoch's order,
        because batch normalisation has nothing to normalise in it.
        """
        whole, rest = divmod(len(self.images), self.size)
        return whole + (rest > 1)

    def of_epoch(self, epoch: int) -> Iterator[Tensor]:
        """The indices of each batch, N, on the device."""
        generator = torch.Generator().manual_seed(_mix(self.seed, _ORDER, epoch))
        if self.random:
            order = torch.randint(len(self.images), (self.per_epoch * self.size,), generator=generator)
        else:
            order = torch.randperm(len(self.images), generator=generator)
        left = min(self.per_epoch, self.steps - (epoch - 1) * self.per_epoch)
        yield from order.to(self.images.device).split(self.size)[:left]


def _learning_mode(classifier: Classifier) -> None:
    """Dropout and batch statistics on, except in frozen layers, whose running statistics stay as they are too."""
    classifier.train()
    for layer in classifier.network.children():
        parameters = list(layer.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            layer.eval()


def _class_weights(train: ImageSet, recipe: Recipe, device: torch.device) -> Tensor | None:
    """Inverse to the classes' frequencies, 1 on average over the images (King and Zeng, 2001), K."""
    if recipe.class_weights == "none":
        return None
    weights = len(train) / (len(train.class_names) * train.class_counts)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _validate(predictions: Predictions) -> Metrics:
    chosen = predictions.probabilities[np.arange(len(predictions)), predictions.labels]
    # the smallest normal number stands for a probability that underflowed
    loss = -np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean()
    return {"val_loss": float(loss), "val_accuracy": float((predictions.predicted == predictions.labels).mean())}


def _seed_step(seed: int, step: int, device: torch.device) -> None:
    """Make every draw of this step a function of (seed, step), the user's own modules included."""
    mixed = _mix(seed, _STEP, step)
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)


def _mix(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _call(callbacks: Sequence[Callback], method: str, state: Fit) -> None:
    for callback in callbacks:
        handler: Callable[[Fit], None] = getattr(callback, method)
        handler(state)
