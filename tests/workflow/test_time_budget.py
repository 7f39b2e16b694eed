"""A time budget: durations, the choice of a length, and that the run can be repeated exactly."""

import importlib
import time

import numpy as np
import pytest
import torch

import foveola
from foveola.errors import UserError
from foveola.images import ImageSet
from foveola.recipe import load_recipe
from foveola.training import speed
from foveola.workflow.budget import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("60", 60), ("1.5m", 90), ("2 min", 120), ("1h", 3600), (" 5M ", 300)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "0s", "5 fortnights", "1e3s", "nan", "s"])
def test_what_is_no_duration(text):
    with pytest.raises(UserError, match="no duration"):
        parse_duration(text)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return ImageSet(generator.integers(0, 256, (640, 8, 8, 1), dtype=np.uint8), np.arange(640) % 4, tuple("abcd"))


def _choose(monkeypatch, images, recipes, seconds, speeds, inferences=(0, 0)):
    """With made-up speeds, by the recipes' names, and a clock that stands still."""
    monkeypatch.setattr(speed, "measure", lambda recipe, *_: speeds[recipe.name])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: 100.0)
    cpu = torch.device("cpu")
    return speed.choose_length(recipes, images, inferences, 100.0 + seconds, device=cpu, flip=False)


def test_steps_fill_the_time_that_inference_leaves(monkeypatch, images):
    recipe = load_recipe("fast", {"batch_size": 64})  # ten batches an epoch
    speeds = {"fast": speed.Speed(step=0.01, image=0.001)}
    chosen = _choose(monkeypatch, images, [(recipe, 0.0)], 10.0, speeds, inferences=(50, 500))
    # 0.5 s go to the end, 0.05 s to each epoch's validation: 0.005 s a step
    assert chosen.steps == int(9.5 / 0.015)


def test_the_largest_network_that_is_worth_its_time(monkeypatch, images):
    small, large = (load_recipe("fast", {"name": name, "batch_size": 64}) for name in ("fast", "large"))
    speeds = {"fast": speed.Speed(0.01, 0.0), "large": speed.Speed(0.1, 0.0)}
    candidates = [(small, 0.0), (large, 5.0)]
    assert _choose(monkeypatch, images, candidates, 4.0, speeds).name == "fast"  # 40 steps would be 4 epochs
    assert _choose(monkeypatch, images, candidates, 6.0, speeds).name == "large"


def test_what_cannot_be_worth_its_time_is_not_measured(monkeypatch, images):
    small, large = (load_recipe("fast", {"name": name, "batch_size": 64}) for name in ("fast", "large"))
    speeds = {"fast": speed.Speed(0.1, 0.0)}  # 40 steps: 4 epochs; asking for the speed of large would fail
    assert _choose(monkeypatch, images, [(small, 0.0), (large, 5.0)], 4.0, speeds).name == "fast"


def test_without_a_name_the_budget_chooses_the_recipe(monkeypatch, tmp_path, tiny):
    offered = []

    def choose(candidates, *_, **__):
        offered.append([recipe.name for recipe, _ in candidates])
        return candidates[0][0].model_copy(update={"steps": 1, "minimum_steps": 0})

    monkeypatch.setattr(importlib.import_module("foveola.workflow.train"), "within_budget", choose)
    shifted = foveola.train("digits", budget=9, overrides={"augment.shift": 1}, out=tmp_path / "a", verbose=False)
    foveola.train("digits", tiny, budget=9, out=tmp_path / "b", verbose=False)
    assert offered == [["fast", "strong", "best"], [load_recipe(tiny).name]]
    assert shifted.status["recipe"]["augment"]["shift"] == 1


def test_there_is_always_something_to_learn(monkeypatch, images):
    speeds = {"fast": speed.Speed(0.01, 0.0)}
    chosen = _choose(monkeypatch, images, [(load_recipe("fast"), 0.0)], -1.0, speeds)
    assert chosen.steps == speed.FEWEST_STEPS


def test_the_measured_speed_is_that_of_steps_and_images(images):
    start = time.perf_counter()
    measured = speed.measure(load_recipe("fast"), images, torch.device("cpu"), False)
    whole = time.perf_counter() - start
    assert 0 < measured.step * speed.TIMED_STEPS < whole
    assert 0 < measured.image * speed.TIMED_IMAGES < whole


def test_a_budgeted_run_says_its_steps_and_repeats(tmp_path):
    first = foveola.train("digits", budget=6.0, out=tmp_path / "first", verbose=False)
    steps = first.status["recipe"]["steps"]
    assert first.status["steps"] == steps
    recipe = first.recipe
    last = recipe.learning_rate / (steps + 1) / (1 - recipe.warmup)
    assert first.history[-1]["learning_rate"] == pytest.approx(last)  # annealed to the end
    assert not (first.path / "report.html").exists()  # `foveola report` writes it when there is time
    again = foveola.train("digits", first.path / "recipe.toml", out=tmp_path / "again", verbose=False)
    assert again.status["steps"] == steps
    assert again.model_path.read_bytes() == first.model_path.read_bytes()


def test_the_command_takes_one_length(foveola_command):
    code, _, err = foveola_command("train", "digits", "--budget", "5s", "--epochs", "3")
    assert code == 2
    assert "--budget and --epochs" in err
    code, _, err = foveola_command("train", "digits", "--budget", "soon")
    assert code == 2
    assert "60s" in err
