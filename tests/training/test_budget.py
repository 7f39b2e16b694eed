"""Time budgets: durations, the choice of a recipe and its number of steps, and repeatable runs."""

import time

import numpy as np
import pytest
import torch

import foveola
from foveola.cli.options import parse_duration
from foveola.datasets.splits import Splits
from foveola.errors import UserError
from foveola.images import ImageSet
from foveola.models.shapes import infer_shapes
from foveola.recipe import load_recipe
from foveola.training import budget


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("60", 60), ("1.5m", 90), ("2 min", 120), ("1h", 3600), (" 5M ", 300)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "0s", "5 fortnights", "1e3s", "nan", "s"])
def test_other_texts_are_refused_as_durations(text):
    with pytest.raises(UserError, match="is not a duration"):
        parse_duration(text)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return ImageSet(generator.integers(0, 256, (640, 8, 8, 1), dtype=np.uint8), np.arange(640) % 4, tuple("abcd"))


def choose(monkeypatch, images, candidates, seconds, speeds, inferences=(0, 0)):
    """`choose_steps` with given speeds, by recipe name, and a clock that stands still."""
    monkeypatch.setattr(budget, "measure_speed", lambda recipe, *_: speeds[recipe.name])
    monkeypatch.setattr(budget.time, "perf_counter", lambda: 100.0)
    cpu = torch.device("cpu")
    return budget.choose_steps(candidates, images, lambda recipe: inferences, 100.0 + seconds, device=cpu, flip=False)


def test_steps_fill_the_time_that_inference_leaves(monkeypatch, images):
    recipe = load_recipe("fast", {"batch_size": 64})  # ten batches an epoch
    speeds = {"fast": budget.TrainingSpeed(step=0.01, image=0.001)}
    chosen = choose(monkeypatch, images, [(recipe, 0.0)], 10.0, speeds, inferences=(50, 500))
    # inference takes 0.5 s at the end and 0.05 s after each epoch, which is 0.005 s for each step
    assert chosen.steps == int(9.5 / 0.015)


def test_the_largest_network_that_gets_its_fewest_epochs_is_chosen(monkeypatch, images):
    small, large = (load_recipe("fast", {"name": name, "batch_size": 64}) for name in ("fast", "large"))
    speeds = {"fast": budget.TrainingSpeed(0.01, 0.0), "large": budget.TrainingSpeed(0.1, 0.0)}
    candidates = [(small, 0.0), (large, 5.0)]
    assert choose(monkeypatch, images, candidates, 4.0, speeds).name == "fast"  # 40 steps would be 4 epochs
    assert choose(monkeypatch, images, candidates, 6.0, speeds).name == "large"


def test_a_network_that_cannot_get_its_fewest_epochs_is_not_measured(monkeypatch, images):
    small, large = (load_recipe("fast", {"name": name, "batch_size": 64}) for name in ("fast", "large"))
    speeds = {"fast": budget.TrainingSpeed(0.1, 0.0)}  # 40 steps: 4 epochs; the speed of "large" is missing
    assert choose(monkeypatch, images, [(small, 0.0), (large, 5.0)], 4.0, speeds).name == "fast"


def test_a_network_of_ones_own_needs_no_layers_that_fit_the_data():
    images = ImageSet(np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2, ("a", "b"))
    recipe = load_recipe("best")  # whose layers need larger images
    with pytest.raises(UserError):
        infer_shapes(recipe.layers, images.image_shape, 2)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    chosen = budget.fit_to_budget(
        [(recipe, 0.0)], Splits(images, None, images), time.perf_counter() + 1, 0.0,
        device=torch.device("cpu"), flip=False, network=network,
    )  # fmt: skip
    assert chosen.steps >= budget.MIN_STEPS


@pytest.mark.slow
def test_without_a_recipe_the_budget_chooses_one(monkeypatch, tmp_path, tiny):
    offered = []

    def choose_first(candidates, *_, **__):
        offered.append([recipe.name for recipe, _ in candidates])
        return candidates[0][0].model_copy(update={"steps": 1, "minimum_steps": 0})

    monkeypatch.setattr(budget, "fit_to_budget", choose_first)
    shifted = foveola.train("digits", budget=9, overrides={"augment.shift": 1}, out=tmp_path / "a", verbose=False)
    foveola.train("digits", tiny, budget=9, out=tmp_path / "b", verbose=False)
    assert offered == [["fast", "strong", "best"], [load_recipe(tiny).name]]
    assert shifted.status.recipe.augment.shift == 1


def test_there_is_a_minimum_number_of_steps(monkeypatch, images):
    speeds = {"fast": budget.TrainingSpeed(0.01, 0.0)}
    chosen = choose(monkeypatch, images, [(load_recipe("fast"), 0.0)], -1.0, speeds)
    assert chosen.steps == budget.MIN_STEPS


def test_speed_is_measured_for_steps_and_images(images):
    start = time.perf_counter()
    speed = budget.measure_speed(load_recipe("fast"), images, torch.device("cpu"), False)
    total = time.perf_counter() - start
    assert 0 < speed.step * budget.TIMED_STEPS < total
    assert 0 < speed.image * budget.TIMED_IMAGES < total


def test_a_budgeted_run_records_its_steps_and_repeats(tmp_path):
    first = foveola.train("digits", budget=4.0, out=tmp_path / "first", verbose=False)
    steps = first.status.recipe.steps
    assert first.status.steps == steps
    recipe = first.recipe
    last = recipe.learning_rate / (steps + 1) / (1 - recipe.warmup)
    assert first.history[-1]["learning_rate"] == pytest.approx(last)  # the schedule has run to its end
    assert not (first.path / "report.html").exists()  # left to `foveola report`
    again = foveola.train("digits", first.path / "recipe.toml", out=tmp_path / "again", verbose=False)
    assert again.status.steps == steps
    assert again.model_path.read_bytes() == first.model_path.read_bytes()


def test_the_command_takes_either_a_budget_or_epochs(foveola_command):
    code, _, err = foveola_command("train", "digits", "--budget", "5s", "--epochs", "3")
    assert code == 2
    assert "--budget and --epochs" in err
    code, _, err = foveola_command("train", "digits", "--budget", "soon")
    assert code == 2
    assert "60s" in err
