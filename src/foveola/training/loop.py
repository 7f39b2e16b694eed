"""The training loop: batches are gathered from one tensor of images on the device, augmented there, and trained on.

The order of an epoch is a function of (seed, epoch); augmentation and dropout are functions of (seed, step). Nothing
else is random: a training that resumes at any step gives the same result as one without interruption.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from foveola.images import ImageSet
from foveola.lazy import as_lazy
from foveola.models.classifier import Classifier
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.tasks import label_pairs, log_losses
from foveola.training.callbacks import Callback, EpochMetrics
from foveola.training.checkpoint import Checkpoint
from foveola.training.distributed import ALONE, Processes
from foveola.training.memory import keep_freed_memory
from foveola.training.read_ahead import ReadAhead
from foveola.training.schedules import lr_schedule
from foveola.training.step import TrainStep

# Separate the streams of random numbers that are derived from one seed
_ORDER, _STEP, _FLIP = 1, 2, 3


@dataclass
class Fit:
    """State of a training, as callbacks see it.

    `epoch` is the current epoch, from 1, and `step` the number of finished steps; `epochs` and `steps` are the totals
    without early stopping. `epoch_ended` says that all steps of the current epoch are done, and its metrics are known.
    `metrics` belong to the current epoch. Setting `stop` ends training after the current epoch.
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
    metrics: EpochMetrics = field(default_factory=dict)
    stop: bool = False
    best_epoch: int = 0
    processes: Processes = ALONE
    epoch_ended: bool = True
    _validated: tuple[int, Predictions] | None = None

    @property
    def validation_predictions(self) -> Predictions:
        """Predictions of the validation images with the current weights."""
        if self.validation is None:
            raise ValueError("There are no validation images, because the recipe's validation is 0. Set it above 0.")
        if self._validated is None or self._validated[0] != self.step:
            logits = self.processes.predict_logits(self.classifier, self.validation.images)
            predictions = Predictions(
                logits, self.validation.labels, self.validation.class_names, held_out=True,
                weights=self.validation.weights,
            )  # fmt: skip
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
    processes: Processes = ALONE,
    checkpoint: Checkpoint | None = None,
    before: Callable[[], None] | None = None,
    teacher_logits: Tensor | None = None,
) -> Fit:
    """Train a classifier in place.

    Parameters
    ----------
    classifier : its network is trained; parameters with `requires_grad` False stay as they are
    train : training images, of the classifier's image shape
    validation : images for model selection, or None
    flip : whether training flips images, half of them in the first epoch, the others in the next, and so on
    precision : of matrix products, torch.bfloat16 or torch.float32; weights are float32
    processes : those that train together; all call `fit` with the same arguments
    before : sets weights before the first step, as `fit_head` does; validation metrics then belong to epoch 0
    checkpoint : if it holds the state of an interrupted training, that is gone on with; it saves as training goes on
    teacher_logits : of the training images, N×K, to learn from as the recipe's `distill` says; None: labels only

    Raises
    ------
    NonFiniteLoss
        If the loss or its gradient is NaN or infinite; the network keeps the weights from before that step.
    """
    keep_freed_memory()
    classifier.to(device)
    batches = Batches(train, recipe, seed, device, processes)
    state = Fit(recipe, classifier, train, validation, batches.epochs, batches.steps, batches.per_epoch)
    state.processes = processes
    unfreezing = Unfreezing(classifier.network, recipe.unfreeze, batches.steps)
    step = TrainStep(
        classifier, batches.images, batches.labels, recipe,
        precision=precision, flip_first=batches.half() if flip else None,
        class_weights=class_weights(train, recipe, device),
        image_weights=batches.weights,
        steps=batches.steps, steps_per_epoch=batches.per_epoch, processes=processes,
        teacher_logits=teacher_logits,
    )  # fmt: skip
    processes.synchronize(list(classifier.network.state_dict().values()))
    _call(callbacks, "on_fit_start", state)
    resumed = checkpoint is not None and checkpoint.restore(state, step, callbacks)
    if before is not None and not resumed:
        before()
        processes.synchronize(list(classifier.network.state_dict().values()))
        _call(callbacks, "on_epoch_start", state)
        _end_epoch(state, callbacks)
    if resumed and not state.epoch_ended:
        _call([callback for callback in callbacks if not callback.has_state], "on_epoch_start", state)
    while not state.epoch_ended or (state.epoch < state.epochs and not state.stop):
        if state.epoch_ended:
            state.epoch, state.metrics, state.epoch_ended = state.epoch + 1, {}, False
            _call(callbacks, "on_epoch_start", state)
        training_mode(classifier, recipe)
        # Drawn before the epoch: between two steps, with a cold cache, a draw takes 0.1 ms
        seeds = [_step_seed(seed, step) for step in batches.steps_of_epoch(state.epoch, state.step)]
        for indices, step_seed in zip(batches.of_epoch(state.epoch, state.step), seeds, strict=True):
            if unfreezing.at(state.step):
                training_mode(classifier, recipe)
            _set_seed(step_seed, device)
            lr_scale = lr_schedule(recipe, state.step, state.steps, state.steps_per_epoch)
            state.learning_rate = lr_scale * recipe.learning_rate
            step(indices, lr_scale)
            state.step += 1
            _call(callbacks, "on_step_end", state)
            if checkpoint is not None:
                checkpoint.after_step(state, step, callbacks)
        loss, accuracy = step.epoch_metrics()
        state.metrics |= {"loss": loss, "accuracy": accuracy}
        _end_epoch(state, callbacks)
        state.stop = processes.from_leader(b"stop" if state.stop else b"") == b"stop"
        state.epoch_ended = True
    if checkpoint is not None:
        checkpoint.after_training(state, step, callbacks)
    _call(callbacks, "on_fit_end", state)
    classifier.eval()
    return state


