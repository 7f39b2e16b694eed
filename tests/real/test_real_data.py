"""Accuracy of the tutorials and recipes on real data. Slow tests: make test-slow; results: docs/benchmarks.md."""

from pathlib import Path
from statistics import mean

import pytest

import foveola
from foveola.runs import Run

slow = pytest.mark.slow


@pytest.fixture
def train(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))

    def run(data: str | Path, recipe: str, seed: int = 0, **overrides) -> Run:
        out = tmp_path / f"{recipe}-{seed}"
        return foveola.train(data, recipe, seed=seed, overrides=overrides, out=out, verbose=False)

    return run


def accuracy(run: Run) -> float:
    return run.evaluation.accuracy.value


def test_mnist_is_complete(real_data):
    data = foveola.load(real_data / "mnist")
    assert (data.name, data.image_shape) == ("mnist", (28, 28, 1))
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.test.class_counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_fashion_mnist_has_its_class_names(real_data):
    data = foveola.load(real_data / "fashion-mnist")
    assert data.class_names[0] == "T-shirt/top"
    assert data.train.class_counts.tolist() == [6_000] * 10


def test_kmnist_from_test_is_not_called_kmnist(real_data):
    data = foveola.load(real_data / "kmnist-from-test")
    assert data.name == "kmnist-from-test"
    assert (len(data.train), len(data.test)) == (8_000, 2_000)


def test_lenet5_learns_in_a_few_batches(train):
    run = train("mnist", "lenet5", seed=98, epochs=4)
    assert (run.status.steps, run.evaluation.n) == (20, 10_000)
    assert accuracy(run) > 0.3


@pytest.mark.slow
def test_kmnist_recipe_in_one_epoch(train, real_data):
    run = train(real_data / "kmnist-from-test", "kmnist", epochs=1, validation=0.8)
    assert run.history[0]["val_auc"] > 0.8


@slow
def test_lenet5_on_mnist(train):
    run = train("mnist", "lenet5", seed=98)
    assert run.status.steps == 300
    assert accuracy(run) >= 0.96


@slow
def test_west_on_fashion_mnist(train):
    assert accuracy(train("fashion-mnist", "west")) >= 0.905


@slow
def test_eduonix_on_fashion_mnist(train):
    assert mean(accuracy(train("fashion-mnist", "eduonix", seed)) for seed in range(3)) >= 0.895


@slow
def test_mlp_on_mnist(train):
    assert accuracy(train("mnist", "mlp")) >= 0.977


@slow
def test_kmnist_stops_early_and_keeps_the_best(real_data, tmp_path, capsys):
    run = foveola.train(real_data / "kmnist-from-test", "kmnist", out=tmp_path / "run")
    status, history = run.status, run.history
    best = min(history, key=lambda row: row["val_loss"])
    assert status.chosen_epoch == best["epoch"] == status.epochs - status.recipe.patience
    assert status.epochs < status.recipe.epochs
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert len(lines) == status.epochs
    assert all("AUC 0.9" in line or "AUC 1.0" in line for line in lines)
    again = foveola.evaluate(run.path, real_data / "kmnist-from-test", split="validation", verbose=False)
    assert again.accuracy.value == pytest.approx(best["val_accuracy"])


@slow
def test_fast_on_mnist_in_one_epoch(train):
    assert mean(accuracy(train("mnist", "fast", seed, epochs=1)) for seed in range(3)) >= 0.993


@slow
def test_fast_on_fashion_mnist_in_five_epochs(train):
    assert accuracy(train("fashion-mnist", "fast", epochs=5)) >= 0.92


@slow
def test_a_real_image_folder(train, real_data):
    run = train(real_data / "folders" / "sign-language-digits", "fast")
    assert run.status.data.classes == [str(digit) for digit in range(10)]
    assert run.status.data.skipped == []
    assert accuracy(run) >= 0.95


@slow
@pytest.mark.parametrize(("data", "recipe"), [("mnist", "lenet5"), ("fashion-mnist", "west")])
def test_seeds_repeat_on_real_data(train, tmp_path, data, recipe):
    one = train(data, recipe, epochs=1).model_path.read_bytes()
    (tmp_path / f"{recipe}-0").rename(tmp_path / "first")
    assert train(data, recipe, epochs=1).model_path.read_bytes() == one
