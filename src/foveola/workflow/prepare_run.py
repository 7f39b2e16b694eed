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
    device = choose_device(request.device)  # type: ignore[arg-type]
    recipe = request.recipe or load_recipe("fast", request.overrides)
    training = _Training(request, given, recipe, device, screen)
    pretrained = training.find_weights()  # refused before data is read
    data = training.read_data()
    export_seconds = examine_network(given.network, training.recipe, data.splits.train, screen)
    teacher = training.ask_teacher(data)
    colours = training.settle_recipe(data, started - export_seconds)
    classifier, earlier = training.build(data, pretrained)
    recorded = record_data(data.dataset, data.splits, data.overlap, given.data, given.groups, request.columns)
    recorded.summary += colours if teacher is None else [*colours, teacher.summary]
    learnt = None if teacher is None else teacher.learnt
    learnt = LearntImages.of(data.splits.train, data.splits.validation, earlier, learnt)
    metadata = data_metadata(data.dataset, training.recipe, request.seed, recorded, learnt)
    classifier.metadata = classifier.metadata.model_copy(update=metadata)
    status = training.status(data, classifier, recorded, teacher)
    logits = None if teacher is None else teacher.logits
    return Prepared(classifier, data.splits, data.overlap, status, device, training.precision, logits)


@dataclass(frozen=True)
class _Data:
    """The data as it was loaded, its splits, and what these have in common."""

    dataset: Dataset
    splits: Splits
    overlap: Overlap


