"""Checkpoints: everything that a training needs to go on as if it had never been interrupted.

A checkpoint is one safetensors file: weights, optimizer state and callbacks' tensors, and beside them, as JSON in its
metadata, the position and all other state. It carries its own checksum, and takes the place of the earlier one in a
single step once it is whole on the disk. Schedule, order of images and augmentation need no state: they are functions
of seed, epoch and step.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveola.errors import ModelError
from foveola.files import write_atomically, writing
from foveola.sealed import header_bytes, seal, unsealed, verify_seal
from foveola.training.callbacks import Callback
from foveola.training.distributed import ALONE, Processes
from foveola.training.stopping import StopSignals

if TYPE_CHECKING:
    from foveola.training.loop import Fit
    from foveola.training.step import TrainStep

FORMAT = 1
_KEY = "foveola.checkpoint"
# A save may take this fraction of the time since the last one
_SHARE = 0.01
# After a training's last step nothing is saved that is repeated sooner than it is worth writing
_WORTH_SAVING_SECONDS = 2.0
_FIT = ("epoch", "step", "learning_rate", "metrics", "stop", "best_epoch", "epoch_ended")


class Checkpoint:
    """Saves the state of a training every so often and when it is told to end, and restores it.

    Parameters
    ----------
    path : the file
    every : seconds between saves; longer where a save takes more than a hundredth of them
    training : identifies the training: a checkpoint of another one is refused
    build : versions, threads and other circumstances that decide the last bits of a result
    signals : a noted signal ends the training at its next step, saved
    processes : those that train together: process 0 saves, and all go on from what it reads
    announce : gets a line about where the training goes on, and one if its result will not be the same bit for bit

    Attributes
    ----------
    seconds : how long the training took before it was restored
    """

    def __init__(
        self,
        path: Path,
        every: float,
        training: str,
        build: Mapping[str, str],
        signals: StopSignals | None = None,
        processes: Processes = ALONE,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path, self.every = path, every
        self.training, self.build = training, dict(build)
        self.signals, self.processes, self.announce = signals, processes, announce
        self.seconds = 0.0
        self._started = self._saved = time.monotonic()
        self._pause = every

    def restore(self, fit: "Fit", step: "TrainStep", callbacks: Sequence[Callback]) -> bool:
        """Put a training into the state of the file; False if there is none yet.

        Raises
        ------
        ModelError
            If the file is damaged or of another training.
        TypeError
            If a callback's state cannot be saved.
        """
        self._started = self._saved = time.monotonic()
        _states(callbacks, {})  # what cannot be saved is found before the first step
        content = None
        with self.processes.together():
            if self.processes.leads and self.path.is_file():
                content = _read(self.path)
        content = self.processes.from_leader(content)
        if content is None:
            return False
        tensors, state = _parse(content, self.path)
        if state.get("training") != self.training:
            raise ModelError(
                f"{self.path} belongs to another training: its recipe, seed or data differ from those in its folder. "
                f"Put the folder's own file back, or train again with --force."
            )
        try:
            _copy(tensors, _live_tensors(fit, step))
            for name, value in _join(state["fit"], tensors).items():
                setattr(fit, name, value)
            for callback, saved in zip(callbacks, state["callbacks"], strict=True):
                callback.load_state_dict(_join(saved, tensors))
            _set_random_state(_join(state["random"], tensors))
            before, self.seconds = dict(state["build"]), float(state["seconds"])
            position = f"going on after step {fit.step:,} of {fit.steps:,}"
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ModelError(
                f"{self.path} does not fit its training ({error}): a checkpoint can only be resumed with the same "
                f"network and callbacks. Give them as they were, or train again with --force."
            ) from None
        self.announce(position)
        if differences := [
            f"{name} {self.build.get(name)} instead of {value}"
            for name, value in before.items()
            if self.build.get(name) != value
        ]:
            self.announce(f"not exact: {', '.join(differences)}; the last bits of the weights may differ")
        return True

    def after_step(self, fit: "Fit", step: "TrainStep", callbacks: Sequence[Callback]) -> None:
        """Save if it is time; if a signal has come, save and end.

        Raises
        ------
        KeyboardInterrupt, SystemExit
            As `StopSignals.end`.
        OutputError
            If the file cannot be written; the earlier one is still whole.
        """
        self._save_or_end(fit, step, callbacks, self.processes.agree_to_stop(self.signals, fit.step))

    def after_training(self, fit: "Fit", step: "TrainStep", callbacks: Sequence[Callback]) -> None:
        """As `after_step`, after the last one; saves if repeating what came after the last save would take long."""
        self._pause = min(self._pause, _WORTH_SAVING_SECONDS)
        self._save_or_end(fit, step, callbacks, self.processes.agree_to_stop(self.signals))

    def _save_or_end(self, fit: "Fit", step: "TrainStep", callbacks: Sequence[Callback], stopped: bool) -> None:
        if self.processes.leads and (stopped or time.monotonic() - self._saved >= self._pause):
            self.save(fit, step, callbacks)
        if stopped and self.signals is not None:
            self.processes.from_leader(b"")  # none ends before process 0 has saved
            self.signals.end()

    def save(self, fit: "Fit", step: "TrainStep", callbacks: Sequence[Callback]) -> None:
        """Write the file, and replace the earlier one once it is whole."""
        start = time.monotonic()
        tensors = {name: tensor.detach() for name, tensor in _live_tensors(fit, step).items()}
        state = {
            "format": FORMAT,
            "training": self.training,
            "build": self.build,
            "seconds": self.seconds + start - self._started,
            "fit": _split({name: getattr(fit, name) for name in _FIT}, "fit", tensors),
            "callbacks": _states(callbacks, tensors),
            "random": _split(_random_state(), "random", tensors),
        }
        with writing(self.path, "Make room; `foveola train --resume RUN` then goes on from the last whole checkpoint."):
            write_atomically(self.path, _to_bytes(tensors, state))
        self._saved = time.monotonic()
        self._pause = max(self.every, (self._saved - start) / _SHARE)


def _states(callbacks: Sequence[Callback], tensors: dict[str, Tensor]) -> list[Any]:
    return [
        _split(callback.state_dict(), f"callback.{number}.{type(callback).__name__}", tensors)
        for number, callback in enumerate(callbacks)
    ]


def _live_tensors(fit: "Fit", step: "TrainStep") -> dict[str, Tensor]:
    """The tensors that a step changes, by name."""
    tensors = {f"network.{name}": tensor for name, tensor in fit.classifier.network.state_dict().items()}
    for number, optimizer in enumerate(step.optimizers):
        tensors |= {f"optimizer.{number}.{index}": tensor for index, tensor in enumerate(optimizer.state)}
    return tensors | {f"step.{name}": tensor for name, tensor in step.state.items()}


@torch.no_grad()
def _copy(saved: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> None:
    for name, tensor in live.items():
        if saved[name].shape != tensor.shape or saved[name].dtype != tensor.dtype:
            raise ValueError(f"{name} has another shape or type")
    for name, tensor in live.items():
        tensor.copy_(saved[name])


def _to_bytes(tensors: Mapping[str, Tensor], state: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    # Cloned, because safetensors refuses tensors that share memory
    own = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    return seal(save(own, unsealed({_KEY: json.dumps(state)})))


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. Correct its rights, or train again with --force.") from None
    verify_seal(content, path)
    return content


def _parse(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = json.loads(json.loads(header_bytes(content))["__metadata__"][_KEY])
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a checkpoint of Foveola's: {error}. Train again with --force.") from None
    if not isinstance(state, dict):
        raise ModelError(f"{path} is not a checkpoint of Foveola's: its state is damaged. Train again with --force.")
    if state.get("format") != FORMAT:
        raise ModelError(f"{path} was written by a newer Foveola. Update Foveola, or train again with --force.")
    return tensors, state


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON values; its tensors and arrays go into `tensors`, and their names stand in their place."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name}: the keys of a callback's state must be strings")
        return {"values": {key: _split(inner, f"{name}.{key}", tensors) for key, inner in value.items()}}
    if isinstance(value, list | tuple):
        return [_split(inner, f"{name}.{index}", tensors) for index, inner in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: a callback's state must be JSON values, arrays or tensors")


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_split` has taken apart."""
    if isinstance(value, list):
        return [_join(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "array" in value:
        return tensors[value["array"]].numpy()
    return {key: _join(inner, tensors) for key, inner in value["values"].items()}


def _random_state() -> dict[str, Any]:
    """The global generators. Steps seed PyTorch's themselves; a callback or module may draw from any of them."""
    version, numbers, gauss = random.getstate()
    state: Any = np.random.get_state(legacy=False)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": {**state, "state": {**state["state"], "key": state["state"]["key"].astype(np.int64)}},
        "torch": torch.get_rng_state(),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
