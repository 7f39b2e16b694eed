"""A training that torchrun has started as several processes: what they agree on, and how a restart finds its run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foveola.claims import unfinished_request
from foveola.documents import TrainingRequest
from foveola.errors import ModelError, UserError
from foveola.recipe import Recipe
from foveola.workflow.environment import versions

if TYPE_CHECKING:
    from foveola.training.distributed import Processes
    from foveola.workflow.fit_run import Prepared

# What may differ: paths on another machine, while the data's fingerprint and the initial weights are compared or sent
_OWN = {"data", "init", "teacher", "threads", "launch", "fingerprint"}
# torchrun's, if it is given no --rdzv-id
_UNNAMED = "none"


def launch_name() -> str | None:
    """What a start by torchrun and its own restarts have in common; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{name} of process {os.getppid()}" if name == _UNNAMED else name


def earlier_attempt(launch: str, out: Path | None, runs: Path) -> Path | None:
    """The folder of the training that torchrun has restarted by starting this process; None at the first start.

    Parameters
    ----------
    launch : name of the launch
    out : the folder that was given for the run, or None
    runs : where a run is written otherwise
    """
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    folders = [out] if out is not None else sorted(runs.iterdir()) if runs.is_dir() else []
    return next((folder for folder in folders if _launch_of(folder) == launch), None)


def _launch_of(folder: Path) -> str | None:
    try:
        request = unfinished_request(folder)
    except ModelError:  # another training's, and damaged
        return None
    return None if request is None else request.launch


def check_request(processes: "Processes", request: TrainingRequest) -> None:
    """Refuse what several processes do not support, or were not asked for alike.

    Raises
    ------
    UserError
        In process 0; SystemExit in all others.
    """
    if processes.size == 1:
        return
    with processes.together():
        if request.budget is not None:
            raise UserError(
                "--budget measures the speed of one process, and cannot be used with several. Give --epochs, or "
                "--set steps=…, instead."
            )
        if request.network:
            raise UserError(
                "A network of your own cannot be trained by several processes: its layers would normalise and drop out "
                "in parts of a batch. Use a recipe's layers, or one process."
            )
    options = request.model_dump(mode="json", exclude=_OWN)
    recipe = options.pop("recipe") or {}
    processes.check_same(options | {f"recipe's {key}": value for key, value in recipe.items()} | versions())


def share_request(processes: "Processes", request: TrainingRequest | None) -> TrainingRequest:
    """The request that process 0 gives: its own, or that of the training that it goes on with."""
    content = processes.from_leader(None if request is None else request.to_json().encode())
    assert content is not None, "process 0 gives one"
    return TrainingRequest.from_json(content, "the request of process 0")


def prepare_in_turn(processes: "Processes", prepare: Callable[[], "Prepared"]) -> "Prepared":
    """Prepare in one process a machine first: what it downloads or packs, the others find.

    Raises
    ------
    UserError
        If data or recipe cannot be used, or the processes have different data; SystemExit in all processes but 0.
    """
    prepared = None
    for first in (True, False):
        with processes.together():
            if processes.first_on_machine == first:
                prepared = prepare()
    assert prepared is not None, "either first or later"
    if processes.size > 1:
        processes.check_same({"data (by its fingerprint)": prepared.status.data.fingerprint})
        with processes.together():
            _check_batch_size(prepared.status.recipe, processes.size)
    return prepared


def _check_batch_size(recipe: Recipe, processes: int) -> None:
    if recipe.batch_size < processes:
        raise UserError(
            f"batch_size is {recipe.batch_size}, and there are {processes} processes, each of which needs an image of "
            f"every batch. Start fewer processes, or raise it: --set batch_size={processes}."
        )