def _end_epoch(state: Fit, callbacks: Sequence[Callback]) -> None:
    if state.validation is not None:
        state.metrics |= _validation_metrics(state.validation_predictions)
    state.best_epoch = state.epoch
    _call(callbacks, "on_epoch_end", state)


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """The precision of a recipe's setting; "auto" is bf16 if the processor multiplies in it, else float32.

    Processors with AVX-512 BF16, AMX or Arm BF16 do, and every recent GPU of NVIDIA's. On Apple's, which is untested,
    it is float32. The rule measures nothing: the same machine always computes in the same precision.
    """
    if setting != "auto":
        return torch.bfloat16 if setting == "bf16" else torch.float32
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "mps":
        supported = False
    else:
        capabilities = torch.cpu.get_capabilities()
        supported = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if supported else torch.float32


class Batches:
    """The training images on the device, and the batches of each epoch, which `processes` share."""

    def __init__(
        self, train: ImageSet, recipe: Recipe, seed: int, device: torch.device, processes: Processes = ALONE
    ) -> None:
        lazy = as_lazy(train.images)
        self.images: Tensor | ReadAhead
        if lazy is not None:
            self.images = ReadAhead(lazy, device)
        else:
            # Copied only if necessary: PyTorch takes neither read-only arrays nor views with negative strides
            self.images = torch.from_numpy(np.require(train.images, requirements=["C", "W"])).to(device)
        labels = torch.from_numpy(train.labels)
        self.labels = (labels if train.task == "multiclass" else labels.float()).to(device)
        self.weights = None if train.weights is None else torch.tensor(train.weights, dtype=torch.float32).to(device)
        self.size = min(recipe.batch_size, len(train))
        self.random = recipe.batches == "random"
        self.seed, self.processes = seed, processes
        self.per_epoch = recipe.steps_per_epoch or self._count_batches()
        self.steps = recipe.count_steps(self.per_epoch)
        self.epochs = math.ceil(self.steps / self.per_epoch)

    def _count_batches(self) -> int:
        """Number of batches in an epoch over all images.

        The last batch may be smaller. If one image is left for it, it is dropped: batch normalisation needs two.
        """
        full, rest = divmod(len(self.images), self.size)
        return full + (rest > 1)

    def half(self) -> Tensor:
        """A random half of the images: bool N, on the device, the same for the whole training."""
        generator = torch.Generator().manual_seed(_mix(self.seed, _FLIP))
        return (torch.rand(len(self.images), generator=generator) < 0.5).to(self.images.device)

    def steps_of_epoch(self, epoch: int, step: int) -> range:
        """The steps of an epoch, counted from 0, that come after `step` steps of the training."""
        return range(step, min(epoch * self.per_epoch, self.steps))

    def of_epoch(self, epoch: int, step: int) -> Iterator[Tensor]:
        """Yield the indices, N, on the device, of each batch that comes after `step` steps of the training."""
        generator = torch.Generator().manual_seed(_mix(self.seed, _ORDER, epoch))
        if self.random:
            order = torch.randint(len(self.images), (self.per_epoch * self.size,), generator=generator)
        else:
            order = torch.randperm(len(self.images), generator=generator)
        steps, before = self.steps_of_epoch(epoch, step), (epoch - 1) * self.per_epoch
        batches = order.to(self.images.device).split(self.size)[steps.start - before : steps.stop - before]
        if isinstance(self.images, ReadAhead):
            self.images.announce([batch[self.processes.part(len(batch)).rows] for batch in batches])
        yield from batches


