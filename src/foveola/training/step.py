"""One training step: gather, augment, forward, backward, check, update.

Steps never synchronise with the device; a non-finite loss is raised when the metrics are read. Until then, that step
and the steps after it leave the weights as they are. A CPU has no queue to keep filled: there the loss is checked after
every step, and raised at once.
"""

import math
from collections.abc import Callable
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from foveola.errors import NonFiniteLoss
from foveola.models.classifier import Classifier
from foveola.recipe import Recipe
from foveola.training.augment import augment_images, cutout, mixup
from foveola.training.optimizers import build_optimizers
from foveola.training.read_ahead import ReadAhead
from foveola.training.schedules import lr_schedule

# Steps before a CUDA graph is captured, in which libraries choose their kernels and the allocator reserves memory
_WARM_UP_STEPS = 3

TrainBatch = Callable[[Tensor, float | Tensor], None]


class TrainStep:
    """Trains a network on one batch per call, and sums up the metrics.

    Parameters
    ----------
    classifier : its network is trained
    images, labels : all training images, uint8 N×H×W×C, and their labels, N, on the device; images may be read there
        batch by batch
    precision : of matrix products
    flip : whether training flips images, each with probability 1/2
    class_weights : K, or None
    steps, steps_per_epoch : number of steps in the whole training, and in an epoch
    deferred : whether a non-finite loss is raised only when the metrics are read; by default on a GPU
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor | ReadAhead,
        labels: Tensor,
        recipe: Recipe,
        *,
        precision: torch.dtype,
        flip: bool,
        class_weights: Tensor | None,
        steps: int,
        steps_per_epoch: int,
        deferred: bool | None = None,
    ) -> None:
        device = images.device
        self.classifier, self.recipe = classifier, recipe
        self.images, self.labels = images, labels
        self.flip, self.class_weights = flip, class_weights
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.deferred = device.type == "cuda" if deferred is None else deferred
        self.optimizers = build_optimizers(classifier.network, recipe)
        groups = [group for optimizer in self.optimizers for group in optimizer.groups]
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        self.buffers = list(classifier.network.buffers())
        self.autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, seen
        self.nonfinite = torch.zeros((), device=device)  # 1 from the first step with a non-finite loss or gradient
        self.nonfinite_loss = torch.zeros((), device=device)
        self.finite_steps = torch.zeros((), device=device)
        # A CUDA graph cannot hold mixup, which draws on the CPU, nor reading, and perhaps not what a user's module does
        in_memory = isinstance(images, Tensor)
        capture = (
            in_memory and device.type == "cuda" and not recipe.augment.mixup and classifier.metadata.layers is not None
        )
        self.run: TrainBatch = _CudaGraph(self.train_batch, device) if capture else self.train_batch

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors that a step changes beside network and optimizers."""
        return {
            "sums": self.sums,
            "nonfinite": self.nonfinite,
            "nonfinite_loss": self.nonfinite_loss,
            "finite_steps": self.finite_steps,
        }

    def __call__(self, indices: Tensor, lr_scale: float) -> None:
        """Train on the images with these indices, N, with learning rates times `lr_scale`.

        Raises
        ------
        NonFiniteLoss
            If the loss or its gradient is NaN or infinite, unless deferred; the weights are those before the step.
        """
        self.run(indices, lr_scale)
        if not self.deferred and self.nonfinite:
            self._raise()

    def epoch_metrics(self) -> tuple[float, float]:
        """Mean loss and accuracy over the images since the last call.

        Raises
        ------
        NonFiniteLoss
            If the loss or gradient of a deferred step was NaN or infinite; the weights are those before that step.
        """
        if self.nonfinite:
            self._raise()
        loss, correct, seen = self.sums.tolist()
        self.sums.zero_()
        return loss / seen, correct / seen

    def train_batch(self, indices: Tensor, lr_scale: float | Tensor) -> None:
        """Do one step; if deferred, without synchronising with the device."""
        labels = self.labels[indices]
        buffers_before = [buffer.clone() for buffer in self.buffers]
        loss, correct = self._forward(self.images[indices], labels)
        loss.backward()
        self._check_finite(loss.detach())
        if self.deferred or self.nonfinite:  # batch normalisation may already hold NaN
            for buffer, before in zip(self.buffers, buffers_before, strict=True):
                buffer.copy_(torch.where(self.nonfinite > 0, before, buffer))
        if self.deferred or not self.nonfinite:
            for optimizer in self.optimizers:
                optimizer.step(lr_scale, skip=self.nonfinite if self.deferred else None)
            self.sums += torch.stack((loss.detach() * len(labels), correct, torch.full_like(correct, len(labels))))
        for parameter in self.parameters:
            parameter.grad = None

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and number of correct predictions."""
        augment = self.recipe.augment
        polarity = self.classifier.metadata.polarity
        x = self.classifier.normalize(augment_images(images, augment, self.flip, polarity))
        if augment.cutout:
            x = cutout(x, augment.cutout)
        if not augment.mixup:
            logits = self._logits(x)
            return self._loss(logits, labels), (logits.detach().argmax(1) == labels).sum()
        x, order, weight = mixup(x, augment.mixup)
        logits = self._logits(x)
        loss = weight * self._loss(logits, labels) + (1 - weight) * self._loss(logits, labels[order])
        return loss, (logits.detach().argmax(1) == (labels if weight >= 0.5 else labels[order])).sum()

    def _logits(self, x: Tensor) -> Tensor:
        with self.autocast:
            logits: Tensor = self.classifier.network(x)
        return logits.float()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.recipe.label_smoothing)

    def _check_finite(self, loss: Tensor) -> None:
        """Record the first loss that is not finite, or whose gradient is not."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self.nonfinite_loss.copy_(torch.where(self.nonfinite > 0, self.nonfinite_loss, loss))
        self.nonfinite.copy_(torch.maximum(self.nonfinite, (~torch.isfinite(loss + norm)).float()))
        self.finite_steps += 1 - self.nonfinite

    def _raise(self) -> NoReturn:
        finite_steps = int(self.finite_steps)
        quantity = "the gradient of the loss" if math.isfinite(float(self.nonfinite_loss)) else "the loss"
        base_lr = self.recipe.learning_rate
        lr = base_lr * lr_schedule(self.recipe, finite_steps, self.steps, self.steps_per_epoch)
        raise NonFiniteLoss(
            f"In epoch {finite_steps // self.steps_per_epoch + 1}, step {finite_steps + 1}, {quantity} was not finite "
            f"(learning rate {lr:.3g}). Training stopped before this step; the weights before it are kept. "
            f"Lower the learning rate: --set learning_rate={base_lr / 10:.3g}"
        )


