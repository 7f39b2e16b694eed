"""Train: data → splits → training → temperature → one look at the test split → run."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.datasets.reload import load_for_recipe
from foveola.datasets.splits import Overlap, Splits, divide
from foveola.documents import ModelSize, RunStatus
from foveola.errors import NonFiniteLoss, UserError, require
from foveola.files import new_folder
from foveola.images import Dataset, ImageSet
from foveola.models.learnt import LearntImages
from foveola.models.metadata import read_metadata
from foveola.predictions import Predictions
from foveola.progress import console, show_progress
from foveola.recipe import Recipe, load_recipe
from foveola.runs import Run
from foveola.workflow.calibrate import calibrate
from foveola.workflow.environment import processor, versions
from foveola.workflow.evaluate import evaluate_predictions
from foveola.workflow.open import Device, choose_device, choose_threads, model_path
from foveola.workflow.record import data_metadata, record_data

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from rich.console import Console
    from torch import nn

    from foveola.models.classifier import Classifier
    from foveola.training.callbacks import Callback, ProgressBar


MAX_TRAINING_ACCURACY_IMAGES = 1000


def train(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int | None = None,
    force: bool = False,
    budget: float | None = None,
    init: str | Path | None = None,
    freeze: bool = False,
    skip_bad: int = 0,
    groups: "str | ArrayLike | None" = None,
    network: "nn.Module | None" = None,
    callbacks: Sequence["Callback"] = (),
    report: bool = True,
    verbose: bool = True,
) -> Run:
    """Train a classifier, measure it once on the test split, and write everything into a run directory.

    Parameters
    ----------
    data : catalog name, path, or a loaded Dataset
    recipe : name, path of a TOML file, or a Recipe; by default "fast", or with a budget the one that suits it best
    out : the run's folder; by default a new one under `runs`
    overrides : values by recipe key, such as {"epochs": 3, "augment.shift": 2}
    seed : of the validation split, the initial weights, the order of images, augmentation and dropout
    device : "auto" uses a GPU if there is one
    threads : how many to compute with, from now on in this process; by default one a core
    force : replace a run that is already in `out`
    budget : seconds for everything, from this call to the written run; sets the number of steps
    init : a run or model file to copy weights from, layer by layer while names and shapes agree
    freeze : do not train the layers that `init` gave; the last layer is then not copied, but trained
    skip_bad : how many unreadable images of a folder may be skipped
    groups : keeps images of one patient, object or writer on one side of every split that is drawn: for an image
        folder, a pattern over file names with one capturing group, or "folder" for subfolders of the classes; or an
        array, one number or name for each training image
    network : a module of your own, float N×C×H×W → logits N×K, instead of the recipe's layers
    callbacks : your own, called after validation and before the best weights are chosen
    report : write report.html at the end, which takes a few seconds; not with a budget
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If recipe, data, device or folder cannot be used; nothing is written then.
    NonFiniteLoss
        If training diverges; the run then holds the last finite weights, and its status is "diverged".

    Examples
    --------
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 5}, seed=1, verbose=False)
    >>> run.status.status, run.status.data.train, run.evaluation.accuracy.value > 0.8
    ('done', 1295, True)
    """
    started = time.perf_counter()
    require("torch", "train")
    from foveola.training.augment import uses_flips
    from foveola.training.budget import budget_candidates, fit_to_budget
    from foveola.training.build import build_classifier
    from foveola.training.callbacks import ProgressBar
    from foveola.training.loop import choose_precision

    unnamed = recipe is None and network is None
    recipe = load_recipe(recipe or "fast", overrides)
    if freeze and init is None:
        raise UserError("--freeze keeps the layers that --init gives, but there is no --init. Add --init RUN.")
    chosen_device, thread_count = choose_device(device), choose_threads(threads)
    run = Run.claim(Path(out), force=force) if out is not None else None
    if init is not None:
        model_path(Path(init))  # refused before data is read
    screen = console(verbose)
    dataset = _load(data, recipe, skip_bad, groups, screen)
    dataset.check_trainable()
    splits, overlap = divide(dataset, recipe.validation, recipe.test, seed)
    if budget is not None:
        candidates = budget_candidates(overrides) if unnamed else [(recipe, 0.0)]
        recipe = fit_to_budget(
            candidates, splits, started + budget, time_reporting(splits),
            device=chosen_device, flip=dataset.flip_safe, network=network,
        )  # fmt: skip
    if recipe.resize == "auto":
        recipe = recipe.model_copy(update={"resize": dataset.resize})
    classifier = build_classifier(
        recipe, splits.train, seed, network=network, picture_polarity=dataset.picture_polarity
    )
    earlier = None if init is None else _initialise(classifier, Path(init), freeze, screen)
    recorded = record_data(dataset, splits, overlap, data, groups)
    learnt = LearntImages.of(splits.train, splits.validation, earlier)
    metadata = data_metadata(dataset, recipe, seed, recorded, learnt)
    classifier.metadata = classifier.metadata.model_copy(update=metadata)
    run = run or Run.claim(new_folder(Path("runs") / f"{dataset.name}-{recipe.name}"))
    precision = choose_precision(recipe.precision, chosen_device)
    status = RunStatus(
        status="running",
        recipe=recipe,
        data=recorded,
        model=ModelSize(parameters=classifier.parameter_count),
        versions=versions(),
        seed=seed,
        device=chosen_device.type,
        threads=thread_count,
        processor=processor(),
        flip=uses_flips(recipe, dataset.flip_safe, len(splits.train)),
        init=None if init is None else str(init),
        freeze=freeze,
        precision=str(precision).removeprefix("torch."),
    )
    screen.print(_announcement(run, status), soft_wrap=True)
    predictions = _fit_into(
        run, classifier, splits, overlap, status, callbacks, ProgressBar(screen), started,
        device=chosen_device, precision=precision,
    )  # fmt: skip
    if report and budget is None:
        screen.print("writing the report")
        _write_page(run, classifier, splits, predictions, screen)
    return run


def _load(
    data: str | Path | Dataset, recipe: Recipe, skip_bad: int, groups: "str | ArrayLike | None", screen: "Console"
) -> Dataset:
    """The data in the size and with the channels that the recipe asks for, and with its groups."""
    pattern = groups if isinstance(groups, str) else None
    if isinstance(data, Dataset):
        if pattern is not None:
            raise UserError(
                f"groups is {pattern!r}, a pattern over file names, which a loaded data set does not have. "
                f"Give it to foveola.load, or give an array with a number for each training image."
            )
        dataset = data
    else:
        with show_progress(screen) as progress:
            dataset = load_for_recipe(recipe, data, pattern, skip_bad, progress)
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
    data = read_metadata(path).data
    return None if data is None else data.learnt


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


def _fit_into(
    run: Run,
    classifier: "Classifier",
    splits: Splits,
    overlap: Overlap,
    status: RunStatus,
    callbacks: Sequence["Callback"],
    progress_bar: "ProgressBar",
    started: float,
    *,
    device: "torch.device",
    precision: "torch.dtype",
) -> Predictions | None:
    """Train, calibrate, measure, and leave a readable run behind, however the training ends."""
    from foveola.reports.plots import plot_run
    from foveola.training.callbacks import CsvLog, ElapsedTime, History, LearningRate, ValidationMetric
    from foveola.training.loop import fit

    recipe = status.recipe
    run.start(status)
    run.write_recipe(recipe)
    history = History()
    log = CsvLog(history, run.history_path)
    auc = [ValidationMetric("val_auc", _validation_auc)] if recipe.epoch_auc else []
    every = [*auc, LearningRate(), ElapsedTime(), *callbacks, *_selection(recipe), history, log, progress_bar]
    with record_outcome(run, status, started):
        training_started = time.perf_counter()
        try:
            state = fit(
                classifier, splits.train, splits.validation, recipe,
                seed=status.seed, device=device, precision=precision, flip=status.flip, callbacks=every,
            )  # fmt: skip
        finally:
            progress_bar.close()
            status.seconds.training = time.perf_counter() - training_started
            log.close()
            if history.rows:
                status.epochs, status.steps = int(history.rows[-1]["epoch"]), int(history.rows[-1]["step"])
            classifier.save(run.model_path)
        status.chosen_epoch = state.best_epoch
        calibrate(classifier, splits, recipe)
        status.reject = classifier.metadata.reject
        classifier.save(run.model_path)
        status.training_accuracy = _training_accuracy(classifier, splits.train)
        predictions = evaluate_test_split(run, classifier, splits, overlap)
        x = "epoch" if recipe.batches == "epoch" else "step"
        plot_run(run.path, history.rows, splits.train, splits.test, predictions, x=x)
    return predictions


@contextmanager
def record_outcome(run: Run, status: RunStatus, started: float) -> Iterator[None]:
    """Write into `run.json` how the training inside ended, whatever ended it."""
    try:
        yield
        status.status = "done"
    except KeyboardInterrupt:
        status.status = "interrupted"
        raise
    except NonFiniteLoss:
        status.status = "diverged"
        raise
    except BaseException:
        status.status = "failed"
        raise
    finally:
        status.seconds.total = time.perf_counter() - started
        run.write_status(status)


def _selection(recipe: Recipe) -> list["Callback"]:
    """Early stopping and best weights, as the recipe asks for them."""
    from foveola.training.callbacks import BestWeights, EarlyStopping

    best = recipe.keep == "best"
    if recipe.patience is not None:
        return [EarlyStopping(recipe.monitor, recipe.patience, recipe.min_delta, restore=best)]
    return [BestWeights(recipe.monitor, recipe.min_delta)] if best else []


def _validation_auc(predictions: Predictions) -> float:
    from foveola.evaluation.auc import auc_macro_ovr

    return auc_macro_ovr(predictions).value


def evaluate_test_split(run: Run, classifier: "Classifier", splits: Splits, overlap: Overlap) -> Predictions | None:
    """Measure on the test split: the one place of a training that reads it."""
    if splits.test is None or overlap.test is None:
        return None
    origin = classifier.metadata.data
    assert origin is not None and origin.learnt is not None, "set before the training"
    seen = overlap.test | origin.learnt.seen(splits.test.images)
    outputs = classifier.predict_outputs(splits.test.images)
    test = splits.test
    predictions = Predictions(outputs.logits, test.labels, test.class_names, not seen.any.any(), test.groups)
    evaluation = evaluate_predictions(predictions, "test", classifier.metadata, outputs.unfamiliarity, seen=seen)
    run.write_evaluation(evaluation)
    return predictions


def _training_accuracy(classifier: "Classifier", train: ImageSet) -> float:
    """Accuracy of the finished network on some of its training images, chosen at random."""
    some = np.sort(np.random.default_rng(0).permutation(len(train))[:MAX_TRAINING_ACCURACY_IMAGES])
    predicted = classifier.predict_logits(train.images[some]).argmax(axis=1)
    return float((predicted == train.labels[some]).mean())


def _write_page(
    run: Run, classifier: "Classifier", splits: Splits, predictions: Predictions | None, screen: "Console"
) -> None:
    """Write the run's page. The run is complete already, so no fault in a page may turn it into a failure."""
    from foveola.workflow.report import write_page

    try:
        write_page(run, classifier, splits, predictions)
    except Exception as error:
        screen.print(f"the report could not be written: {error}")


def _announcement(run: Run, status: RunStatus) -> str:
    """The first lines of a training."""
    model = f"{status.recipe.name}: {status.model.parameters:,} parameters; writing to {run.path}"
    return "\n".join([*status.data.summary, model])
