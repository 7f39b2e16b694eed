"""Optimizers by name, and learning-rate schedules as functions of the step."""

import math

import torch
from torch import nn

from foveola.recipe import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, fused: one kernel for all weights.

    Weight decay acts on matrices and kernels; biases and normalisation scales are left alone.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = recipe.learning_rate
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, rate, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, rate, betas=(0.9, recipe.beta2), eps=recipe.epsilon, fused=True)


def learning_rate(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate of a step.

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
    peak, done = recipe.learning_rate, (step + 1) / (steps + 1)
    match recipe.schedule:
        case "constant":
            return peak
        case "cosine":
            return peak * (1 + math.cos(math.pi * step / steps)) / 2
        case "one-cycle":
            return peak * min(done / recipe.warmup if recipe.warmup else 1.0, (1 - done) / (1 - recipe.warmup))
        case "step":
            return peak * recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)