class _CudaGraph:
    """A training step captured as a CUDA graph.

    It launches about a hundred kernels as one, because launches take most of the time with networks this small.
    Batches of another size than the first are trained on without the graph.
    """

    def __init__(self, train_batch: TrainBatch, device: torch.device) -> None:
        self.train_batch = train_batch
        self.indices: Tensor | None = None
        self.lr_scale = torch.zeros((), device=device)
        self.warm_up_steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, indices: Tensor, lr_scale: float | Tensor) -> None:
        self.lr_scale.fill_(lr_scale)
        if self.indices is None:
            self.indices = indices.clone()
        if indices.shape != self.indices.shape:
            self.train_batch(indices, self.lr_scale)
            return
        self.indices.copy_(indices)
        if self.graph is not None:
            self.graph.replay()
        elif self.warm_up_steps < _WARM_UP_STEPS:
            self._warm_up_step()
        else:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.train_batch(self.indices, self.lr_scale)
            self.graph.replay()  # capturing records the step without running it

    def _warm_up_step(self) -> None:
        """Run a step on a side stream, which PyTorch requires before a capture."""
        assert self.indices is not None, "set before the first step"
        self.warm_up_steps += 1
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.train_batch(self.indices, self.lr_scale)
        torch.cuda.current_stream().wait_stream(stream)
