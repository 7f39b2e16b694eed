"""Optimizers by name, and learning-rate schedules as functions of the step.

The optimizers are PyTorch's functions, fused into one kernel for all weights, in classes of our own: those of
`torch.optim` load PyTorch's compiler when the first one is made, which takes a second, as long as some trainings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from foveola.models.network import hidden_kernels
from foveola.recipe import Recipe


@dataclass
class Group:
    """Parameters that learn alike; `peak` is the rate that the schedule multiplies."""

    parameters: list[Tensor]
    peak: float
    weight_decay: float


class Optimizer(Protocol):
    groups: Sequence[Group]

    def step(self, share: float | Tensor, skip: Tensor | None = None) -> None:
        """Change the parameters by their gradients, at a share of the peak rates; nothing where `skip` is 1."""


def build_optimizers(network: nn.Module, recipe: Recipe) -> list[Optimizer]:
    """The recipe's optimizer, or two of them.

    Muon is for the kernels of hidden convolutions; AdamW learns the first layer, the last one and all vectors.
    Weight decay acts on matrices and kernels; biases and normalisation scales are left alone.
    """
    trained: list[Tensor] = [parameter for parameter in network.parameters() if parameter.requires_grad]
    hidden = [kernel for kernel in hidden_kernels(network) if kernel.requires_grad and recipe.optimizer == "muon"]
    taken = {id(kernel) for kernel in hidden}
    matrices = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in taken]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [Group(matrices, recipe.learning_rate, recipe.weight_decay), Group(vectors, recipe.learning_rate, 0.0)]
    groups = [group for group in groups if group.parameters]
    if recipe.optimizer == "sgd":
        return [SGD(groups, recipe.momentum)]
    adaptive = Adam(groups, recipe.beta2, recipe.epsilon, decoupled=recipe.optimizer != "adam")
    if not hidden:
        return [adaptive]
    return [adaptive, Muon([Group(hidden, recipe.muon_learning_rate, 0.0)], recipe.momentum)]


class Adam:
    """Kingma and Ba (2015); `decoupled` weight decay makes it AdamW (Loshchilov and Hutter, 2019)."""

    def __init__(self, groups: Sequence[Group], beta2: float, epsilon: float, *, decoupled: bool) -> None:
        self.groups = groups
        self.beta2, self.epsilon, self.decoupled = beta2, epsilon, decoupled
        self.mean = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
        self.mean_square = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
        self.steps = [[torch.zeros((), device=p.device) for p in group.parameters] for group in groups]

    @torch.no_grad()
    def step(self, share: float | Tensor, skip: Tensor | None = None) -> None:
        for group, mean, mean_square, steps in zip(self.groups, self.mean, self.mean_square, self.steps, strict=True):
            adam(
                group.parameters, _gradients(group), mean, mean_square, [], steps, fused=True, amsgrad=False,
                beta1=0.9, beta2=self.beta2, lr=share * group.peak, weight_decay=group.weight_decay, eps=self.epsilon,
                decoupled_weight_decay=self.decoupled, found_inf=skip, maximize=False,
            )  # fmt: skip


class SGD:
    """With Nesterov's momentum, as PyTorch writes it (Sutskever et al., 2013), or none."""

    def __init__(self, groups: Sequence[Group], momentum: float) -> None:
        self.groups = groups
        self.momentum = momentum
        self.velocity: list[list[Tensor | None]] = [
            [torch.zeros_like(p) if momentum else None for p in group.parameters] for group in groups
        ]

    @torch.no_grad()
    def step(self, share: float | Tensor, skip: Tensor | None = None) -> None:
        for group, velocity in zip(self.groups, self.velocity, strict=True):
            sgd(
                group.parameters, _gradients(group), velocity, fused=True, weight_decay=group.weight_decay,
                momentum=self.momentum, dampening=0.0, nesterov=self.momentum > 0,
                lr=share * group.peak,  # type: ignore[arg-type]  # takes a tensor, too
                found_inf=skip, maximize=False,
            )  # fmt: skip


class Muon:
    """Nesterov's momentum, orthogonalised: all directions in which a layer can change move equally far.

    Kernels out×in×height×width are seen as matrices out × (in·height·width), and their norm is held at √out, so that
    the rate says by which share a filter turns. Jordan et al., "Muon" (2024); the fixed norm is airbench's
    (Jordan, 2024, arXiv:2404.00498). PyTorch's own Muon takes matrices only and does not fix the norm.
    """

    def __init__(self, groups: Sequence[Group], momentum: float) -> None:
        self.groups = groups
        self.momentum = momentum
        self.velocity = [[torch.zeros_like(p) for p in group.parameters] for group in groups]

    @torch.no_grad()
    def step(self, share: float | Tensor, skip: Tensor | None = None) -> None:
        for group, velocities in zip(self.groups, self.velocity, strict=True):
            for kernel, gradient, velocity in zip(group.parameters, _gradients(group), velocities, strict=True):
                if skip is not None:
                    gradient = torch.where(skip > 0, torch.zeros_like(gradient), gradient)
                velocity.mul_(self.momentum).add_(gradient)
                ahead = gradient.add(velocity, alpha=self.momentum).permute(0, 2, 3, 1)  # a view, in channels_last
                change = orthogonalize(ahead.flatten(1)).view_as(ahead).permute(0, 3, 1, 2)
                turned = kernel * (math.sqrt(len(kernel)) / kernel.norm()) - change * (share * group.peak)
                kernel.copy_(turned if skip is None else torch.where(skip > 0, kernel, turned))


def orthogonalize(matrix: Tensor, iterations: int = 3) -> Tensor:
    """The nearest matrix whose singular values are all about 1, by Newton and Schulz' iteration.

    The quintic's coefficients are Jordan's (2024): steep at zero, so that three iterations bring most singular values
    into 0.5…1.5, which is near enough for a direction. Each iteration multiplies `x` by a polynomial of its square
    x·xᵀ; they commute, so that all are computed on the small square, and `x` is multiplied once, by their product.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    square, product = x @ x.T, None
    for remaining in reversed(range(iterations)):
        polynomial = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        polynomial.diagonal().add_(3.4445)
        product = polynomial if product is None else polynomial @ product
        if remaining:
            square = polynomial @ square @ polynomial
    x = x if product is None else product @ x
    orthogonal: Tensor = x.T if tall else x
    return orthogonal


def schedule(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """The share of its peak that a learning rate has in a step.

    Parameters
    ----------
    step : 0 for the first one
    steps : number of steps in the whole training
    steps_per_epoch : number of steps in an epoch

    Notes
    -----
    One-cycle is linear warm-up and linear decay to zero (after Smith and Topin, 2017); cosine falls to zero along half
    a period (Loshchilov and Hutter, 2017).
    """
    done = (step + 1) / (steps + 1)
    match recipe.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return (1 + math.cos(math.pi * step / steps)) / 2
        case "one-cycle":
            return min(done / recipe.warmup if recipe.warmup else 1.0, (1 - done) / (1 - recipe.warmup))
        case "step":
            return recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)


def _gradients(group: Group) -> list[Tensor]:
    """Of a parameter that the loss does not depend on, zero."""
    return [p.grad if p.grad is not None else torch.zeros_like(p) for p in group.parameters]
