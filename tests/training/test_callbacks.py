"""The contract of callbacks, swept over all of them, and what each one promises."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import roc_auc_score
from torch import Tensor

from foveola.evaluation.metrics import auc_macro_ovr
from foveola.models.classifier import new_classifier
from foveola.training import callbacks
from foveola.training.callbacks import (
    BestWeights,
    Callback,
    CsvLog,
    Duration,
    EarlyStopping,
    EpochMetric,
    History,
    LearningRate,
)
from foveola.training.loop import Fit
from foveola.training.progress import ProgressReport

LOSSES = [1.0, 0.6, 0.7, 0.5, 0.55, 0.54, 0.53, 0.4]

FACTORIES = {
    Callback: lambda folder: Callback(),
    EpochMetric: lambda folder: EpochMetric("val_auc", lambda predictions: auc_macro_ovr(predictions).value),
    LearningRate: lambda folder: LearningRate(),
    Duration: lambda folder: Duration(),
    History: lambda folder: History(),
    CsvLog: lambda folder: CsvLog(History(), folder / "history.csv"),
    BestWeights: lambda folder: BestWeights("val_loss"),
    EarlyStopping: lambda folder: EarlyStopping("val_loss", patience=3, restore=True),
}


def kinds(base=Callback):
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


@pytest.fixture
def fit(toy, recipe_of):
    recipe = recipe_of(epochs=len(LOSSES))
    return Fit(recipe, new_classifier(recipe, toy(), 0), toy(), toy(30, seed=1), len(LOSSES), 3 * len(LOSSES), 3)


def play_epoch(callback, fit, epoch):
    """An epoch whose weights are its number and whose figures are given."""
    fit.epoch = fit.chosen_epoch = epoch
    fit.metrics = {"loss": 2 / epoch, "val_loss": LOSSES[epoch - 1], "val_accuracy": 1 - LOSSES[epoch - 1] / 2}
    for parameter in fit.classifier.network.parameters():
        parameter.data.fill_(epoch)
    callback.on_epoch_start(fit)
    for _ in range(fit.steps_per_epoch):
        fit.step += 1
        fit.learning_rate = 1 / fit.step
        callback.on_step_end(fit)
    if isinstance(callback, CsvLog):
        callback.history.on_epoch_end(fit)
    callback.on_epoch_end(fit)


def weight(fit):
    return next(fit.classifier.network.parameters()).unique().tolist()


def through_a_file(value):
    """What strict JSON and a tensor file make of a state."""
    if isinstance(value, dict):
        return {key: through_a_file(inner) for key, inner in value.items()}
    return value.clone() if isinstance(value, Tensor) else json.loads(json.dumps(value, allow_nan=False))


def test_every_callback_is_swept():
    assert {kind for kind in kinds() if kind.__module__ == callbacks.__name__} == set(FACTORIES)


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_callback_goes_on_after_an_interruption_as_if_there_had_been_none(kind, fit, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])

    def follow(callback, first, last):
        """Epochs `first` to `last`, each taking 2 s; what the callback did in them."""
        callback.on_fit_start(fit)
        seen = []
        for epoch in range(first, last + 1):
            clock[0] += 2
            play_epoch(callback, fit, epoch)
            seen.append((dict(fit.metrics), fit.stop))
        return seen

    def end(callback):
        callback.on_fit_end(fit)
        written = [path.read_text() for path in tmp_path.iterdir()]
        return weight(fit), fit.chosen_epoch, getattr(callback, "rows", None), written

    whole = FACTORIES[kind](tmp_path)
    expected = follow(whole, 1, 8)[4:], end(whole)

    fit.step, fit.stop = 0, False
    first = FACTORIES[kind](tmp_path)
    follow(first, 1, 4)
    state = through_a_file(first.state_dict())
    clock[0] += 1000  # the time between the interruption and the new start is no training
    second = FACTORIES[kind](tmp_path)
    second.load_state_dict(state)
    if isinstance(second, CsvLog):
        second.history.load_state_dict(first.history.state_dict())
    fit.stop = False
    assert (follow(second, 5, 8), end(second)) == expected


def test_history_is_a_row_an_epoch(toy, recipe_of, learn):
    history = History()
    learn(recipe_of(epochs=3), toy(), toy(30, seed=1), callbacks=[LearningRate(), history])
    assert [(row["epoch"], row["step"]) for row in history.rows] == [(1, 3), (2, 6), (3, 9)]
    assert list(history.rows[0]) == [
        "epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate",
    ]  # fmt: skip
    assert history.rows[0]["learning_rate"] == 0.01


def test_the_csv_file_is_the_history(toy, recipe_of, learn, tmp_path):
    history, path = History(), tmp_path / "history.csv"
    learn(recipe_of(epochs=4), toy(), toy(30, seed=1), callbacks=[history, CsvLog(history, path)])
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == history.rows


def test_the_csv_file_takes_figures_that_only_some_epochs_have(toy, recipe_of, learn, tmp_path):
    class EveryOther(Callback):
        def on_epoch_end(self, fit):
            if fit.epoch % 2:
                fit.metrics["f1"] = 0.5

    history, path = History(), tmp_path / "history.csv"
    learn(recipe_of(epochs=4), toy(), callbacks=[EveryOther(), history, CsvLog(history, path)])
    assert [row["f1"] for row in csv.DictReader(io.StringIO(path.read_text()))] == ["0.5", "", "0.5", ""]


def test_the_epochs_auc_is_scikit_learns(toy, recipe_of, learn):
    seen, validation = [], toy(60, seed=1)

    class Compare(Callback):
        def on_epoch_end(self, fit):
            logits = fit.classifier.predict_logits(validation.images).astype(np.float64)
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            expected = roc_auc_score(validation.labels, shares, multi_class="ovr", average="macro")
            seen.append((fit.metrics["val_auc"], expected))

    auc = EpochMetric("val_auc", lambda predictions: auc_macro_ovr(predictions).value)
    learn(recipe_of(epochs=3, learning_rate=1e-3), toy(), validation, callbacks=[auc, Compare()])
    given, expected = zip(*seen, strict=True)
    assert given == pytest.approx(expected, rel=1e-9)
    assert given[0] != given[2]


@pytest.mark.parametrize(
    ("monitor", "min_delta", "best"),
    [
        ("val_loss", 0, 8),
        ("val_loss", 0.25, 2),
        ("val_loss", 0.45, 4),
        ("val_loss", 10, 1),
        ("val_accuracy", 0, 8),
        ("val_accuracy", 0.22, 4),
    ],
)
def test_best_weights_are_put_back(monitor, min_delta, best, fit):
    callback = BestWeights(monitor, min_delta)
    for epoch in range(1, 9):
        play_epoch(callback, fit, epoch)
    callback.on_fit_end(fit)
    assert (fit.chosen_epoch, weight(fit)) == (best, [best])


def test_best_weights_are_the_real_ones(toy, recipe_of, learn):
    weights = []

    class ThirdIsBest(Callback):
        def on_epoch_end(self, fit):
            weights.append([p.detach().clone() for p in fit.classifier.network.parameters()])
            fit.metrics["val_mine"] = -abs(fit.epoch - 3)

    fit = learn(recipe_of(epochs=6), toy(), callbacks=[ThirdIsBest(), BestWeights("val_mine")])
    assert fit.chosen_epoch == 3
    kept = list(fit.classifier.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights[2], kept, strict=True))
    assert not torch.equal(weights[5][0], kept[0])


@pytest.mark.parametrize(
    ("monitor", "patience", "min_delta", "stopped"),
    [
        ("val_loss", 1, 0, 3),
        ("val_loss", 2, 0, 6),
        ("val_loss", 3, 0, 7),
        ("val_loss", 4, 0, None),
        ("val_loss", 2, 0.3, 4),
        ("val_accuracy", 1, 0, 3),
        ("loss", 1, 0, None),
    ],
)
def test_early_stopping(monitor, patience, min_delta, stopped, fit):
    callback = EarlyStopping(monitor, patience, min_delta)
    for epoch in range(1, 9):
        play_epoch(callback, fit, epoch)
        if fit.stop:
            break
    assert (fit.epoch if fit.stop else None) == stopped
    callback.on_fit_end(fit)
    assert weight(fit) == [fit.epoch]  # restores only if told


def test_early_stopping_and_best_weights_together(fit):
    callback = EarlyStopping("val_loss", patience=2, restore=True)
    for epoch in range(1, 7):
        play_epoch(callback, fit, epoch)
    callback.on_fit_end(fit)
    assert (fit.stop, fit.chosen_epoch, weight(fit)) == (True, 4, [4])


def test_a_figure_that_is_never_a_number_keeps_the_last_weights(fit):
    callback = BestWeights("val_auc")
    for epoch in range(1, 4):
        fit.epoch, fit.metrics = epoch, {"val_auc": math.nan}
        callback.on_epoch_end(fit)
    fit.chosen_epoch = 3
    callback.on_fit_end(fit)
    assert fit.chosen_epoch == 3


def test_a_figure_that_is_not_there_is_named(fit):
    with pytest.raises(ValueError, match="No figure 'val_f1' to monitor; this epoch has: loss, val_loss, val_accuracy"):
        play_epoch(BestWeights("val_f1"), fit, 1)


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(toy, recipe_of, learn):
    screen = io.StringIO()
    report = ProgressReport(Console(file=screen, force_terminal=False, width=200))
    learn(recipe_of(epochs=3, patience=1), toy(), toy(30, seed=1), callbacks=[report])
    lines = screen.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "validation loss" in lines[0]


def test_progress_says_that_training_stopped_early(toy, recipe_of, learn):
    class StopAt(Callback):
        def on_epoch_end(self, fit):
            fit.stop = fit.epoch == 2

    screen = io.StringIO()
    report = ProgressReport(Console(file=screen, force_terminal=True, width=200))
    learn(recipe_of(epochs=5), toy(), callbacks=[StopAt(), report])
    assert "stopped early after epoch 2; the weights of epoch 2 are kept" in screen.getvalue()
    assert report.bar is None
