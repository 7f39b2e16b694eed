"""Prepare: from a request to the first step: data, splits, recipe, initial weights, and the record of them."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveola.datasets import Source
from foveola.datasets.reload import RecordedData, load_for_recipe
from foveola.datasets.splits import Overlap, Splits, divide
from foveola.datasets.weights import find_weights
from foveola.documents import ModelSize, RunStatus, TrainingRequest
from foveola.errors import DataError, UserError
from foveola.images import Dataset
from foveola.models.learnt import LearntImages
from foveola.models.metadata import Columns
from foveola.models.model_file import read_metadata
from foveola.predictions import Predictions
from foveola.progress import show_progress
from foveola.recipe import Recipe, load_recipe
from foveola.runs import Run
from foveola.workflow.choose_recipe import proposal
from foveola.workflow.environment import processor, versions
from foveola.workflow.fit_run import Prepared
from foveola.workflow.open import choose_device, model_path
from foveola.workflow.own_network import examine_network
from foveola.workflow.record import data_metadata, record_data

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from rich.console import Console
    from torch import nn

    from foveola.models.classifier import Classifier
    from foveola.models.pretrained import PretrainedWeights
    from foveola.training.callbacks import Callback
    from foveola.workflow.teacher import Teaching


@dataclass(frozen=True)
class Given:
    """What a training was given as objects, of which its request only says that they are needed."""

    data: Source
    groups: "str | ArrayLike | None"
    network: "nn.Module | None"
    callbacks: Sequence["Callback"]


def labels_and_recipe(y: object, recipe: str | Path | Recipe | None) -> tuple[object, str | Path | Recipe | None]:
    """The labels and the recipe of a call, in which the recipe comes second where the data has its own labels.

    Raises
    ------
    UserError
        If there are two recipes, or the recipe is nothing that names one.
    """
    if isinstance(y, str | Path | Recipe):
        if recipe is None:
            return None, y
        if isinstance(recipe, str | Path | Recipe):
            raise UserError(f"There are two recipes, {_recipe_text(y)} and {_recipe_text(recipe)}. Give one.")
        raise UserError("Labels come before the recipe: (images, labels, recipe).")
    if recipe is not None and not isinstance(recipe, str | Path | Recipe):
        raise UserError(
            f"recipe is of type {type(recipe).__name__}; it must be the name of a recipe, the path of a TOML file, or "
            f"a Recipe."
        )
    return y, recipe


def _recipe_text(recipe: str | Path | Recipe) -> str:
    return repr(recipe.name if isinstance(recipe, Recipe) else str(recipe))


def check_weights(weights: str | Path | None, init: str | Path | Run | None, network: "nn.Module | None") -> None:
    """Refuse pretrained weights beside something else that gives the weights."""
    if weights is not None and init is not None:
        raise UserError("--weights and --init both say which weights to begin with. Give one of them.")
    if weights is not None and network is not None:
        raise UserError(
            "weights are for the layers of a recipe, and you have given a network of your own. Load them into it "
            "yourself, and leave weights out."
        )


def prepare(request: TrainingRequest, given: Given, screen: "Console", started: float) -> Prepared:
    """Read the data, split it, settle the recipe, and build the untrained network.

    The recipe as it was settled, and the fingerprint of the data, are put into the request.

    Parameters
    ----------
    started : when the command began, of `time.perf_counter`; a time budget counts from there

    Raises
    ------
    UserError
        If recipe, data or weights cannot be used.
    """
    from foveola.training.colour import settle_augmentation

    device = choose_device(request.device)  # type: ignore[arg-type]
    recipe = request.recipe or load_recipe("fast", request.overrides)
    pretrained = _find_weights(request, given, recipe, screen)  # refused before data is read
    dataset = _read_data(request, given, recipe, screen)
    _check_task(recipe, request, dataset)
    splits, overlap = divide(dataset, recipe.validation, recipe.test, request.seed)
    export_seconds = examine_network(given.network, recipe, splits.train, screen)
    teacher = _teach(request, given, recipe, dataset, splits, overlap, device, screen)
    if request.budget is not None:
        recipe = _fit_to_budget(request, given, recipe, dataset, splits, started - export_seconds, device)
    if recipe.resize == "auto":
        recipe = recipe.model_copy(update={"resize": dataset.resize})
    request.recipe, request.budget, request.fingerprint = recipe, None, dataset.fingerprint
    recipe, colours = settle_augmentation(recipe, splits.train)
    classifier, earlier = _build(request, given, recipe, dataset, splits, pretrained, screen)
    recorded = record_data(dataset, splits, overlap, given.data, given.groups, request.columns)
    recorded.summary += colours
    if teacher is not None:
        recorded.summary.append(teacher.summary)
    learnt = LearntImages.of(splits.train, splits.validation, earlier, None if teacher is None else teacher.learnt)
    metadata = data_metadata(dataset, recipe, request.seed, recorded, learnt)
    classifier.metadata = classifier.metadata.model_copy(update=metadata)
    status, precision = _status(request, recipe, classifier, dataset, splits, recorded, teacher, device)
    logits = None if teacher is None else teacher.logits
    return Prepared(classifier, splits, overlap, status, device, precision, logits)


def _find_weights(
    request: TrainingRequest, given: Given, recipe: Recipe, screen: "Console"
) -> "PretrainedWeights | None":
    """The pretrained weights that the recipe begins with; the paths of other models are checked."""
    for path in (request.init, request.teacher):
        if path is not None:
            model_path(Path(path))
    if request.init is not None or given.network is not None:
        return None
    with show_progress(screen) as progress:
        return find_weights(recipe, request.weights, progress)


def _read_data(request: TrainingRequest, given: Given, recipe: Recipe, screen: "Console") -> Dataset:
    dataset = load_data(given.data, recipe, request.skip_bad, given.groups, screen, request.columns)
    dataset.check_trainable()
    if request.fingerprint not in (None, dataset.fingerprint):
        raise DataError(
            f"{dataset.name} has changed since the training began: its fingerprint was {str(request.fingerprint)[:12]} "
            f"and is {dataset.fingerprint[:12]}. Restore the data, or train again with --force."
        )
    if request.init is None and given.network is None and (sentence := proposal(recipe, dataset)):
        screen.print(sentence, soft_wrap=True)
    return dataset


def _check_task(recipe: Recipe, request: TrainingRequest, dataset: Dataset) -> None:
    """Refuse what means something for one class an image only, if images have several labels."""
    settings = {"reject": recipe.reject is not None, "epoch_auc": recipe.epoch_auc, "head_views": recipe.head_views > 0}
    used = [f"the recipe's {name}" for name, is_set in settings.items() if is_set]
    used += ["--teacher"] if request.teacher is not None else []
    if dataset.task == "multilabel" and used:
        raise UserError(
            f"The images of {dataset.name} have several labels each, and {used[0]} is for one class an image. Train "
            f"without it, or with another recipe."
        )


def _teach(
    request: TrainingRequest,
    given: Given,
    recipe: Recipe,
    dataset: Dataset,
    splits: Splits,
    overlap: Overlap,
    device: "torch.device",
    screen: "Console",
) -> "Teaching | None":
    """What a teacher says of the training images, if there is one."""
    from foveola.training.loop import choose_precision
    from foveola.workflow.teacher import teach

    if request.teacher is None:
        return None
    return teach(
        model_path(Path(request.teacher)), given.data, dataset, splits, overlap, skip_bad=request.skip_bad,
        columns=request.columns, device=device, precision=choose_precision(recipe.precision, device), screen=screen,
    )  # fmt: skip


def _fit_to_budget(
    request: TrainingRequest,
    given: Given,
    recipe: Recipe,
    dataset: Dataset,
    splits: Splits,
    started: float,
    device: "torch.device",
) -> Recipe:
    from foveola.training.budget import budget_candidates, fit_to_budget

    assert request.budget is not None, "the caller has looked"
    candidates = budget_candidates(request.overrides) if request.recipe is None else [(recipe, 0.0)]
    return fit_to_budget(
        candidates, splits, started + request.budget, time_reporting(splits),
        device=device, flip=dataset.flip_safe, network=given.network,
    )  # fmt: skip


def _build(
    request: TrainingRequest,
    given: Given,
    recipe: Recipe,
    dataset: Dataset,
    splits: Splits,
    pretrained: "PretrainedWeights | None",
    screen: "Console",
) -> "tuple[Classifier, LearntImages | None]":
    """The classifier with its initial weights; the images that these have learnt from, if they are a model's."""
    from foveola.training.build import build_classifier

    classifier = build_classifier(
        recipe, splits.train, request.seed,
        network=given.network, picture_polarity=dataset.picture_polarity, pretrained=pretrained,
    )  # fmt: skip
    if pretrained is not None:
        screen.print(f"Initial weights: {pretrained.origin}", soft_wrap=True)
    if request.init is None:
        return classifier, None
    return classifier, _initialise(classifier, Path(request.init), request.freeze, screen)


