"""Train: data → splits → training → temperature → one look at the test split → run; and go on after an interruption."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from foveola.claims import Claim
from foveola.datasets import Source, as_source, is_named
from foveola.datasets.columns import as_columns
from foveola.datasets.objects import Objects
from foveola.datasets.reload import GIVEN_GROUPS
from foveola.documents import Tracker, TrainingRequest
from foveola.errors import UserError, require, unknown
from foveola.files import as_path, check_writable, expanded
from foveola.images import Dataset
from foveola.models.metadata import Columns
from foveola.progress import console
from foveola.recipe import Recipe, load_recipe, merge_settings
from foveola.runs import RUNS, Run, run_folder
from foveola.text import restore_surrogates
from foveola.workflow.choose_recipe import AUTO, choose_recipe
from foveola.workflow.fit_run import fit_run
from foveola.workflow.launch import check_request, earlier_attempt, launch_name, prepare_in_turn, share_request
from foveola.workflow.open import Device, choose_device, choose_threads
from foveola.workflow.prepare_run import Given, check_weights, labels_and_recipe, prepare

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

    from foveola.training.callbacks import Callback


CHECKPOINT_SECONDS = 30.0


def train(
    data: object,
    y: object = None,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int | None = None,
    force: bool = False,
    budget: float | None = None,
    init: str | Path | Run | None = None,
    freeze: bool = False,
    weights: str | Path | None = None,
    teacher: str | Path | Run | None = None,
    skip_bad: int = 0,
    groups: "str | ArrayLike | None" = None,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    network: "nn.Module | None" = None,
    callbacks: Sequence["Callback"] = (),
    log: str | Sequence[str] = (),
    report: bool = True,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Train a classifier, measure it once on the test split, and write everything into a run directory.

    Parameters
    ----------
    data : catalog name, path, or objects, as `foveola.load` takes them: images, with their labels as `y`; (images,
        labels); a dictionary of such pairs by split; ImageSet, Dataset, data frame, PyTorch or Hugging Face data set
    y : labels, N, of images given as `data`; or the recipe, as in train("digits", "mlp")
    recipe : name, path of a TOML file, or a Recipe; by default "fast", or with a budget the one that fits it best.
        "auto" is "efficientnet-lite0", with pretrained weights, for colour photographs of more than 64 pixels
    out : the run's folder; by default a new one under `runs`
    overrides : values by recipe key, such as {"epochs": 3, "augment.shift": 2}; see also `settings`
    seed : of the validation split, the initial weights, the order of images, augmentation and dropout
    device : "auto" uses a GPU if there is one
    threads : number of threads, from now on in this process; by default one per core
    force : replace a run that is already in `out`, once the new one is whole
    budget : seconds for everything, from this call to the written run; sets the number of steps
    init : a run or model file to copy weights from, layer by layer while names and shapes agree
    freeze : do not train the layers that `init` gave; the last layer is then not copied, but trained
    weights : a safetensors file of pretrained weights, instead of the published one of a recipe that begins with them
    teacher : a run or model file with the same classes, from whose probabilities the training learns besides the
        labels, as the recipe's `distill` says; it must not have learnt from validation or test images
    skip_bad : maximum number of unreadable images of a folder to skip
    groups : keeps images of one patient, object or writer on one side of every split: for an image folder, a pattern
        over file names with one capturing group, or "folder" for subfolders of the classes; or an array, one number or
        name for each training image
    class_names, channels_first, name : as for `foveola.load`, if data is given as objects
    columns : of a table, where they cannot be guessed: {"image": …, "label": …, "group": …, "split": …, "weight": …};
        "root" is the folder that holds the images. {"label": [a, b]} names a column of zeros and ones for each label;
        "separator" is the text between several labels in a cell
    network : a module of your own, float N×C×H×W → logits N×K, instead of the recipe's layers. At the end, it is saved
        in the run as an ONNX graph, which needs none of its code; docs/own-network.md has an example
    callbacks : your own; their `on_epoch_end` is called after validation and before the best weights are chosen
    log : trackers that log metrics, settings, pictures and model: "tensorboard", "mlflow" or "wandb", or several; they
        write into folders of the run, unless their environment variables say otherwise
    report : write report.html at the end, which takes a few seconds; not with a budget
    checkpoint_every : seconds between checkpoints, from which `foveola.resume` continues
    verbose : report progress on standard error
    settings : values by recipe key, such as epochs=3, learning_rate=0.01, augment={"shift": 2}

    Raises
    ------
    UserError
        If recipe, data, device or folder cannot be used; nothing is written then.
    NonFiniteLoss
        If training diverges; the run then holds the last finite weights, and its status is "diverged". With `force`,
        the old run stays instead.

    Examples
    --------
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 5}, seed=1, verbose=False)
    >>> run.status.status, run.status.data.train, run.evaluation.accuracy.value > 0.8
    ('done', 1295, True)

    Arrays of images and labels, and settings of the recipe as keywords:

    >>> digits = foveola.load("digits").train
    >>> run = foveola.train(digits.images, digits.labels, "mlp", epochs=1, augment={"shift": 1}, verbose=False)
    >>> run.status.data.name, run.status.recipe.epochs, run.status.recipe.augment.shift
    ('arrays', 1, 1)
    """
    started = time.perf_counter()
    y, recipe = labels_and_recipe(y, recipe)
    _check_settings(seed, budget, weights, settings)
    for what, path in {"out": out, "init": init, "teacher": teacher}.items():
        if path is not None:
            as_path(path, what)
    overrides = merge_settings(overrides, settings, train)
    source = as_source(data, y, class_names=class_names, channels_first=channels_first, name=name)
    require("torch", "train")
    from foveola.training.distributed import join
    from foveola.training.stopping import StopSignals

    processes = join(choose_device(device))
    screen, chosen_columns = console(verbose and processes.leads), as_columns(columns)
    if recipe == AUTO and network is None:
        chosen = choose_recipe(source, overrides, groups if isinstance(groups, str) else None, screen, chosen_columns)
    elif budget is not None and recipe is None and network is None:
        chosen = None
    else:
        chosen = load_recipe(recipe or "fast", overrides)
    if freeze and init is None:
        raise UserError("--freeze keeps the layers that --init gives, but there is no --init. Add --init RUN.")
    check_weights(weights, init, network)
    trackers = _check_trackers([log] if isinstance(log, str) else log)
    request = TrainingRequest(
        data=_absolute(source),
        recipe=chosen,
        overrides=overrides,
        seed=int(seed),
        device=choose_device(device).type,
        threads=choose_threads(threads),
        budget=budget,
        init=None if init is None else _absolute(init),
        freeze=freeze,
        weights=None if weights is None else _absolute(weights),
        teacher=None if teacher is None else _absolute(teacher),
        skip_bad=skip_bad,
        groups=groups if groups is None or isinstance(groups, str) else GIVEN_GROUPS,
        columns=chosen_columns,
        report=report and budget is None,
        checkpoint_every=checkpoint_every,
        network=network is not None,
        callbacks=_names(callbacks),
        log=trackers,
        launch=launch_name(),
    )
    given = Given(source, groups, network, callbacks)
    with StopSignals(patient=processes.size > 1) as signals, processes.silent_but_one(), ExitStack() as claims:
        check_request(processes, request)
        claim = None
        with processes.together():
            if processes.leads:
                claim = _claim(out, force, request, claims)
        if finished := processes.from_leader(None if not isinstance(claim, Run) else os.fsencode(claim.path)):
            return Run(Path(os.fsdecode(finished)))
        assert not isinstance(claim, Run), "it is not finished"
        threads = request.threads
        request = share_request(processes, claim.request if claim is not None and claim.begun else request)
        request.threads = threads
        prepared = prepare_in_turn(processes, lambda: prepare(request, given, screen, started))
        with processes.together():
            if processes.leads and claim is None:
                name = f"{prepared.status.data.name}-{prepared.status.recipe.name}"
                claim = claims.enter_context(Claim.take_new(RUNS / name))
        return fit_run(claim, request, prepared, callbacks, signals, processes, screen, started)