class Unfreezing:
    """Lets layers train one after another, from the last to the first (Howard and Ruder, 2018, arXiv:1801.06146).

    Layers that are frozen from the start remain so.
    """

    def __init__(self, network: nn.Module, fraction: float, steps: int) -> None:
        layers = [[p for p in layer.parameters() if p.requires_grad] for layer in network.children()]
        self.layers = [parameters for parameters in layers if parameters][::-1]
        self.span = fraction * steps
        self.training = len(self.layers)

    def at(self, step: int) -> bool:
        """Freeze and unfreeze for this step, counted from 0; whether anything changed."""
        count = len(self.layers)
        training = count if step >= self.span else 1 + math.floor((count - 1) * step / self.span)
        changed = training != self.training
        self.training = training
        for number, parameters in enumerate(self.layers if changed else ()):
            for parameter in parameters:
                parameter.requires_grad_(number < training)
        return changed


def training_mode(classifier: Classifier, recipe: Recipe) -> None:
    """Switch to training mode, except for frozen layers: evaluation mode keeps their running statistics."""
    classifier.train()
    if recipe.freeze_statistics:
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eval()
    for layer in classifier.network.children():
        parameters = list(layer.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            layer.eval()


def class_weights(train: ImageSet, recipe: Recipe, device: torch.device) -> Tensor | None:
    """Class weights, K: inverse to the class frequencies, 1 on average over the images (King and Zeng, 2001).

    Of several labels an image, they are of the images that have a label: the number of those without it by theirs.
    Where images have weights, the frequency of a class is the sum of those of its images.
    """
    if recipe.class_weights == "none":
        return None
    images, labels = label_pairs(train.labels)
    image_weights = np.ones(len(train)) if train.weights is None else train.weights
    sums = np.bincount(labels, image_weights[images], minlength=len(train.class_names)).astype(np.float64)
    with np.errstate(divide="ignore"):
        one_class = train.task == "multiclass"
        weights = sums.sum() / (len(sums) * sums) if one_class else (image_weights.sum() - sums) / sums
    weights[sums == 0] = 0
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _validation_metrics(predictions: Predictions) -> EpochMetrics:
    losses = log_losses(predictions.logits, predictions.labels)
    return {"val_loss": predictions.mean(losses), "val_accuracy": predictions.mean(predictions.right)}


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed the global generators, which makes every draw of a step, also by a user's module, repeatable."""
    _set_seed(_step_seed(seed, step), device)


def _step_seed(seed: int, step: int) -> int:
    return _mix(seed, _STEP, step)


def _set_seed(step_seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(step_seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(step_seed)
    elif device.type == "mps":
        torch.mps.manual_seed(step_seed)


def _mix(*numbers: int) -> int:
    """A 63-bit seed, well mixed, from several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _call(callbacks: Sequence[Callback], method: str, state: Fit) -> None:
    for callback in callbacks:
        handler: Callable[[Fit], None] = getattr(callback, method)
        handler(state)
