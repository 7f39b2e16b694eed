"""Optimizers and schedules against their definitions."""

import math

import pytest
import torch
from torch import nn

from foveola.training.optimizers import build_optimizer, learning_rate


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_recipe_names_the_optimizer(name, kind, recipe_of):
    recipe = recipe_of(optimizer=name, learning_rate=0.3, beta2=0.95, epsilon=1e-5, momentum=0.8, weight_decay=0.1)
    optimizer = build_optimizer(network(), recipe)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["fused"]
        assert group["lr"] == 0.3
        if name == "sgd":
            assert (group["momentum"], group["nesterov"]) == (0.8, True)
        else:
            assert (group["betas"], group["eps"]) == ((0.9, 0.95), 1e-5)


def test_sgd_without_momentum_is_plain(recipe_of):
    (group, _) = build_optimizer(network(), recipe_of(optimizer="sgd", momentum=0)).param_groups
    assert (group["momentum"], group["nesterov"]) == (0, False)


def test_weight_decay_acts_on_matrices_and_kernels_only(recipe_of):
    trained = network()
    optimizer = build_optimizer(trained, recipe_of(optimizer="adamw", weight_decay=0.25))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    given = {name: decay[id(p)] for name, p in trained.named_parameters()}
    assert given == {"0.weight": 0.25, "0.bias": 0, "1.weight": 0, "1.bias": 0, "3.weight": 0.25, "3.bias": 0}


def test_frozen_parameters_are_left_out(recipe_of):
    trained = network()
    trained[0].requires_grad_(False)
    optimizer = build_optimizer(trained, recipe_of())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def rates(recipe, steps=40, per_epoch=10):
    return [learning_rate(recipe, step, steps, per_epoch) for step in range(steps)]


def test_constant(recipe_of):
    assert rates(recipe_of(learning_rate=0.2)) == [0.2] * 40


def test_cosine_is_pytorchs(recipe_of):
    optimizer = torch.optim.SGD(network().parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(recipe_of(learning_rate=0.2, schedule="cosine")) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("drop", [1, 2])
def test_step_is_pytorchs(drop, recipe_of):
    optimizer = torch.optim.SGD(network().parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=drop, gamma=0.3)
    expected = []
    for _ in range(4):
        expected += [optimizer.param_groups[0]["lr"]] * 10
        optimizer.step()
        schedule.step()
    recipe = recipe_of(learning_rate=0.2, schedule="step", step_epochs=drop, step_factor=0.3)
    assert rates(recipe) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5, 0.9])
def test_one_cycle_is_two_straight_lines(warmup, recipe_of):
    given = rates(recipe_of(learning_rate=0.2, schedule="one-cycle", warmup=warmup), steps=39)
    for step, rate in enumerate(given):
        done = (step + 1) / 40
        up = 0.2 * done / warmup if warmup else math.inf
        down = 0.2 * (1 - done) / (1 - warmup)
        assert rate == pytest.approx(up if done < warmup else down, rel=1e-9)
    assert min(given) > 0
    if warmup:
        assert max(given) == pytest.approx(0.2)  # 40 × warmup is whole: one step stands on the peak
        assert given.index(max(given)) == round(40 * warmup) - 1
    assert given[-1] == pytest.approx(0.2 / 40 / (1 - warmup))
