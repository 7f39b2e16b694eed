"""Callbacks: resuming, tested for all of them, and the behaviour of each one."""

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

from foveola.evaluation.auc import auc_macro_ovr
from foveola.training import callbacks
from foveola.training.build import build_classifier
from foveola.training.callbacks import (
    BestWeights,
    Callback,
    CsvLog,
    EarlyStopping,
    ElapsedTime,
    History,
    LearningRate,
    ProgressBar,
    ValidationMetric,
)
from foveola.training.loop import Fit

LOSSES = [1.0, 0.6, 0.7, 0.5, 0.55, 0.54, 0.53, 0.4]

FACTORIES = {
    Callback: lambda folder: Callback(),
    ValidationMetric: lambda folder: ValidationMetric("val_auc", lambda predictions: auc_macro_ovr(predictions).value),
    LearningRate: lambda folder: LearningRate(),
    ElapsedTime: lambda folder: ElapsedTime(),
    History: lambda folder: History(),
    CsvLog: lambda folder: CsvLog(History(), folder / "history.csv"),
    BestWeights: lambda folder: BestWeights("val_loss"),
    EarlyStopping: lambda folder: EarlyStopping("val_loss", patience=3, restore=True),
    ProgressBar: lambda folder: ProgressBar(Console(file=io.StringIO(), force_terminal=False)),
}


def callback_classes(base=Callback):
    return [base, *(child for direct in base.__subclasses__() for child in callback_classes(direct))]


@pytest.fixture
def fit(toy, recipe_of):
    recipe = recipe_of(epochs=len(LOSSES))
    return Fit(recipe, build_classifier(recipe, toy(), 0), toy(), toy(30, seed=1), len(LOSSES), 3 * len(LOSSES), 3)


def play_epoch(callback, fit, epoch):
    """An epoch whose weights equal its number and whose metrics are given."""
    fit.epoch = fit.best_epoch = epoch
    validation = {"val_loss": LOSSES[epoch - 1], "val_accuracy": 1 - LOSSES[epoch - 1] / 2}
    fit.metrics = {"loss": 2 / epoch, "accuracy": 1 - 1 / epoch, **validation}
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
    """A state after strict JSON and a tensor file."""
    if isinstance(value, dict):
        return {key: through_a_file(inner) for key, inner in value.items()}
    return value.clone() if isinstance(value, Tensor) else json.loads(json.dumps(value, allow_nan=False))


def test_every_callback_is_tested():
    assert {kind for kind in callback_classes() if kind.__module__ == callbacks.__name__} == set(FACTORIES)


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_callback_resumes_with_the_result_of_an_uninterrupted_training(kind, fit, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])

    def follow(callback, first, last):
        """Play epochs `first` to `last`, each taking 2 s, and return the metrics and stops after each."""
        callback.on_fit_start(fit)
        results = []
        for epoch in range(first, last + 1):
            clock[0] += 2
            play_epoch(callback, fit, epoch)
            results.append((dict(fit.metrics), fit.stop))
        return results

    def end(callback):
        callback.on_fit_end(fit)
        written = [path.read_text() for path in tmp_path.iterdir()]
        return weight(fit), fit.best_epoch, getattr(callback, "rows", None), written

    uninterrupted = FACTORIES[kind](tmp_path)
    expected = follow(uninterrupted, 1, 8)[4:], end(uninterrupted)

    fit.step, fit.stop = 0, False
    first = FACTORIES[kind](tmp_path)
    follow(first, 1, 4)
    state = through_a_file(first.state_dict())
    clock[0] += 1000  # the time between interruption and resumption does not count
    second = FACTORIES[kind](tmp_path)
    second.load_state_dict(state)
    if isinstance(second, CsvLog):
        second.history.load_state_dict(first.history.state_dict())
    fit.stop = False
    assert (follow(second, 5, 8), end(second)) == expected


def test_history_has_one_row_per_epoch(toy, recipe_of, train):
    history = History()
    train(recipe_of(epochs=3), toy(), toy(30, seed=1), callbacks=[LearningRate(), history])
    assert [(row["epoch"], row["step"]) for row in history.rows] == [(1, 3), (2, 6), (3, 9)]
    assert list(history.rows[0]) == [
        "epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate",
    ]  # fmt: skip
    assert history.rows[0]["learning_rate"] == 0.01


