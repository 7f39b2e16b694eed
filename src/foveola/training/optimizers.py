"""Optimizers: Adam, AdamW, SGD and Muon.

All but Muon call PyTorch's functional optimizers, fused into one kernel for all weights. The classes of `torch.optim`
are not used: creating the first one loads PyTorch's compiler, which takes a second, as long as some trainings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from foveola.models.init import hidden_kernels
from foveola.recipe import Recipe
from foveola.training.distributed import ALONE, Processes

# Rows from which on matrices are orthogonalised in bf16; of smaller ones, conversions take longer than products
_BF16_ROWS = 128


@dataclass
class ParamGroup:
    """Parameters with the same settings; `lr` is the learning rate before the schedule scales it."""

    parameters: list[Tensor]
    lr: float
    weight_decay: float


class Optimizer(Protocol):
    groups: Sequence[ParamGroup]

    @property
    def state(self) -> list[Tensor]:
        """The tensors that a step changes beside the parameters, always in the same order."""

    def step(self, lr_scale: float | Tensor, skip: Tensor | None = None) -> None:
        """Update the parameters, with learning rates times `lr_scale`; does nothing if `skip` is 1."""


def build_optimizers(
    network: nn.Module, recipe: Recipe, processes: Processes = ALONE, precision: torch.dtype = torch.float32
) -> list[Optimizer]:
    """The optimizers of a recipe: one, or two with Muon, whose products have this precision.

    Muon updates the kernels of hidden convolutions; AdamW updates all other parameters. Weight decay applies to
    matrices and kernels only, not to biases and normalisation scales, and not to the kernels of Muon.
    """
    trainable: list[Tensor] = [parameter for parameter in network.parameters() if parameter.requires_grad]
    hidden = [kernel for kernel in hidden_kernels(network) if kernel.requires_grad and recipe.optimizer == "muon"]
    hidden_ids = {id(kernel) for kernel in hidden}
    groups = []
    for share, parameters in _by_rate(network, trainable, recipe.first_layer_rate):
        matrices = [parameter for parameter in parameters if parameter.ndim >= 2 and id(parameter) not in hidden_ids]
        vectors = [parameter for parameter in parameters if parameter.ndim < 2]
        groups += [
            ParamGroup(matrices, share * recipe.learning_rate, recipe.weight_decay),
            ParamGroup(vectors, share * recipe.learning_rate, 0.0),
        ]
    groups = [group for group in groups if group.parameters]
    if recipe.optimizer == "sgd":
        return [SGD(groups, recipe.momentum)]
    adaptive = Adam(groups, recipe.beta2, recipe.epsilon, decoupled=recipe.optimizer != "adam")
    if not hidden:
        return [adaptive]
    group = ParamGroup(hidden, recipe.muon_learning_rate, 0.0)
    return [adaptive, Muon([group], recipe.momentum, processes, precision)]


def _by_rate(network: nn.Module, trainable: list[Tensor], first: float) -> list[tuple[float, list[Tensor]]]:
    """The parameters by their share of the learning rate, which grows from `first` to 1 from layer to layer."""
    layers = [list(layer.parameters()) for layer in network.children()]
    layers = [parameters for parameters in layers if parameters]
    if first == 1 or len(layers) < 2:
        return [(1.0, trainable)]
    known = {id(parameter) for parameter in trainable}
    return [
        (first ** (1 - position / (len(layers) - 1)), [p for p in parameters if id(p) in known])
        for position, parameters in enumerate(layers)
    ]


class Adam:
    """Adam (Kingma and Ba, 2015), or AdamW with `decoupled` weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, groups: Sequence[ParamGroup], beta2: float, epsilon: float, *, decoupled: bool) -> None:
        self.groups = groups
        self.beta2, self.epsilon, self.decoupled = beta2, epsilon, decoupled
        self.mean = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
        self.mean_square = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
        self.steps = [[torch.zeros((), device=p.device) for p in group.parameters] for group in groups]

    @property
    def state(self) -> list[Tensor]:
        return [tensor for kind in (self.mean, self.mean_square, self.steps) for group in kind for tensor in group]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor, skip: Tensor | None = None) -> None:
        for group, *states in zip(self.groups, self.mean, self.mean_square, self.steps, strict=True):
            parameters, mean, mean_square, steps = _training(group, *states)
            adam(
                parameters, _gradients(parameters), mean, mean_square, [], steps, fused=True, amsgrad=False,
                beta1=0.9, beta2=self.beta2, lr=lr_scale * group.lr, weight_decay=group.weight_decay, eps=self.epsilon,
                decoupled_weight_decay=self.decoupled, found_inf=skip, maximize=False,
            )  # fmt: skip


