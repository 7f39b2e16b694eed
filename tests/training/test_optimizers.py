"""Optimizers against PyTorch and their definitions."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from foveola.training.optimizers import Muon, ParamGroup, _assign, build_optimizers, orthogonalize


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


SETTINGS = {"learning_rate": 0.3, "beta2": 0.95, "epsilon": 1e-5, "momentum": 0.8, "weight_decay": 0.1}
PYTORCH_OPTIMIZERS = {
    "adam": lambda groups: torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-5),
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-5),
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.8, nesterov=True),
    "plain": lambda groups: torch.optim.SGD(groups),
}


@pytest.mark.parametrize("name", PYTORCH_OPTIMIZERS)
def test_steps_match_pytorch(name, recipe_of):
    ours, theirs = network(), network()
    theirs.load_state_dict(ours.state_dict())
    settings = SETTINGS | {"optimizer": "sgd", "momentum": 0.0} if name == "plain" else SETTINGS | {"optimizer": name}
    (optimizer,) = build_optimizers(ours, recipe_of(**settings))
    matrices, vectors = ([p for p in theirs.parameters() if (p.ndim > 1) is is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    reference = PYTORCH_OPTIMIZERS[name](groups)
    for lr_scale in (1.0, 0.5, 0.25):
        for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            our.grad = torch.randn_like(our)
            their.grad = our.grad.clone()
        for group in reference.param_groups:
            group["lr"] = 0.3 * lr_scale
        optimizer.step(lr_scale)
        reference.step()
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their)


def test_frozen_parameters_are_left_out(recipe_of):
    partly_frozen = network()
    partly_frozen[0].requires_grad_(False)
    (optimizer,) = build_optimizers(partly_frozen, recipe_of())
    assert sum(len(group.parameters) for group in optimizer.groups) == 4


def test_muon_takes_the_kernels_of_hidden_convolutions(recipe_of):
    trained = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    trained[2].requires_grad_(False)
    adamw, muon = build_optimizers(trained, recipe_of(optimizer="muon", learning_rate=0.3, muon_learning_rate=0.1))
    names = {id(p): name for name, p in trained.named_parameters()}
    assert [[names[id(p)] for p in group.parameters] for group in muon.groups] == [["1.weight"]]
    assert [group.lr for group in muon.groups] == [0.1]
    rest = [[names[id(p)] for p in group.parameters] for group in adamw.groups]
    assert rest == [["0.weight", "4.weight"], ["0.bias", "1.bias", "4.bias"]]
    assert adamw.decoupled and all(group.lr == 0.3 for group in adamw.groups)


def test_building_optimizers_does_not_load_the_compiler():
    """Loading it takes a second of training time."""
    code = (
        "import sys; from torch import nn; from foveola.recipe import load_recipe\n"
        "from foveola.training.optimizers import build_optimizers\n"
        "build_optimizers(nn.Linear(2, 2), load_recipe('fast')); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(8, 36), (36, 8), (16, 16)])
def test_orthogonalize_keeps_singular_vectors_and_evens_out_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    # Diagonal if the singular vectors are the same
    transformed = left.T @ orthogonalize(matrix, iterations=5) @ right.T
    assert (transformed - transformed.diag().diag()).abs().max() < 1e-9
    assert 0.6 < transformed.diag().min() < transformed.diag().max() < 1.3


@pytest.mark.parametrize("shape", [(128, 1152), (256, 1152)])
def test_orthogonalize_large_matrices_in_bf16_nearly_as_in_float32(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    exact, rounded = orthogonalize(matrix), orthogonalize(matrix, torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.04


def test_orthogonalize_small_matrices_in_their_own_precision():
    matrix = torch.randn(64, 576, generator=torch.Generator().manual_seed(4))
    assert orthogonalize(matrix, torch.bfloat16).equal(orthogonalize(matrix))


def test_muon_follows_its_definition_at_a_fixed_norm():
    generator = torch.Generator().manual_seed(2)
    kernel = nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last))
    gradients = [torch.randn(4, 3, 3, 3, generator=generator) for _ in range(3)]
    optimizer = Muon([ParamGroup([kernel], 0.4, 0.0)], 0.6)
    velocity, expected = torch.zeros(4, 3, 3, 3), kernel.detach().clone()
    for gradient in gradients:
        velocity = 0.6 * velocity + gradient
        update = orthogonalize((gradient + 0.6 * velocity).reshape(4, 27)).reshape(4, 3, 3, 3)
        expected = 2 * expected / expected.norm() - 0.2 * update
        kernel.grad = gradient
        optimizer.step(lr_scale=0.5)
    torch.testing.assert_close(kernel.detach(), expected)


def test_processes_share_kernels_by_their_cost():
    assert _assign([5, 1, 3, 3], 2) == [0, 0, 1, 1]
    assert _assign([], 2) == []
    assert sorted(_assign([1] * 6, 3)) == [0, 0, 1, 1, 2, 2]