def _status(
    request: TrainingRequest,
    recipe: Recipe,
    classifier: "Classifier",
    dataset: Dataset,
    splits: Splits,
    recorded: RecordedData,
    teacher: "Teaching | None",
    device: "torch.device",
) -> "tuple[RunStatus, torch.dtype]":
    """What `run.json` says when the training begins, and the precision that it computes in."""
    from foveola.training.augment import uses_flips
    from foveola.training.loop import choose_precision

    precision = choose_precision(recipe.precision, device)
    status = RunStatus(
        status="running",
        recipe=recipe,
        data=recorded,
        model=ModelSize(parameters=classifier.parameter_count),
        versions=versions(),
        seed=request.seed,
        device=device.type,
        threads=request.threads,
        processor=processor(),
        flip=uses_flips(recipe, dataset.flip_safe, len(splits.train)),
        init=request.init,
        freeze=request.freeze,
        weights=request.weights,
        pretrained=classifier.metadata.pretrained,
        teacher=None if teacher is None else teacher.record,
        precision=str(precision).removeprefix("torch."),
    )
    return status, precision


def load_data(
    data: Source,
    recipe: Recipe,
    skip_bad: int,
    groups: "str | ArrayLike | None",
    screen: "Console",
    columns: Columns,
) -> Dataset:
    """The data in the size and with the channels that the recipe asks for, and with its groups."""
    pattern = groups if isinstance(groups, str) else None
    if isinstance(data, Dataset) and pattern is not None:
        raise DataError(
            f"groups is {pattern!r}, a pattern over file names, which a loaded Dataset does not have. Give it to "
            f"foveola.load; or give an array with a number for each training image, here or as ImageSet(groups=…)."
        )
    with show_progress(screen) as progress:
        dataset = load_for_recipe(recipe, data, pattern, skip_bad, progress, columns)
    if groups is None or pattern is not None:
        return dataset
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    return replace(dataset, train=replace(dataset.train, groups=numbers))


