"""An Optuna study that several processes share: opened by its URL, matched, and trials of dead processes tried again.

Optuna stores numbers and JSON in the database, no pickle.
"""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError, StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from foveola.errors import Failure, UserError
from foveola.training.search_space import Choices, Range, SearchSpace

optuna.logging.disable_default_handler()  # progress is printed by `foveola tune`

Direction = Literal["minimize", "maximize"]

IDENTITY = "foveola"
START, RETRIES, REASON, SECONDS, SCORES = "start", "retries", "reason", "seconds", "scores"
_PROCESS, _BEAT = "process", "beat"

# A process of which nothing is known, on another machine, counts as dead after so many seconds without a sign of life
DEAD_AFTER = 15 * 60
# A trial that ends its process, by using up the memory for example, is not tried for ever
MAX_RETRIES = 2
# Recipes that are drawn at random before the sampler learns, and trials that are finished before any is pruned
STARTUP_TRIALS, UNPRUNED_TRIALS = 8, 4
# A share of the first fold's steps, in tenths, before which nothing is pruned
WARMUP_TENTHS = 3
_LOCK_SECONDS = 60


def open_study(url: str, name: str, identity: Mapping[str, Any], *, direction: Direction, seed: int) -> Study:
    """Open a study, or create it.

    Parameters
    ----------
    url : as SQLAlchemy takes it
    identity : what two processes must have in common to share it: JSON values, whose keys are named in messages
    direction : "minimize" or "maximize"
    seed : of the sampler; a trial's values depend on it, the trial's number, and the trials before

    Raises
    ------
    UserError
        If the database cannot be opened, or the study of that name is another one.
    """
    study = _connect(url, name, direction, seed)
    wanted = json.loads(json.dumps(identity))
    found = study.user_attrs.get(IDENTITY)
    if found is None:
        if study.get_trials(deepcopy=False):
            raise UserError(
                f"The study {name!r} in {masked(url)} was not made by Foveola. Choose another --study-name."
            )
        study.set_user_attr(IDENTITY, wanted)
    elif found != wanted:
        different = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
        raise UserError(
            f"The study {name!r} in {masked(url)} differs in: {', '.join(different) or 'its version'}. Its trials "
            f"cannot be compared with new ones. Give the same as before, or choose another --out or --study-name."
        )
    return study


def _connect(url: str, name: str, direction: Direction, seed: int) -> Study:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=WARMUP_TENTHS)
    reason: Exception | None = None
    for pause in (0.2, 1.0, 3.0, None):  # two processes may create the tables at the same moment
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_settings(url))
            return optuna.create_study(
                storage=storage, study_name=name, direction=direction, load_if_exists=True,
                sampler=RepeatableSampler(seed), pruner=pruner,
            )  # fmt: skip
        except (SQLAlchemyError, OptunaError, ImportError, ValueError, RuntimeError, KeyError) as error:
            reason = error
            if pause is not None and isinstance(error, SQLAlchemyError | OptunaError):
                time.sleep(pause)
            else:
                break
    text = str(getattr(reason, "orig", None) or reason).strip().split("\n")[0]
    raise UserError(
        f"The study {masked(url)} cannot be opened: {text}. Give a database that SQLAlchemy and its driver can reach, "
        f"such as --study sqlite:///study.db; a damaged file can only be deleted."
    )


def _engine_settings(url: str) -> dict[str, Any]:
    """For SQLite: wait for other processes, and close the file after each use instead of when Python ends."""
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return {}
    settings: dict[str, Any] = {"connect_args": {"timeout": _LOCK_SECONDS}}
    if address.database not in (None, "", ":memory:"):  # a database in memory ends with its connection
        settings["poolclass"] = NullPool
    return settings


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn what a database refuses inside the block, such as a full disk, into one message.

    Raises
    ------
    Failure
        Naming the database and the reason.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().split("\n")[0]
        raise Failure(
            f"The study {masked(url)} cannot be read or written any more: {reason}. What was finished is kept; the "
            f"same command goes on with it."
        ) from None


def masked(url: str) -> str:
    """The URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return "that was given"


def file_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path.absolute().as_posix()}"


class RepeatableSampler(BaseSampler):
    """TPE (Bergstra et al., 2011), seeded anew for each trial by the study's seed and the trial's number.

    A study that goes on after an interruption draws as one without; processes that share it never draw the same.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tpe = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = int(np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0])
        self.tpe = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.tpe.sample_independent(study, trial, param_name, param_distribution)


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The search space in Optuna's terms."""
    return {key: _distribution(dimension) for key, dimension in space.dimensions.items()}


def _distribution(dimension: Range | Choices) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def enqueue_start(study: Study, values: Mapping[str, Any]) -> None:
    """Make the recipe to start from the first trial, unless the study has it already."""
    if not any(START in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial(dict(values), user_attrs={START: True})


def ask(study: Study, space: SearchSpace) -> Trial:
    """A new trial, or one that waits to be tried again, that carries this process's sign of life."""
    trial = study.ask(distributions(space))
    trial.set_user_attr(_PROCESS, _this_process())
    beat(trial)
    return trial


def beat(trial: Trial) -> None:
    """Record that the trial's process is alive."""
    trial.set_user_attr(_BEAT, time.time())


def give_up(study: Study, trial: Trial, *, again: bool) -> None:
    """Fail a trial of this process; `again` makes it the next one."""
    with suppress(ValueError, OptunaError, SQLAlchemyError):  # the reason for giving up is being raised
        study.tell(trial, state=TrialState.FAIL)
        if again:
            study.enqueue_trial(trial.params, user_attrs=_kept(trial.user_attrs))


def retry_dead(study: Study) -> list[int]:
    """Fail running trials whose process has died, and let them be tried again; their numbers."""
    dead = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_dead(trial):
            continue
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            continue  # another process has done it, or the trial has finished
        dead.append(trial.number)
        values = trial.params or trial.system_attrs.get("fixed_params", {})
        retries = trial.user_attrs.get(RETRIES, 0) + 1
        if values and retries <= MAX_RETRIES:
            study.enqueue_trial(values, user_attrs=_kept(trial.user_attrs) | {RETRIES: retries})
    return dead


def _kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attributes[name] for name in (START, RETRIES) if name in attributes}


def _is_dead(trial: FrozenTrial) -> bool:
    process = trial.user_attrs.get(_PROCESS)
    if isinstance(process, dict) and process.get("machine") == _machine() and os.name != "nt":
        return process.get("start") != _start_of(process["pid"])
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return bool(time.time() - trial.user_attrs.get(_BEAT, started) > DEAD_AFTER)


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "start": _start_of(os.getpid())}


def _machine() -> str:
    """Where process numbers mean the same: a host, or a container in it."""
    try:
        boot, namespace = Path("/proc/sys/kernel/random/boot_id").read_text(), Path("/proc/self/ns/pid").readlink()
        return f"{platform.node()} {namespace} {boot}"
    except OSError:
        return platform.node()


def _start_of(pid: int) -> str | None:
    """When a process began, which tells it from a later one with its number; None if there is none, or on Windows."""
    if os.name == "nt":  # where os.kill, below, would interrupt it
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
