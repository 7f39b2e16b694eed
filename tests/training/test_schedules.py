"""Learning-rate schedules against PyTorch and their definitions."""

import math

import pytest
import torch

from foveola.training.schedules import lr_schedule


def rates(recipe, steps=40, steps_per_epoch=10):
    return [recipe.learning_rate * lr_schedule(recipe, step, steps, steps_per_epoch) for step in range(steps)]


def pytorch_optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)


def test_constant_keeps_the_learning_rate(recipe_of):
    assert rates(recipe_of(learning_rate=0.2)) == [0.2] * 40


def test_cosine_matches_pytorch(recipe_of):
    optimizer = pytorch_optimizer()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(recipe_of(learning_rate=0.2, schedule="cosine")) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("step_epochs", [1, 2])
def test_step_matches_pytorch(step_epochs, recipe_of):
    optimizer = pytorch_optimizer()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=step_epochs, gamma=0.3)
    expected = []
    for _ in range(4):
        expected += [optimizer.param_groups[0]["lr"]] * 10
        optimizer.step()
        schedule.step()
    recipe = recipe_of(learning_rate=0.2, schedule="step", step_epochs=step_epochs, step_factor=0.3)
    assert rates(recipe) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5, 0.9])
def test_one_cycle_rises_and_falls_linearly(warmup, recipe_of):
    learning_rates = rates(recipe_of(learning_rate=0.2, schedule="one-cycle", warmup=warmup), steps=39)
    for step, rate in enumerate(learning_rates):
        progress = (step + 1) / 40
        up = 0.2 * progress / warmup if warmup else math.inf
        down = 0.2 * (1 - progress) / (1 - warmup)
        assert rate == pytest.approx(up if progress < warmup else down, rel=1e-9)
    assert min(learning_rates) > 0
    if warmup:
        assert max(learning_rates) == pytest.approx(0.2)  # 40 × warmup is a whole number: one step has the peak
        assert learning_rates.index(max(learning_rates)) == round(40 * warmup) - 1
    assert learning_rates[-1] == pytest.approx(0.2 / 40 / (1 - warmup))
