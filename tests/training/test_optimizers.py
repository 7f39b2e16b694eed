"""Optimizers and schedules against their definitions."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from foveola.training.optimizers import Group, Muon, build_optimizers, orthogonalize, schedule


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


SETTINGS = {"learning_rate": 0.3, "beta2": 0.95, "epsilon": 1e-5, "momentum": 0.8, "weight_decay": 0.1}
PYTORCHS = {
    "adam": lambda groups: torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-5),
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-5),
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.8, nesterov=True),
    "plain": lambda groups: torch.optim.SGD(groups),
}


@pytest.mark.parametrize("name", PYTORCHS)
def test_steps_are_pytorchs(name, recipe_of):
    ours, theirs = network(), network()
    theirs.load_state_dict(ours.state_dict())
    settings = SETTINGS | {"optimizer": "sgd", "momentum": 0.0} if name == "plain" else SETTINGS | {"optimizer": name}
    (optimizer,) = build_optimizers(ours, recipe_of(**settings))
    matrices, vectors = ([p for p in theirs.parameters() if (p.ndim > 1) is many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    reference = PYTORCHS[name](groups)
    for share in (1.0, 0.5, 0.25):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for group in reference.param_groups:
            group["lr"] = 0.3 * share
        optimizer.step(share)
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_frozen_parameters_are_left_out(recipe_of):
    trained = network()
    trained[0].requires_grad_(False)
    (optimizer,) = build_optimizers(trained, recipe_of())
    assert sum(len(group.parameters) for group in optimizer.groups) == 4


def test_muon_takes_the_kernels_of_hidden_convolutions(recipe_of):
    trained = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    trained[2].requires_grad_(False)
    adamw, muon = build_optimizers(trained, recipe_of(optimizer="muon", learning_rate=0.3, muon_learning_rate=0.1))
    names = {id(p): name for name, p in trained.named_parameters()}
    assert [[names[id(p)] for p in group.parameters] for group in muon.groups] == [["1.weight"]]
    assert [group.peak for group in muon.groups] == [0.1]
    rest = [[names[id(p)] for p in group.parameters] for group in adamw.groups]
    assert rest == [["0.weight", "4.weight"], ["0.bias", "1.bias", "4.bias"]]
    assert adamw.decoupled and all(group.peak == 0.3 for group in adamw.groups)


def test_building_optimizers_does_not_load_the_compiler():
    """Which takes a second, within the training."""
    code = (
        "import sys; from torch import nn; from foveola.recipe import load_recipe\n"
        "from foveola.training.optimizers import build_optimizers\n"
        "build_optimizers(nn.Linear(2, 2), load_recipe('fast')); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(8, 36), (36, 8), (16, 16)])
def test_orthogonalize_keeps_the_directions_and_evens_out_their_lengths(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonalize(matrix, iterations=5) @ right.T  # diagonal, if the singular vectors are kept
    assert (inside - inside.diag().diag()).abs().max() < 1e-9
    assert 0.6 < inside.diag().min() < inside.diag().max() < 1.3


def test_a_step_of_muon_turns_filters_by_the_rate_at_a_fixed_norm():
    generator = torch.Generator().manual_seed(2)
    kernel = nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last))
    gradients = [torch.randn(4, 3, 3, 3, generator=generator) for _ in range(3)]
    optimizer = Muon([Group([kernel], 0.4, 0.0)], 0.6)
    average, expected = torch.zeros(4, 3, 3, 3), kernel.detach().clone()
    for gradient in gradients:
        average = 0.6 * average + gradient
        change = orthogonalize((gradient + 0.6 * average).reshape(4, 27)).reshape(4, 3, 3, 3)
        expected = 2 * expected / expected.norm() - 0.2 * change
        kernel.grad = gradient
        optimizer.step(share=0.5)
    torch.testing.assert_close(kernel.detach(), expected)


def rates(recipe, steps=40, per_epoch=10):
    return [recipe.learning_rate * schedule(recipe, step, steps, per_epoch) for step in range(steps)]


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