def _initialise(classifier: "Classifier", init: Path, freeze: bool, screen: "Console") -> LearntImages | None:
    """Copy weights from a run or model file; the images that these have learnt from, if that is known."""
    from foveola.training.transfer import transfer_weights

    path = model_path(init)
    layers = ", ".join(transfer_weights(classifier, path, freeze=freeze))
    text = f"Initialised from {init}; frozen: {layers}" if freeze else f"Initialised from {init}: {layers}"
    screen.print(text, soft_wrap=True)
    earlier = read_metadata(path)
    if earlier.pretrained is not None:  # what it began with is still in the weights
        classifier.metadata = classifier.metadata.model_copy(update={"pretrained": earlier.pretrained})
    return None if earlier.data is None else earlier.data.learnt


def time_reporting(splits: Splits) -> float:
    """Seconds that metrics and plots take, measured on random predictions; the test images stay unseen.

    The first round, on a few images, pays for imports; the second one is timed.
    """
    from foveola.evaluation.metrics import compute_metrics
    from foveola.reports.plots import plot_run

    history = [{"epoch": n, "step": n, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1} for n in (1.0, 2.0)]
    size = 0 if splits.test is None else len(splits.test)
    for count in (min(size, 100), size):
        start = time.perf_counter()
        images = predictions = None
        if count:
            images = splits.train.take(np.arange(count) % len(splits.train))
            logits = np.random.default_rng(0).normal(size=(count, len(images.class_names))).astype(np.float32)
            predictions = Predictions(logits, images.labels, images.class_names, held_out=False)
            compute_metrics(predictions)
        with tempfile.TemporaryDirectory() as folder:
            plot_run(Path(folder), history, splits.train, images, predictions)
    return time.perf_counter() - start