@dataclass
class _Training:
    """A training before its first step: what was asked for, and the recipe as far as it is settled."""

    request: TrainingRequest
    given: Given
    recipe: Recipe
    device: "torch.device"
    screen: "Console"

    @property
    def precision(self) -> "torch.dtype":
        from foveola.training.loop import choose_precision

        return choose_precision(self.recipe.precision, self.device)

    def find_weights(self) -> "PretrainedWeights | None":
        """The pretrained weights that the recipe begins with; the paths of other models are checked."""
        for path in (self.request.init, self.request.teacher):
            if path is not None:
                model_path(Path(path))
        if self.request.init is not None or self.given.network is not None:
            return None
        with show_progress(self.screen) as progress:
            return find_weights(self.recipe, self.request.weights, progress)

    def read_data(self) -> _Data:
        request, given, recipe = self.request, self.given, self.recipe
        dataset = load_data(given.data, recipe, request.skip_bad, given.groups, self.screen, request.columns)
        dataset.check_trainable()
        if request.fingerprint not in (None, dataset.fingerprint):
            raise DataError(
                f"{dataset.name} has changed since the training began: its fingerprint was "
                f"{str(request.fingerprint)[:12]} and is {dataset.fingerprint[:12]}. Restore the data, or train again "
                f"with --force."
            )
        if request.init is None and given.network is None and (sentence := proposal(recipe, dataset)):
            self.screen.print(sentence, soft_wrap=True)
        self._check_task(dataset)
        return _Data(dataset, *divide(dataset, recipe.validation, recipe.test, request.seed))

    def _check_task(self, dataset: Dataset) -> None:
        """Refuse what means something for one class an image only, if images have several labels."""
        recipe = self.recipe
        settings = {
            "reject": recipe.reject is not None,
            "epoch_auc": recipe.epoch_auc,
            "head_views": recipe.head_views > 0,
        }
        used = [f"the recipe's {name}" for name, is_set in settings.items() if is_set]
        used += ["--teacher"] if self.request.teacher is not None else []
        if dataset.task == "multilabel" and used:
            raise UserError(
                f"The images of {dataset.name} have several labels each, and {used[0]} is for one class an image. "
                f"Train without it, or with another recipe."
            )

    def ask_teacher(self, data: _Data) -> "Teaching | None":
        """What a teacher says of the training images, if there is one."""
        from foveola.workflow.teacher import teach

        request = self.request
        if request.teacher is None:
            return None
        return teach(
            model_path(Path(request.teacher)), self.given.data, data.dataset, data.splits, data.overlap,
            skip_bad=request.skip_bad, columns=request.columns, device=self.device, precision=self.precision,
            screen=self.screen,
        )  # fmt: skip

    def settle_recipe(self, data: _Data, started: float) -> list[str]:
        """Settle what the recipe leaves to budget and data, and note it in the request; what is to be said of colours.

        Parameters
        ----------
        started : when the time budget began
        """
        from foveola.training.colour import settle_augmentation

        if self.request.budget is not None:
            self.recipe = self._fit_to_budget(data, started + self.request.budget)
        if self.recipe.resize == "auto":
            self.recipe = self.recipe.model_copy(update={"resize": data.dataset.resize})
        self.request.recipe, self.request.budget = self.recipe, None
        self.request.fingerprint = data.dataset.fingerprint
        self.recipe, colours = settle_augmentation(self.recipe, data.splits.train)
        return colours

    def _fit_to_budget(self, data: _Data, deadline: float) -> Recipe:
        from foveola.training.budget import budget_candidates, fit_to_budget

        chosen = self.request.recipe is not None
        return fit_to_budget(
            [(self.recipe, 0.0)] if chosen else budget_candidates(self.request.overrides),
            data.splits, deadline, time_reporting(data.splits),
            device=self.device, flip=data.dataset.flip_safe, network=self.given.network,
        )  # fmt: skip

    def build(self, data: _Data, pretrained: "PretrainedWeights | None") -> "tuple[Classifier, LearntImages | None]":
        """The classifier with its initial weights; the images that these have learnt from, if they are a model's."""
        from foveola.training.build import build_classifier

        classifier = build_classifier(
            self.recipe, data.splits.train, self.request.seed, network=self.given.network,
            picture_polarity=data.dataset.picture_polarity, pretrained=pretrained,
        )  # fmt: skip
        if pretrained is not None:
            self.screen.print(f"Initial weights: {pretrained.origin}", soft_wrap=True)
        if self.request.init is None:
            return classifier, None
        return classifier, _initialise(classifier, Path(self.request.init), self.request.freeze, self.screen)

    def status(
        self, data: _Data, classifier: "Classifier", recorded: RecordedData, teacher: "Teaching | None"
    ) -> RunStatus:
        """What `run.json` says when the training begins."""
        from foveola.training.augment import uses_flips

        request = self.request
        return RunStatus(
            status="running",
            recipe=self.recipe,
            data=recorded,
            model=ModelSize(parameters=classifier.parameter_count),
            versions=versions(),
            seed=request.seed,
            device=self.device.type,
            threads=request.threads,
            processor=processor(),
            flip=uses_flips(self.recipe, data.dataset.flip_safe, len(data.splits.train)),
            init=request.init,
            freeze=request.freeze,
            weights=request.weights,
            pretrained=classifier.metadata.pretrained,
            teacher=None if teacher is None else teacher.record,
            precision=str(self.precision).removeprefix("torch."),
        )


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
    try:
        numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    except (TypeError, ValueError) as error:  # missing values, or values of several types
        raise DataError(
            f"groups cannot be compared with each other: {error}. Give a number or a name for each training image."
        ) from None
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
    """Seconds that metrics and plots take, measured once on random predictions; the test images stay unseen.

    The first plots also pay for imports: an estimate 0.3 s too long, which a second round would not be worth.
    """
    from foveola.evaluation.metrics import compute_metrics
    from foveola.reports.plots import plot_run

    start = time.perf_counter()
    history = [{"epoch": n, "step": n, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1} for n in (1.0, 2.0)]
    count = 0 if splits.test is None else len(splits.test)
    images = predictions = None
    if count:
        images = splits.train.take(np.arange(count) % len(splits.train))
        logits = np.random.default_rng(0).normal(size=(count, len(images.class_names))).astype(np.float32)
        predictions = Predictions(logits, images.labels, images.class_names, held_out=False)
        compute_metrics(predictions)
    with tempfile.TemporaryDirectory() as folder:
        plot_run(Path(folder), history, splits.train, images, predictions)
    return time.perf_counter() - start
