"""Checkpoints: a training that goes on from one gives the same as without an interruption."""

import numpy as np
import pytest
import torch

import foveola
from foveola.errors import ModelError, OutputError
from foveola.training import checkpoint
from foveola.training.callbacks import BestWeights, Callback, EarlyStopping, History
from foveola.training.checkpoint import Checkpoint
from foveola.training.loop import fit

BUILD = {"torch": "2", "threads": "1"}


class Stop(Exception):
    """Stands for whatever ends a training."""


class StopAt(Callback):
    """Ends the training after a step, or at the end of an epoch."""

    def __init__(self, step=None, epoch=None):
        self.step, self.epoch = step, epoch

    def on_step_end(self, fit):
        if fit.step == self.step:
            raise Stop

    def on_epoch_end(self, fit):
        if fit.epoch == self.epoch:
            raise Stop


@pytest.fixture
def train(toy, tmp_path):
    """Train a small network, up to the stop if there is one, with a checkpoint after every step."""
    from foveola.training.build import build_classifier

    def run(overrides, stop=None, path=tmp_path / "state.safetensors", training="this", build=BUILD):
        options = {
            "layers": LAYERS,
            "epochs": 4,
            "batch_size": 16,
            "augment": {"shift": 1, "mixup": 0.2, "strength": 0.5},
        }
        recipe = foveola.load_recipe("mlp", options | overrides)
        training_images, validation = toy(39), toy(21, seed=1)
        classifier = build_classifier(recipe, training_images, 0)
        history, best = History(), EarlyStopping("val_loss", 2, restore=True)
        callbacks = [history, best, *([stop] if stop else [StopAt()])]
        said = []
        saver = Checkpoint(path, 0.0, training, build, announce=said.append)
        saver._pause = -1.0
        state = fit(
            classifier, training_images, validation, recipe, seed=3, device=torch.device("cpu"),
            precision=torch.float32, callbacks=callbacks, checkpoint=saver,
        )  # fmt: skip
        weights = {name: tensor.numpy().copy() for name, tensor in classifier.network.state_dict().items()}
        return weights, history.rows, (state.step, state.best_epoch, best.best), said

    return run


LAYERS = (
    {"type": "Conv2D", "filters": 4, "kernel": 3},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "Flatten"},
    {"type": "Dropout", "rate": 0.3},
    {"type": "Dense", "units": "classes"},
)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
@pytest.mark.parametrize("stop", [StopAt(step=2), StopAt(step=4), StopAt(epoch=2), StopAt(step=6)])
def test_a_resumed_training_is_the_same_bit_for_bit(train, tmp_path, optimizer, stop):
    whole = train({"optimizer": optimizer}, path=tmp_path / "whole.safetensors")
    with pytest.raises(Stop):
        train({"optimizer": optimizer}, stop)
    resumed = train({"optimizer": optimizer})
    assert resumed[3][0].startswith("going on after step")
    assert len(resumed[3]) == 1
    for name, weights in whole[0].items():
        np.testing.assert_array_equal(resumed[0][name], weights, err_msg=name)
    assert resumed[1:3] == whole[1:3]


def test_another_build_says_that_it_is_not_exact(train):
    with pytest.raises(Stop):
        train({}, StopAt(step=5))
    said = train({}, build={**BUILD, "threads": "2"})[3]
    assert said[1].startswith("not exact: threads 2 instead of 1")


def test_a_checkpoint_of_another_training_is_refused(train):
    with pytest.raises(Stop):
        train({}, StopAt(step=5))
    with pytest.raises(ModelError, match="belongs to another training"):
        train({}, training="another")
    with pytest.raises(ModelError, match="does not fit its training"):
        train({"optimizer": "sgd", "layers": [LAYERS[3], LAYERS[5]]})


def test_an_altered_checkpoint_is_refused(train, tmp_path):
    with pytest.raises(Stop):
        train({}, StopAt(step=5))
    path = tmp_path / "state.safetensors"
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(content), size=50):
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ModelError, match="is damaged"):
            train({})
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is damaged"):
        train({})


def test_a_full_disk_leaves_the_last_checkpoint_whole(train, monkeypatch, tmp_path):
    with pytest.raises(Stop):
        train({}, StopAt(step=5))

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(OutputError, match=r"No space left.* Make room; `foveola train --resume RUN`"):
            train({})
    assert train({})[1] == train({}, path=tmp_path / "whole.safetensors")[1]


class Counts(Callback):
    """State of every kind that may be saved."""

    def __init__(self):
        self.state = {"n": 0, "mean": np.float32(0.5), "rows": [np.arange(3), {"deep": (1, None, "a")}]}
        self.starts = 0

    def on_epoch_start(self, fit):
        self.starts += 1

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.loaded = state


def test_states_of_callbacks_are_nested_values_arrays_and_tensors():
    tensors = {}
    state = checkpoint._split({"t": torch.ones(2), **Counts().state}, "callback", tensors)
    joined = checkpoint._join(state, tensors)
    assert (joined["n"], joined["mean"], joined["rows"][1]) == (0, 0.5, {"deep": [1, None, "a"]})
    np.testing.assert_array_equal(joined["rows"][0], np.arange(3))
    assert joined["t"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("state", [{"a": object()}, {"a": {1: 2}}, {"a": {1, 2}}])
def test_a_state_that_cannot_be_saved_is_found_before_the_first_step(train, state):
    callback = Counts()
    callback.state = state
    callback.on_step_end = lambda fit: pytest.fail("a step was trained")
    with pytest.raises(TypeError, match="a callback's state"):
        train({}, callback)


def test_a_save_takes_at_most_a_hundredth_of_the_time(tmp_path, monkeypatch, train):
    saver = Checkpoint(tmp_path / "a", 30.0, "this", BUILD)
    assert saver._pause == 30.0
    clock = iter([0.0, 100.0, 107.0])
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(checkpoint, "_live_tensors", lambda *_: {})
    state = foveola.training.loop.Fit(None, None, None, None, 1, 1, 1)
    saver._started = 0.0
    next(clock)
    saver.save(state, None, [])
    assert saver._pause == pytest.approx(700.0)


def test_best_weights_are_those_of_the_whole_training(train, tmp_path):
    assert BestWeights().state_dict()["weights"] == {}
    with pytest.raises(Stop):
        train({"epochs": 8}, StopAt(epoch=7))
    resumed, whole = train({"epochs": 8}), train({"epochs": 8}, path=tmp_path / "whole.safetensors")
    assert resumed[2] == whole[2]
