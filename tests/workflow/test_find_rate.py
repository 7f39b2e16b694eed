"""`find_rate` and `train --find-rate`: what is read and written, what is printed, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import foveola
from foveola.errors import UserError
from foveola.images import Dataset, ImageSet
from foveola.recipe import load_recipe


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def found(data, recipe, **settings):
    return foveola.find_rate(data, recipe, verbose=False, **settings)


def test_page_and_plot_are_written_and_no_run(toy, tiny, tmp_path):
    curve = found(toy, tiny)
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [
        Path("rates/toy-tiny/learning_rate.html"),
        Path("rates/toy-tiny/learning_rate.png"),
    ]
    assert sorted(curve.files) == ["rates/toy-tiny/learning_rate.html", "rates/toy-tiny/learning_rate.png"]
    page = Path(curve.files[0]).read_text("utf-8")
    assert f"--set learning_rate={curve.suggestion:g}" in page
    assert "<svg" in page


def test_validation_and_test_images_do_not_matter(toy, tiny):
    random = np.random.default_rng(1)
    noise = ImageSet(random.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8), np.arange(30) % 3, toy.class_names)
    bars = toy.train.take(np.arange(0, 60, 2))
    first = found(Dataset("toy", toy.train, bars, bars), tiny)
    second = found(Dataset("toy", toy.train, noise, noise), tiny)
    assert first.losses == second.losses


def test_the_seed_decides(toy, tiny):
    assert found(toy, tiny, seed=1).losses == found(toy, tiny, seed=1).losses != found(toy, tiny, seed=2).losses


def test_with_muon_both_rates_are_suggested_in_the_recipes_ratio(toy):
    recipe = load_recipe("fast", {"batch_size": 16})
    curve = found(toy, recipe)
    names, values = zip(*(setting.split("=") for setting in curve.settings), strict=True)
    assert names == ("learning_rate", "muon_learning_rate")
    assert float(values[1]) / float(values[0]) == pytest.approx(recipe.muon_learning_rate / recipe.learning_rate, 0.05)


def test_a_network_that_was_given_stays_as_it_was(toy, tiny):
    from torch import nn

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = network[1].weight.clone()
    found(toy, tiny, network=network)
    assert bool((network[1].weight == before).all())


def test_initialised_from_a_model(toy, toy_run, tiny):
    anew, initialised = found(toy, tiny), found(toy, tiny, init=toy_run)
    assert initialised.losses[0] < anew.losses[0]


def test_nothing_is_suggested_where_nothing_can_be_learnt(toy, tiny):
    grey = replace(toy.train, images=np.full_like(toy.train.images, 128))
    curve = found(Dataset("grey", grey), tiny)
    assert curve.suggestion is None
    assert curve.settings == []
    assert "No suggestion" in Path(curve.files[0]).read_text("utf-8")


def test_a_folder_that_cannot_be_written_is_refused_before_the_data_is_read(toy_npz, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        found(tmp_path / "missing", tiny, out=tmp_path / "file" / "rates")
    with pytest.raises(UserError, match="--freeze"):
        found(toy_npz, tiny, freeze=True)


def test_the_command_prints_the_suggestion_and_the_line_to_use_it(foveola_command, toy_npz, tiny):
    code, out, err = foveola_command("train", toy_npz, "--recipe", tiny, "--find-rate", "--json", "--out", "rate")
    assert code == 0
    curve = json.loads(out)
    assert len(curve["learning_rates"]) == len(curve["losses"]) == len(curve["smoothed"])
    assert "range test on" in err
    code, out, _ = foveola_command("train", toy_npz, "--recipe", tiny, "--find-rate", "--out", "rate")
    assert code == 0
    assert f"--set learning_rate={curve['suggestion']:g}" in out
    line = out.partition("to train with it, add")[2].splitlines()[0].split()
    trained = foveola_command("train", toy_npz, "--recipe", tiny, "--out", "run", "--no-report", "--json", *line)
    assert trained.code == 0
    assert json.loads(trained.out)["recipe"]["learning_rate"] == curve["suggestion"]


@pytest.mark.parametrize(
    "option",
    [["--force"], ["--budget", "3s"], ["--resume", "run"], ["--reject", "0.01"], ["--checkpoint-every", "1s"]],
    ids=lambda option: option[0],
)
def test_options_that_do_not_fit_are_refused_by_name(foveola_command, toy_npz, tmp_path, option):
    code, out, err = foveola_command("train", toy_npz, "--find-rate", *option)
    assert (code, out) == (2, "")
    assert f"--find-rate does not train, so that {option[0]} cannot be given" in err
    assert not list(tmp_path.iterdir())