def _check_settings(seed: object, budget: object, weights: object, settings: Mapping[str, Any]) -> None:
    """Refuse what only Python can give; the command line has checked its options."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"seed is {seed!r}; it must be a whole number of 0 or more.")
    if budget is not None and not isinstance(budget, int | float | np.number):
        raise UserError(f"budget is {budget!r}; from Python, it is a number of seconds, such as 60.")
    if "sample_weight" in settings or not (weights is None or isinstance(weights, str | os.PathLike)):
        raise UserError(
            "How much each image counts belongs to the data: foveola.ImageSet(images, labels, class_names, "
            "weights=…), or a column of a table or data frame. The parameter weights is a file of pretrained weights."
        )


def _claim(out: str | Path | None, force: bool, request: TrainingRequest, claims: ExitStack) -> Claim | Run | None:
    """Claim the run's folder: `out`, or that of the same training before torchrun has restarted it; None: a new one.

    If the restarted training was finished already, the run.

    Raises
    ------
    UserError
        If the folder cannot be claimed.
    """
    folder = None if out is None else Path(out)
    if request.launch is not None and (earlier := earlier_attempt(request.launch, folder, RUNS)) is not None:
        claim = Claim.resume(earlier)
        return Run(earlier) if claim is None else claims.enter_context(claim)
    if folder is None:
        check_writable(RUNS)
        return None
    claim = claims.enter_context(Claim.take(folder, force=force))
    claim.write_request(request)
    return claim


def resume(
    run: str | Path | Run,
    *,
    data: object = None,
    groups: "ArrayLike | None" = None,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    network: "nn.Module | None" = None,
    callbacks: Sequence["Callback"] = (),
    device: Device | None = None,
    threads: int | None = None,
    verbose: bool = True,
) -> Run:
    """Continue an interrupted training; a finished run is returned as it is.

    The finished run is the same bit for bit as without the interruption, if versions, device and number of threads are
    the same; otherwise a message says what differs, and the training continues.

    Parameters
    ----------
    run : the folder of the interrupted training
    data, groups, network, callbacks : the objects that `foveola.train` was given, again; images and labels as a pair,
        data=(X, y)
    class_names, channels_first : as given to `foveola.train`
    device, threads : by default as recorded in the run
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If there is nothing to resume, the data has changed, or something must be given again.
    NonFiniteLoss
        If training diverges.

    Examples
    --------
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 1}, verbose=False)
    >>> foveola.resume(run.path, verbose=False).status.status
    'done'
    """
    started = time.perf_counter()
    require("torch", "train")
    from foveola.training.distributed import join
    from foveola.training.stopping import StopSignals

    source = None
    if data is not None:
        source = as_source(data, class_names=class_names, channels_first=channels_first)
    processes = join(choose_device(device or "auto"))
    screen = console(verbose and processes.leads)
    with StopSignals(patient=processes.size > 1) as signals, processes.silent_but_one(), ExitStack() as claims:
        claim = None
        with processes.together():
            if processes.leads:
                claim = Claim.resume(run_folder(run))
        if processes.from_leader(b"finished" if processes.leads and claim is None else None):
            screen.print(f"{Path(run)} is finished already: there is nothing to go on with.", soft_wrap=True)
            return Run.open(run)
        if claim is not None:
            claims.enter_context(claim)
        request = share_request(processes, None if claim is None else claim.request)
        request.device = choose_device(device or request.device).type  # type: ignore[arg-type]
        request.threads = choose_threads(threads or request.threads)
        with processes.together():
            _check_trackers(request.log)
        with processes.together():
            given = _given_again(request, source, groups, network, callbacks)
        prepared = prepare_in_turn(processes, lambda: prepare(request, given, screen, started))
        return fit_run(claim, request, prepared, callbacks, signals, processes, screen, started)


def _absolute(path: Source | Run) -> str | None:
    """A path that means the same in another folder; a catalog name as it is; None for data in memory."""
    if isinstance(path, Dataset | Objects):
        return None
    return str(path) if is_named(path) else str(expanded(path).absolute())


def _check_trackers(names: Sequence[str]) -> list[Tracker]:
    """The trackers, whose packages are imported, so that one that is missing is found before the training."""
    from foveola.training import trackers

    for name in names:
        if name not in trackers.TRACKERS:
            raise UserError(unknown("tracker", name, trackers.TRACKERS))
        trackers.TRACKERS[name].check()
    return list(dict.fromkeys(cast(Sequence[Tracker], names)))


def _names(callbacks: Sequence["Callback"]) -> list[str]:
    from foveola.training.callbacks import Callback

    if isinstance(callbacks, Callback):
        raise UserError(f"callbacks is one callback; it must be a list: callbacks=[{type(callbacks).__name__}(…)].")
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise UserError(f"callbacks has the class {name}. Give an object of it: {name}().")
        if not isinstance(callback, Callback):
            raise UserError(
                f"callbacks has a {type(callback).__name__}, which is not a callback. Make a subclass of "
                f"foveola.Callback."
            )
    return [f"{type(callback).__module__}:{type(callback).__qualname__}" for callback in callbacks]


def _given_again(
    request: TrainingRequest,
    data: Source | None,
    groups: "ArrayLike | None",
    network: "nn.Module | None",
    callbacks: Sequence["Callback"],
) -> Given:
    """What has to be given from Python, if it was.

    Raises
    ------
    UserError
        If it is missing, or something else was given.
    """
    wanted = {
        "data": request.data is None,
        "groups": request.groups == GIVEN_GROUPS,
        "network": request.network,
        "callbacks": bool(request.callbacks),
    }
    found = {"data": data, "groups": groups, "network": network, "callbacks": callbacks or None}
    for name, needed in wanted.items():
        if needed and found[name] is None:
            named = "".join(f" --callback {callback}" for callback in request.callbacks)
            command = f"; or, if they are made without arguments, foveola train --resume RUN{named}"
            raise UserError(
                f"The training was given its {name}, which no file can hold, so that it can only go on with the same: "
                f"foveola.resume(run, {name}=…){command if name == 'callbacks' else ''}."
            )
        if not needed and found[name] is not None:
            raise UserError(f"The training was not given any {name}, so that none can be given now. Leave it out.")
    if _names(callbacks) != request.callbacks:
        raise UserError(
            f"The training had the callbacks {', '.join(request.callbacks)}; now there are "
            f"{', '.join(_names(callbacks))}. Give the same, in the same order."
        )
    source = data if data is not None else request.data
    assert source is not None, "either is there"
    if isinstance(source, str) and not is_named(source):
        source = restore_surrogates(source)
    return Given(source, groups if groups is not None else request.groups, network, callbacks)