def test_the_csv_file_is_the_history(toy, recipe_of, train, tmp_path):
    history, path = History(), tmp_path / "history.csv"
    train(recipe_of(epochs=4), toy(), toy(30, seed=1), callbacks=[history, CsvLog(history, path)])
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == history.rows


def test_the_csv_file_takes_metrics_that_only_some_epochs_have(toy, recipe_of, train, tmp_path):
    class EveryOther(Callback):
        def on_epoch_end(self, fit):
            if fit.epoch % 2:
                fit.metrics["f1"] = 0.5

    history, path = History(), tmp_path / "history.csv"
    train(recipe_of(epochs=4), toy(), callbacks=[EveryOther(), history, CsvLog(history, path)])
    assert [row["f1"] for row in csv.DictReader(io.StringIO(path.read_text()))] == ["0.5", "", "0.5", ""]


def test_the_auc_of_an_epoch_matches_scikit_learn(toy, recipe_of, train):
    results, validation = [], toy(60, seed=1)

    class Compare(Callback):
        def on_epoch_end(self, fit):
            logits = fit.classifier.predict_logits(validation.images).astype(np.float64)
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            expected = roc_auc_score(validation.labels, probabilities, multi_class="ovr", average="macro")
            results.append((fit.metrics["val_auc"], expected))

    auc = ValidationMetric("val_auc", lambda predictions: auc_macro_ovr(predictions).value)
    train(recipe_of(epochs=3, learning_rate=1e-3), toy(), validation, callbacks=[auc, Compare()])
    values, expected = zip(*results, strict=True)
    assert values == pytest.approx(expected, rel=1e-9)
    assert values[0] != values[2]


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
def test_best_weights_are_restored(monitor, min_delta, best, fit):
    callback = BestWeights(monitor, min_delta)
    for epoch in range(1, 9):
        play_epoch(callback, fit, epoch)
    callback.on_fit_end(fit)
    assert (fit.best_epoch, weight(fit)) == (best, [best])


def test_restored_weights_are_those_of_the_best_epoch(toy, recipe_of, train):
    weights = []

    class ThirdIsBest(Callback):
        def on_epoch_end(self, fit):
            weights.append([p.detach().clone() for p in fit.classifier.network.parameters()])
            fit.metrics["val_custom"] = -abs(fit.epoch - 3)

    fit = train(recipe_of(epochs=6), toy(), callbacks=[ThirdIsBest(), BestWeights("val_custom")])
    assert fit.best_epoch == 3
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
    assert weight(fit) == [fit.epoch]  # it restores weights only with restore=True


def test_early_stopping_and_best_weights_together(fit):
    callback = EarlyStopping("val_loss", patience=2, restore=True)
    for epoch in range(1, 7):
        play_epoch(callback, fit, epoch)
    callback.on_fit_end(fit)
    assert (fit.stop, fit.best_epoch, weight(fit)) == (True, 4, [4])


def test_a_metric_that_is_always_nan_keeps_the_last_weights(fit):
    callback = BestWeights("val_auc")
    for epoch in range(1, 4):
        fit.epoch, fit.metrics = epoch, {"val_auc": math.nan}
        callback.on_epoch_end(fit)
    fit.best_epoch = 3
    callback.on_fit_end(fit)
    assert fit.best_epoch == 3


def test_an_unknown_metric_is_named(fit):
    with pytest.raises(
        ValueError, match=r"Unknown metric 'val_f1'\. Available: loss, accuracy, val_loss, val_accuracy\."
    ):
        play_epoch(BestWeights("val_f1"), fit, 1)


def test_progress_without_a_terminal_is_one_line_per_epoch(toy, recipe_of, train):
    output = io.StringIO()
    progress = ProgressBar(Console(file=output, force_terminal=False, width=200))
    train(recipe_of(epochs=3, patience=1), toy(), toy(30, seed=1), callbacks=[progress])
    lines = output.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "validation loss" in lines[0]


def test_progress_reports_an_early_stop(toy, recipe_of, train):
    class StopAt(Callback):
        def on_epoch_end(self, fit):
            fit.stop = fit.epoch == 2

    output = io.StringIO()
    progress = ProgressBar(Console(file=output, force_terminal=True, width=200))
    train(recipe_of(epochs=5), toy(), callbacks=[StopAt(), progress])
    assert "stopped early after epoch 2; the weights of epoch 2 are kept" in output.getvalue()
    assert progress.bar is None
