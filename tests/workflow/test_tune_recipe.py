"""Tuning: validation only, the start is the first trial, pruning, interruptions, several processes, what is written."""

import csv
import importlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("optuna")

import foveola
from foveola.documents import Tuning
from foveola.errors import DataError, Failure, OutputError, RecipeError, UserError
from foveola.images import Dataset
from foveola.training import cross_validation
from foveola.training.search_space import parse_space
from foveola.workflow import trials

SPACE = {
    "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "batch_size": {"choices": [8, 16]},
    "augment": {"shift": {"low": 0, "high": 1}},
}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Pages and plots take seconds; tests/reports has them."""
    monkeypatch.setattr(importlib.import_module("foveola.workflow.fit_run"), "_write_page", lambda *arguments: None)
    monkeypatch.setattr("foveola.reports.plots.plot_run", lambda *arguments, **options: None)
    monkeypatch.setattr("foveola.reports.tuning.tuning_page", lambda document: document.judged_by)
    monkeypatch.setattr("foveola.workflow.tune._importances", lambda study: {})


@pytest.fixture
def tune(toy, tiny, tmp_path):
    def run(data=toy, **options):
        given = {"space": SPACE, "out": tmp_path / "out", "trials": 3, "folds": 2, "verbose": False} | options
        return foveola.tune(data, tiny, **given)

    return run


def test_the_folder_holds_the_best_recipe_its_run_and_every_trial(tune, toy, tmp_path):
    document = tune(trials=5)
    out = tmp_path / "out"
    assert Tuning.from_json((out / "tuning.json").read_text(), "tuning.json") == document
    assert [trial.number for trial in document.trials] == list(range(5))
    assert document.trials[0].start
    assert document.trials[0].values == {"learning_rate": 0.01, "batch_size": 16, "augment.shift": 0}
    complete = [trial for trial in document.trials if trial.state == "complete"]
    assert document.best.value == min(trial.value for trial in complete) <= document.start.value
    assert all(trial.value == pytest.approx(np.mean(trial.scores)) for trial in complete)
    assert all(len(trial.scores) == 2 for trial in complete)
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(5))
    assert [float(row["learning_rate"]) for row in rows] == [t.values["learning_rate"] for t in document.trials]
    best = foveola.load_recipe(out / "best.toml")
    assert (best.name, best.learning_rate) == ("tiny-tuned", document.best.values["learning_rate"])
    run = foveola.Run.open(out / "run")
    assert (run.status.recipe, run.status.seed) == (best, 1)
    assert document.evaluation == run.evaluation
    again = foveola.train(toy, out / "best.toml", seed=1, out=tmp_path / "again", report=False, verbose=False)
    assert again.evaluation == run.evaluation


def test_no_trial_sees_the_test_images(toy, tiny, tmp_path, monkeypatch):
    marked = replace(toy.train, images=np.full_like(toy.train.images, 255)).take(np.arange(0, 60, 4))
    seen = []

    def spy(images, folds, *arguments, **options):
        seen.append(images)
        assert not (images.images == 255).all(axis=(1, 2, 3)).any()
        return cross_validation.cross_validate(images, folds, *arguments, **options)

    monkeypatch.setattr(trials, "cross_validate", spy)
    given = Dataset("given", toy.train, test=marked)
    foveola.tune(given, tiny, space=SPACE, out=tmp_path / "given", trials=1, folds=2, verbose=False)
    foveola.tune(toy, tiny, space=SPACE, out=tmp_path / "drawn", trials=1, folds=2, verbose=False)
    drawn = foveola.datasets.splits.divide(toy, 0.2, 0.2, 0)[0]
    test_images = {image.tobytes() for image in drawn.test.images}
    assert len(seen[-1]) == 48
    assert not test_images & {image.tobytes() for image in seen[-1].images}


def judge_of(data, tiny, folds=None, repeats=1):
    return trials.Judge.of(data, foveola.load_recipe(tiny), folds, repeats, "log_loss", 0, torch.device("cpu"))


def test_validation_images_of_the_data_judge_if_they_are_many_and_folds_otherwise(toy, tiny, monkeypatch):
    halves = Dataset("halves", toy.train.take(np.arange(0, 60, 2)), validation=toy.train.take(np.arange(1, 60, 2)))
    few = judge_of(halves, tiny)
    assert (few.fold_count, len(few.folds)) == (5, 5)
    assert "30, fewer than 1,000" in few.description
    monkeypatch.setattr(trials, "MIN_HELD_OUT", 9)
    given = judge_of(halves, tiny)
    assert given.description == "Judged by the 30 validation images of the data"
    (fold,) = given.folds
    assert np.array_equal(given.images.images[fold.held_out], halves.validation.images)
    drawn = judge_of(toy, tiny)
    assert drawn.description == "Judged by 9 of 48 training images, which are held out"
    assert len(drawn.folds) == 1
    assert len(judge_of(toy, tiny, folds=3, repeats=2).folds) == 6


def test_groups_and_copies_stay_on_one_side_of_every_fold(toy, tiny):
    pixels = toy.train.images.copy()
    pixels[10] = pixels[1]  # joins two groups
    judge = judge_of(Dataset("grouped", replace(toy.train, images=pixels, groups=np.arange(60) // 3)), tiny)
    for fold in judge.folds:
        groups = judge.images.groups
        assert not set(groups[fold.train]) & set(groups[fold.held_out])
        sides = [{image.tobytes() for image in judge.images.images[side]} for side in (fold.train, fold.held_out)]
        assert not sides[0] & sides[1]


def values_of(document):
    return [(trial.values, trial.value, trial.state) for trial in document.trials]


def test_a_search_is_repeatable_and_goes_on_where_it_was(tune, tmp_path):
    whole = tune(trials=4)
    tune(out=tmp_path / "parts", trials=2)
    assert values_of(tune(out=tmp_path / "parts", trials=4)) == values_of(whole)
    assert values_of(tune(out=tmp_path / "seed", trials=4, seed=1)) != values_of(whole)


def test_a_finished_study_trains_nothing_again(tune, monkeypatch):
    before = tune()
    monkeypatch.setattr(trials, "cross_validate", lambda *arguments, **options: pytest.fail("a trial"))
    monkeypatch.setattr(importlib.import_module("foveola.workflow.tune"), "train", lambda *a, **o: pytest.fail("a run"))
    after = tune()
    assert (after.trials, after.evaluation) == (before.trials, before.evaluation)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupted_trial_is_the_next_one(tune, monkeypatch, number, error):
    # A library that another test has used in this process may have left a handler of its own
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    calls = []

    def stop(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(number)
        return cross_validation.cross_validate(*arguments, **options)

    monkeypatch.setattr(trials, "cross_validate", stop)
    with pytest.raises(error):
        tune()
    document = tune()
    assert [trial.state for trial in document.trials] == ["complete", "failed", "complete", "complete"]
    assert document.trials[1].values == document.trials[2].values


def test_divergence_and_lack_of_memory_end_a_trial_not_the_search(tune, monkeypatch):
    document = tune(
        space={"learning_rate": {"low": 0.001, "high": 1e38, "log": True}, "optimizer": {"choices": ["adam", "sgd"]}},
        trials=5,
    )
    diverged = [trial for trial in document.trials if trial.reason and "not finite" in trial.reason]
    assert diverged
    assert all(trial.state == "pruned" for trial in diverged)
    assert document.best.value <= document.start.value
    calls = []

    def short(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return cross_validation.cross_validate(*arguments, **options)

    monkeypatch.setattr(trials, "cross_validate", short)
    reasons = [trial.reason for trial in tune(study_name="memory").trials]
    assert reasons == [None, "out of memory", None]


def test_a_bug_ends_the_search(tune, monkeypatch):
    monkeypatch.setattr(trials, "cross_validate", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune()


def test_without_any_complete_trial_the_message_says_why(tune):
    with pytest.raises(Failure, match=r"No trial came to an end: .*not finite.*another recipe"):
        tune(overrides={"optimizer": "sgd", "learning_rate": 1e38}, trials=1, space=None)


def test_a_trial_that_lags_behind_is_pruned_but_never_the_start(tune, monkeypatch):
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: True)
    document = tune(overrides={"epochs": 10})
    assert [trial.state for trial in document.trials] == ["complete", "pruned", "pruned"]
    assert document.trials[1].reason == "pruned at 5%"
    assert document.best.start


def test_a_budget_ends_the_search_after_one_complete_trial_at_least(tune):
    document = tune(trials=None, budget=0.01)
    assert [trial.state for trial in document.trials if trial.state != "waiting"] == ["complete"]
    assert document.run is not None


def test_while_another_process_is_at_it_the_run_is_left_to_that(tune, tmp_path):
    import optuna

    from foveola.workflow.study import ask, file_url

    tune(trials=1)
    storage = optuna.storages.RDBStorage(file_url(tmp_path / "out" / "study.db"))
    ask(optuna.load_study(study_name="toy-tiny", storage=storage), parse_space(SPACE))
    storage.engine.dispose()
    document = tune(trials=3)
    assert (document.run, document.evaluation) == (None, None)


def test_other_data_or_another_space_is_refused_by_name(tune, toy, tmp_path):
    tune(trials=1)
    with pytest.raises(UserError, match="differs in: search space"):
        tune(space={"learning_rate": {"low": 0.001, "high": 0.2, "log": True}})
    with pytest.raises(UserError, match="differs in: seed"):
        tune(seed=3)
    other = replace(toy, train=toy.train.take(np.arange(1, 60)))
    with pytest.raises(UserError, match="differs in: data"):
        tune(data=other)


def test_what_cannot_be_used_is_refused_before_anything_is_written(tune, toy_npz, tmp_path):
    for options, error, message in (
        ({"trials": 0}, UserError, "trials is 0"),
        ({"budget": 0}, UserError, "budget is 0"),
        ({"folds": 1}, UserError, "folds is 1"),
        ({"folds": None, "repeats": 2}, UserError, "needs folds"),
        ({"objective": "auc"}, UserError, "log_loss or accuracy"),
        ({"groups": "(.+)_"}, DataError, "loaded Dataset"),
        ({"space": {"layers": {"choices": [1, 2]}}}, RecipeError, "layers cannot be tuned"),
        ({"study": "nonsense"}, UserError, "cannot be opened"),
    ):
        with pytest.raises(error, match=message):
            tune(**options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files, but no tuning"):
        tune(out=tmp_path / "full")


def test_accuracy_is_maximised(tune):
    document = tune(objective="accuracy", trials=4)
    assert document.best.value == max(trial.value for trial in document.trials if trial.state == "complete")
    assert 0 <= document.best.value <= 1


@pytest.mark.slow
def test_two_processes_share_one_study_and_one_that_is_killed_is_made_up_for(toy_npz, tiny, tmp_path):
    (tmp_path / "space.toml").write_text("learning_rate = { low = 0.001, high = 0.1, log = true }\n")
    command = [
        sys.executable, "-m", "foveola", "tune", toy_npz, "--recipe", tiny, "--space", tmp_path / "space.toml",
        "--trials", "40", "--folds", "3", "--set", "epochs=40", "--out", tmp_path / "out", "--threads", "1", "--quiet",
    ]  # fmt: skip
    first, second = (subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) for _ in range(2))
    database = tmp_path / "out" / "study.db"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and _finished(database) < 6:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    done = subprocess.run(list(map(str, [*command, "--json"])), capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    states = [trial["state"] for trial in document["trials"]]
    assert states.count("complete") + states.count("pruned") in (40, 41)
    assert "running" not in states
    assert states.count("failed") <= 1
    assert len({str(trial["values"]) for trial in document["trials"]}) >= 40
    assert document["evaluation"]["n"] == 12


def _finished(database):
    import sqlite3

    if not database.exists():
        return 0
    try:
        with sqlite3.connect(database, timeout=10) as connection:
            (count,) = connection.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()
        connection.close()
    except sqlite3.OperationalError:  # the tables are being made
        return 0
    return count
