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
from foveola.models.batch_part import BatchPart, set_batch_part
from foveola.models.classifier import Classifier
from foveola.recipe import Recipe
from foveola.training.augment import augment_images, cutout, draw_mixup, mixup
from foveola.training.distill import distillation_loss
from foveola.training.distributed import ALONE, Processes
from foveola.training.losses import is_right, label_losses
from foveola.training.optimizers import build_optimizers
from foveola.training.read_ahead import ReadAhead
from foveola.training.schedules import lr_schedule

# Steps before a CUDA graph is captured, in which libraries choose their kernels and the allocator reserves memory
_WARM_UP_STEPS = 3

# In the place of a weight of 0, to divide by
_TINY = torch.finfo(torch.float32).tiny

TrainBatch = Callable[[Tensor, float | Tensor], None]


class TrainStep:
    """Trains a network on one batch per call, and sums up the metrics.

    Parameters
    ----------
    classifier : its network is trained
    images, labels : all training images, uint8 N×H×W×C, and their labels, N, or float N×K, on the device; images may be
        read there batch by batch
    precision : of matrix products
    flip_first : bool N on the device: the images to flip in epochs 1, 3, …; in 2, 4, … it is the others. With it, two
        epochs show each image both ways (Jordan, 2024, arXiv:2404.00498). None: no image is flipped
    class_weights : K, or None
    image_weights : float32 N on the device: how much each image counts in loss and accuracy; None: all the same
    steps, steps_per_epoch : number of steps in the whole training, and in an epoch
    deferred : whether a non-finite loss is raised only when the metrics are read; by default on a GPU
    processes : those that share every batch
    teacher_logits : of all training images, N×K, on the device; None: learn from the labels only
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor | ReadAhead,
        labels: Tensor,
        recipe: Recipe,
        *,
        precision: torch.dtype,
        flip_first: Tensor | None,
        class_weights: Tensor | None,
        image_weights: Tensor | None = None,
        steps: int,
        steps_per_epoch: int,
        deferred: bool | None = None,
        processes: Processes = ALONE,
        teacher_logits: Tensor | None = None,
    ) -> None:
        device = images.device
        self.classifier, self.recipe = classifier, recipe
        self.images, self.labels = images, labels
        self.flip_first, self.class_weights, self.image_weights = flip_first, class_weights, image_weights
        self.processes, self.teacher_logits = processes, teacher_logits
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.deferred = device.type == "cuda" if deferred is None else deferred
        self.optimizers = build_optimizers(classifier.network, recipe, processes, precision)
        groups = [group for optimizer in self.optimizers for group in optimizer.groups]
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        self.buffers = list(classifier.network.buffers())
        self.autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        # Loss, correct, seen; weighted. Apple's GPUs have no float64
        self.sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self.nonfinite = torch.zeros((), device=device)  # 1 from the first step with a non-finite loss or gradient
        self.nonfinite_loss = torch.zeros((), device=device)
        self.finite_steps = torch.zeros((), device=device)
        # A CUDA graph cannot hold mixup, which draws on the CPU, nor reading, nor what processes tell one another, and
        # perhaps not what a user's module does
        capture = device.type == "cuda" and isinstance(images, Tensor) and processes.size == 1
        capture = (
            capture and not recipe.augment.mixup and not recipe.unfreeze and classifier.metadata.layers is not None
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
        """Mean loss and accuracy over the images since the last call, by their weights.

        Of several labels an image, the loss is the mean over the labels, too, as in the metric log loss.

        Raises
        ------
        NonFiniteLoss
            If the loss or gradient of a deferred step was NaN or infinite; the weights are those before that step.
        """
        if self.nonfinite:
            self._raise()
        loss, correct, seen = self.sums.tolist()
        self.sums.zero_()
        seen = seen or 1.0  # of images that weigh 0
        return loss / seen / (1 if self.labels.ndim == 1 else self.labels.shape[1]), correct / seen

    def train_batch(self, indices: Tensor, lr_scale: float | Tensor) -> None:
        """Do one step; if deferred, without synchronising with the device."""
        buffers_before = [buffer.clone() for buffer in self.buffers]
        loss, correct = self._forward(indices)
        loss.backward()
        loss, correct = self._sum_over_processes(loss.detach(), correct)
        self._check_finite(loss)
        if self.deferred or self.nonfinite:  # batch normalisation may already hold NaN
            for buffer, before in zip(self.buffers, buffers_before, strict=True):
                buffer.copy_(torch.where(self.nonfinite > 0, before, buffer))
        if self.deferred or not self.nonfinite:
            for optimizer in self.optimizers:
                optimizer.step(lr_scale, skip=self.nonfinite if self.deferred else None)
            seen = torch.full_like(correct, len(indices))
            if self.image_weights is not None:
                seen = self.image_weights[indices].sum()
            self.sums += torch.stack((loss * seen, correct, seen))
        for parameter in self.parameters:
            parameter.grad = None

    def _forward(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and weight of the correct predictions: this process's summands of those of the whole batch."""
        part = self.processes.part(len(indices))
        if not self.recipe.augment.mixup:
            logits = self._logits(self._inputs(indices, part), part)
            own = indices[part.rows]
            return self._loss(logits, own, indices), self._correct(logits, own)
        weight, order = draw_mixup(self.recipe.augment.mixup, len(indices), indices.device)
        x, partners = self._pairs(indices, part, order)
        logits = self._logits(mixup(x, partners, weight), part)
        own, others = indices[part.rows], indices[order[part.rows]]
        loss = weight * self._loss(logits, own, indices)
        loss = loss + (1 - weight) * self._loss(logits, others, indices)
        return loss, self._correct(logits, own if weight >= 0.5 else others)

    def _correct(self, logits: Tensor, indices: Tensor) -> Tensor:
        """The weight of the images with these indices whose most probable class is the true one."""
        right = is_right(logits.detach(), self.labels[indices])
        return right.sum() if self.image_weights is None else self.image_weights[indices] @ right.float()

    def _inputs(self, indices: Tensor, part: BatchPart) -> Tensor:
        """Augmented images of a part of the batch, as the network takes them."""
        augment, polarity = self.recipe.augment, self.classifier.metadata.polarity
        own = indices[part.rows]
        images = augment_images(self.images[own], augment, self._flipped(own), polarity, part)
        x = self.classifier.normalize(images)
        return cutout(x, augment.cutout, part) if augment.cutout else x

    def _flipped(self, indices: Tensor) -> bool | Tensor:
        """Whether the images with these indices are flipped in this epoch: bool N, or False for all."""
        if self.flip_first is None:
            return False
        odd = (self.finite_steps // self.steps_per_epoch) % 2 == 1
        return self.flip_first[indices] ^ odd

    def _pairs(self, indices: Tensor, part: BatchPart, order: Tensor) -> tuple[Tensor, Tensor]:
        """A part of the batch, and the images that are blended with it, which may be in another process's part."""
        if self.processes.size == 1:
            x = self._inputs(indices, part)
            return x, x[order]
        own = torch.arange(len(indices), device=indices.device)[part.rows]
        x, partners = self._inputs(indices, BatchPart(part.size, torch.cat((own, order[own])))).chunk(2)
        return x, partners

    def _logits(self, x: Tensor, part: BatchPart) -> Tensor:
        network = self.classifier.network
        if self.processes.size > 1:
            set_batch_part(network, part)
        with self.autocast:
            logits: Tensor = network(x)
        if self.processes.size > 1:
            set_batch_part(network, None)
        return logits.float()

    def _loss(self, logits: Tensor, indices: Tensor, all_indices: Tensor) -> Tensor:
        """Mean loss by the labels of images with these indices, mixed with that by the teacher if there is one.

        The mean is weighted, where images have weights.

        Of a part of the batch, its summand of the mean over the whole batch.
        """
        loss = self._label_loss(logits, indices, all_indices)
        if self.teacher_logits is None:
            return loss
        distill = self.recipe.distill
        weights = None if self.image_weights is None else self.image_weights[indices]
        taught = distillation_loss(logits, self.teacher_logits[indices], distill.temperature, weights)
        taught = taught / self._total(all_indices, by_class=False)
        return (1 - distill.weight) * loss + distill.weight * taught

    def _label_loss(self, logits: Tensor, indices: Tensor, all_indices: Tensor) -> Tensor:
        """Mean loss by the labels; of a part of the batch, its sum divided by the weight of the whole batch."""
        labels, smoothing, weights = self.labels[indices], self.recipe.label_smoothing, self.image_weights
        if self.processes.size == 1 and weights is None and labels.ndim == 1:
            return F.cross_entropy(logits, labels, self.class_weights, label_smoothing=smoothing)
        losses = label_losses(logits, labels, self.class_weights, smoothing)
        return (losses.sum() if weights is None else weights[indices] @ losses) / self._total(all_indices)

    def _total(self, indices: Tensor, *, by_class: bool = True) -> Tensor | int:
        """The weight of a whole batch, above 0, with that of the classes or without."""
        weights = self.image_weights
        if by_class and self.class_weights is not None and self.labels.ndim == 1:
            of_class = self.class_weights[self.labels[indices]]
            return of_class.sum() if weights is None else (weights[indices] * of_class).sum().clamp_min(_TINY)
        return len(indices) if weights is None else weights[indices].sum().clamp_min(_TINY)

    def _sum_over_processes(self, loss: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, correct predictions and gradients of the whole batch."""
        if self.processes.size == 1:
            return loss, correct
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        metrics = torch.stack((loss, correct.to(loss.dtype)))
        self.processes.sum_tensors([*gradients, metrics])
        return metrics[0], metrics[1]

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