class SGD:
    """Stochastic gradient descent, with Nesterov momentum (Sutskever et al., 2013) in PyTorch's form, or without."""

    def __init__(self, groups: Sequence[ParamGroup], momentum: float) -> None:
        self.groups = groups
        self.momentum = momentum
        self.velocity: list[list[Tensor | None]] = [
            [torch.zeros_like(p) if momentum else None for p in group.parameters] for group in groups
        ]

    @property
    def state(self) -> list[Tensor]:
        return [tensor for group in self.velocity for tensor in group if tensor is not None]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor, skip: Tensor | None = None) -> None:
        for group, velocities in zip(self.groups, self.velocity, strict=True):
            parameters, velocity = _training(group, velocities)
            sgd(
                parameters, _gradients(parameters), velocity, fused=True, weight_decay=group.weight_decay,
                momentum=self.momentum, dampening=0.0, nesterov=self.momentum > 0,
                lr=lr_scale * group.lr,  # type: ignore[arg-type]  # takes a tensor, too
                found_inf=skip, maximize=False,
            )  # fmt: skip


class Muon:
    """Nesterov momentum with orthogonalised updates: a kernel changes by the same amount in all directions.

    Kernels out×in×height×width are treated as matrices out × (in·height·width). Their norm is fixed at √out; the
    learning rate is then the relative change of a filter. Jordan et al., "Muon" (2024); the fixed norm is airbench's
    (Jordan, 2024, arXiv:2404.00498). PyTorch's own Muon takes matrices only and does not fix the norm.

    Several processes share the kernels, because to orthogonalise them takes longer than to send them.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        momentum: float,
        processes: Processes = ALONE,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.groups = groups
        self.momentum = momentum
        self.processes, self.precision = processes, precision
        self.velocity = [[torch.zeros_like(p) for p in group.parameters] for group in groups]

    @property
    def state(self) -> list[Tensor]:
        return [tensor for group in self.velocity for tensor in group]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor, skip: Tensor | None = None) -> None:
        for group, all_velocities in zip(self.groups, self.velocity, strict=True):
            lookaheads = []
            kernels, velocities = _training(group, all_velocities)
            for gradient, velocity in zip(_gradients(kernels), velocities, strict=True):
                if skip is not None:
                    gradient = torch.where(skip > 0, torch.zeros_like(gradient), gradient)
                velocity.mul_(self.momentum).add_(gradient)
                # A view, in channels_last
                lookaheads.append(gradient.add(velocity, alpha=self.momentum).permute(0, 2, 3, 1))
            matrices = self._orthogonalized([lookahead.flatten(1) for lookahead in lookaheads])
            for kernel, lookahead, matrix in zip(kernels, lookaheads, matrices, strict=True):
                update = matrix.view_as(lookahead).permute(0, 3, 1, 2)
                updated = kernel * (math.sqrt(len(kernel)) / kernel.norm()) - update * (lr_scale * group.lr)
                kernel.copy_(updated if skip is None else torch.where(skip > 0, kernel, updated))

    def _orthogonalized(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """The matrices orthogonalised, each by one process."""
        if self.processes.size == 1:
            return [orthogonalize(matrix, self.precision) for matrix in matrices]
        owners = _assign([matrix.numel() * min(matrix.shape) for matrix in matrices], self.processes.size)
        results = [
            orthogonalize(matrix, self.precision) if owner == self.processes.rank else torch.zeros_like(matrix)
            for matrix, owner in zip(matrices, owners, strict=True)
        ]
        self.processes.sum_tensors(results)
        return results


def _assign(costs: Sequence[int], workers: int) -> list[int]:
    """A worker for each cost: from the largest to the smallest, that with the least so far."""
    loads, owners = [0] * workers, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += costs[index]
    return owners


def orthogonalize(matrix: Tensor, precision: torch.dtype | None = None, iterations: int = 3) -> Tensor:
    """The matrix with the same singular vectors and singular values of about 1, by a Newton–Schulz iteration.

    The coefficients of the quintic are Jordan's (2024). It is steep at zero: three iterations bring most singular
    values into 0.5…1.5, which is close enough for the direction of an update. Each iteration multiplies `x` by a
    polynomial of its square x·xᵀ. The polynomials commute: they are multiplied with each other first, as small square
    matrices, and `x` is multiplied once, by their product. Matrices of 128 rows and more are multiplied in `precision`.
    bf16 changes the result by 1 to 2 %, which is less than what further iterations would change.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = (x / (x.norm() + 1e-7)).to(precision if precision and len(x) >= _BF16_ROWS else matrix.dtype)
    square, product = x @ x.T, None
    for remaining in reversed(range(iterations)):
        polynomial = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        polynomial.diagonal().add_(3.4445)
        product = polynomial if product is None else polynomial @ product
        if remaining:
            square = polynomial @ square @ polynomial
    x = x if product is None else product @ x
    orthogonal: Tensor = x.T if tall else x
    return orthogonal.to(matrix.dtype)


def _training(group: ParamGroup, *states: Sequence[Any]) -> list[list[Any]]:
    """The parameters of a group that are not frozen at this step, and what the optimizer knows of them."""
    chosen = [index for index, parameter in enumerate(group.parameters) if parameter.requires_grad]
    return [[values[index] for index in chosen] for values in (group.parameters, *states)]


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of parameters; zero for one that the loss does not depend on."""
    return [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
