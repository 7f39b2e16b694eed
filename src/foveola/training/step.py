"""One step of training: gather, augment, forward, backward, check, optimize.

Nothing in a step waits for its numbers: they are summed up on the device. On the processor the check comes before the
weights change; on a GPU, where asking would stop the queue, a step that is not finite changes nothing, nor do those
after it, and who asks for the figures learns of it.
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
from foveola.training.optimizers import build_optimizers, schedule

# Ordinary steps before a CUDA graph is captured: libraries choose their kernels, and the allocator settles
_WARM_UP = 3

Learn = Callable[[Tensor, float | Tensor], None]


class Step:
    """Learns from images chosen by their indices.

    Parameters
    ----------
    classifier : its network learns
    images, labels : all training images, uint8 N×H×W×C, and their labels, N, on the device
    precision : of the products
    flip : whether half of the images are mirrored
    class_weights : K, or None
    steps, steps_per_epoch : of the whole training
    deferred : whether figures and faults wait until they are asked for; by default on a GPU
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
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
        self.fault = torch.zeros((), device=device)  # 1 from the first step that was not finite
        self.fault_loss = torch.zeros((), device=device)
        self.finite_steps = torch.zeros((), device=device)
        # mixup draws on the processor, and a module of the user's own may do anything
        capture = device.type == "cuda" and not recipe.augment.mixup and classifier.card.layers is not None
        self.run: Learn = _Captured(self.learn, device) if capture else self.learn

    def __call__(self, chosen: Tensor, share: float) -> None:
        """Learn from the images with these indices, N, at a share of the peak rates.

        Raises
        ------
        NonFiniteLoss
            Unless deferred, when the loss or its gradient is NaN or infinite, before the weights change.
        """
        self.run(chosen, share)
        if not self.deferred and self.fault:
            self._raise()

    def figures(self) -> tuple[float, float]:
        """Mean loss and share of images classified correctly since the last call.

        Raises
        ------
        NonFiniteLoss
            If deferred, when a step was not finite; the weights are those before it.
        """
        if self.fault:
            self._raise()
        loss, correct, seen = self.sums.tolist()
        self.sums.zero_()
        return loss / seen, correct / seen

    def learn(self, chosen: Tensor, share: float | Tensor) -> None:
        """The step itself, without asking for a number on a GPU."""
        labels = self.labels[chosen]
        before = [buffer.clone() for buffer in self.buffers]
        loss, correct = self._forward(self.images[chosen], labels)
        loss.backward()
        self._check(loss.detach())
        if self.deferred or self.fault:  # batch normalisation has seen the NaN already
            for buffer, old in zip(self.buffers, before, strict=True):
                buffer.copy_(torch.where(self.fault > 0, old, buffer))
        if self.deferred or not self.fault:
            for optimizer in self.optimizers:
                optimizer.step(share, skip=self.fault if self.deferred else None)
            self.sums += torch.stack((loss.detach() * len(labels), correct, torch.full_like(correct, len(labels))))
        for parameter in self.parameters:
            parameter.grad = None

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss, and how many images were classified correctly."""
        augment = self.recipe.augment
        polarity = self.classifier.card.polarity
        x = self.classifier.normalize(augment_images(images, augment, self.flip, polarity))
        if augment.cutout:
            x = cutout(x, augment.cutout)
        if not augment.mixup:
            logits = self._logits(x)
            return self._loss(logits, labels), (logits.detach().argmax(1) == labels).sum()
        x, order, share = mixup(x, augment.mixup)
        logits = self._logits(x)
        loss = share * self._loss(logits, labels) + (1 - share) * self._loss(logits, labels[order])
        return loss, (logits.detach().argmax(1) == (labels if share >= 0.5 else labels[order])).sum()

    def _logits(self, x: Tensor) -> Tensor:
        with self.autocast:
            logits: Tensor = self.classifier.network(x)
        return logits.float()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.recipe.label_smoothing)

    def _check(self, loss: Tensor) -> None:
        """Remember the first loss that was not finite, or whose gradient was not."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self.fault_loss.copy_(torch.where(self.fault > 0, self.fault_loss, loss))
        self.fault.copy_(torch.maximum(self.fault, (~torch.isfinite(loss + norm)).float()))
        self.finite_steps += 1 - self.fault

    def _raise(self) -> NoReturn:
        done = int(self.finite_steps)
        what = "the gradient of the loss" if math.isfinite(float(self.fault_loss)) else "the loss"
        peak = self.recipe.learning_rate
        rate = peak * schedule(self.recipe, done, self.steps, self.steps_per_epoch)
        raise NonFiniteLoss(
            f"In epoch {done // self.steps_per_epoch + 1}, step {done + 1}, {what} was not finite (learning rate "
            f"{rate:.3g}). Training stopped before this step; the weights before it are kept. "
            f"Lower the learning rate: --set learning_rate={peak / 10:.3g}"
        )


class _Captured:
    """A step as a CUDA graph: a hundred kernels launched as one, because launches bound such small networks.

    Batches of another size than the first go the ordinary way.
    """

    def __init__(self, learn: Learn, device: torch.device) -> None:
        self.learn = learn
        self.chosen: Tensor | None = None
        self.share = torch.zeros((), device=device)
        self.warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, chosen: Tensor, share: float | Tensor) -> None:
        self.share.fill_(share)
        if self.chosen is None:
            self.chosen = chosen.clone()
        if chosen.shape != self.chosen.shape:
            self.learn(chosen, self.share)
            return
        self.chosen.copy_(chosen)
        if self.graph is not None:
            self.graph.replay()
        elif self.warm < _WARM_UP:
            self._aside()
        else:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.learn(self.chosen, self.share)
            self.graph.replay()  # capturing has recorded the step, not done it

    def _aside(self) -> None:
        """An ordinary step on a stream of its own, as capturing wants it beforehand."""
        assert self.chosen is not None, "set before the first step"
        self.warm += 1
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.learn(self.chosen, self.share)
        torch.cuda.current_stream().wait_stream(stream)
