"""Fit, calibrate and measure a prepared classifier in a claimed folder; however it ends, what was done is kept."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveola.claims import Claim
from foveola.datasets.splits import Overlap, Splits, unit_numbers
from foveola.documents import RunStatus, TrainingRequest
from foveola.errors import NonFiniteLoss, OutputError
from foveola.files import writing
from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.progress import show_progress
from foveola.runs import Run
from foveola.workflow.calibrate import calibrate
from foveola.workflow.evaluate import evaluate_predictions
from foveola.workflow.own_network import write_graph

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from foveola.models.classifier import Classifier
    from foveola.training.callbacks import Callback
    from foveola.training.checkpoint import Checkpoint
    from foveola.training.distributed import Processes
    from foveola.training.stopping import StopSignals
    from foveola.training.trackers import Results, Tracker


# The packages that decide the last bits of a result
_COMPUTING = ("foveola", "numpy", "pillow", "torch")


@dataclass(frozen=True)
class Prepared:
    """Everything that a training needs, before its first step."""

    classifier: "Classifier"
    splits: Splits
    overlap: Overlap
    status: RunStatus
    device: "torch.device"
    precision: "torch.dtype"
    teacher_logits: "torch.Tensor | None" = None


def fit_run(
    claim: Claim | None,
    request: TrainingRequest,
    prepared: Prepared,
    callbacks: Sequence["Callback"],
    signals: "StopSignals",
    processes: "Processes",
    screen: "Console",
    started: float,
) -> Run:
    """Train in a claimed folder, from its checkpoint if there is one, and put the finished run in its place.

    Of several processes, one has claimed the folder and writes; the others train along.

    Parameters
    ----------
    claim : of the folder, or None in all processes but 0
    callbacks : the user's own
    signals : end the training at its next step, with a checkpoint
    processes : those that train together
    started : when the command began, of `time.perf_counter`

    Raises
    ------
    NonFiniteLoss
        If training diverges.
    OutputError
        If something cannot be written; the last checkpoint is whole.
    """
    from foveola.training.checkpoint import Checkpoint

    status = prepared.status
    path = processes.from_leader(None if claim is None else os.fsencode(claim.path))
    if claim is None:
        assert path is not None, "process 0 has claimed a folder"
        return _train_along(Path(os.fsdecode(path)), request, prepared, callbacks, signals, processes, screen)
    claim.write_request(request)
    claim.begun = True
    again = _resume(claim, request)
    trackers = _trackers(claim, request, status, screen)
    screen.print(_announcement(claim, status), soft_wrap=True)
    checkpoint = Checkpoint(
        claim.state_path, request.checkpoint_every, _identity(status), _build(status, processes), signals, processes,
        announce=lambda text: screen.print(text, soft_wrap=True),
    )  # fmt: skip
    run = claim.result
    with _tracked(trackers, status), _unfinished(claim, status, screen, again):
        try:
            _fit(run, prepared, callbacks, trackers, checkpoint, signals, screen)
            with processes.together(), writing(claim.path, f"Make room, and go on: {again}"):
                predictions = _measure(run, prepared, screen)
            status.status = "done"
        finally:
            status.seconds.total = checkpoint.seconds + time.perf_counter() - started
        with processes.together():
            run.write_status(status)
            for tracker in trackers:
                tracker.finish(_results(run, status, predictions))
            if request.report:
                screen.print("writing the report")
                _write_page(run, prepared.classifier, prepared.splits, predictions, screen)
    with processes.together(), signals.deferred():  # the run is whole: a signal now changes nothing
        return claim.finish()


def _train_along(
    path: Path,
    request: TrainingRequest,
    prepared: Prepared,
    callbacks: Sequence["Callback"],
    signals: "StopSignals",
    processes: "Processes",
    screen: "Console",
) -> Run:
    """Train together with process 0, and wait until the run in `path` is finished."""
    from foveola.training.callbacks import Callback
    from foveola.training.checkpoint import Checkpoint

    status = prepared.status
    build = _build(status, processes)
    checkpoint = Checkpoint(path, request.checkpoint_every, _identity(status), build, signals, processes)
    # Each stands for a tracker of process 0, whose place in a checkpoint it has
    _fit(None, prepared, callbacks, [Callback() for _ in request.log], checkpoint, signals, screen)
    for _ in ("measured", "reported", "published"):
        with processes.together():
            pass
    return Run(path)


def _fit(
    run: Run | None,
    prepared: Prepared,
    callbacks: Sequence["Callback"],
    trackers: Sequence["Callback"],
    checkpoint: "Checkpoint",
    signals: "StopSignals",
    screen: "Console",
) -> None:
    """Train. An unfinished training leaves its last weights and its history in the run, to be looked at.

    The run is None in a process that does not write.
    """
    from foveola.training.callbacks import (
        Callback,
        CsvLog,
        ElapsedTime,
        History,
        LearningRate,
        ProgressBar,
        ValidationMetric,
        selection,
    )
    from foveola.training.loop import fit

    classifier, splits, status = prepared.classifier, prepared.splits, prepared.status
    recipe = status.recipe
    history, elapsed, progress_bar = History(), ElapsedTime(), ProgressBar(screen)
    log = Callback() if run is None else CsvLog(history, run.history_path)
    auc = [ValidationMetric("val_auc", _validation_auc)] if recipe.epoch_auc else []
    every = [
        *auc, LearningRate(), elapsed, *callbacks, *selection(recipe), history, log, *trackers, progress_bar,
    ]  # fmt: skip
    before = partial(_fit_head, prepared, screen) if recipe.head_views else None
    try:
        with signals.deferred():
            status.chosen_epoch = fit(
                classifier, splits.train, splits.validation, recipe,
                seed=status.seed, device=prepared.device, precision=prepared.precision, flip=status.flip,
                callbacks=every, processes=checkpoint.processes, checkpoint=checkpoint, before=before,
                teacher_logits=prepared.teacher_logits,
            ).best_epoch  # fmt: skip
    except BaseException:
        if run is not None and isinstance(log, CsvLog):
            with suppress(OSError):  # what went wrong is already being raised
                log.close()
                classifier.save(run.model_path)
        raise
    finally:
        progress_bar.close()
        status.seconds.training = elapsed.seconds
        if history.rows:
            status.epochs, status.steps = int(history.rows[-1]["epoch"]), int(history.rows[-1]["step"])
    signals.end()


def _fit_head(prepared: Prepared, screen: "Console") -> None:
    """Fit the last layer to the features of the others, and say how well that went."""
    from foveola.training.head import fit_head

    train, status = prepared.splits.train, prepared.status
    units = unit_numbers(Splits(train, None, None), prepared.overlap.together)
    with show_progress(screen) as progress:
        fitted = fit_head(
            prepared.classifier, train, status.recipe, units,
            seed=status.seed, device=prepared.device, precision=prepared.precision, flip=status.flip,
            announce=lambda done, total: progress(done, total, "features"),
        )  # fmt: skip
    views = "" if fitted.views == 1 else f" of {fitted.views} views"
    if fitted.accuracy is None:
        how = f"too few different images for cross-validation: regularization {fitted.strength:g}"
    else:
        how = f"cross-validated accuracy {fitted.accuracy:.4f}"
    screen.print(
        f"last layer fitted to the features{views} of {fitted.images:,} images in {fitted.seconds:.1f} s; {how}",
        soft_wrap=True,
    )


def _measure(run: Run, prepared: Prepared, screen: "Console") -> Predictions | None:
    """Calibrate, save, and look at the test split once."""
    from foveola.reports.plots import plot_run

    classifier, splits, status = prepared.classifier, prepared.splits, prepared.status
    classifier.save(run.model_path)  # to be looked at if its outputs are not finite
    calibrate(classifier, splits, status.recipe)
    status.reject = classifier.metadata.reject
    run.write_recipe(status.recipe)
    classifier.save(run.model_path)
    if classifier.metadata.layers is None:
        status.graph = write_graph(run, classifier, splits.train.images, screen)
    status.training_accuracy = _training_accuracy(classifier, splits.train)
    predictions = evaluate_test_split(run, classifier, splits, prepared.overlap)
    x = "epoch" if status.recipe.batches == "epoch" else "step"
    plot_run(run.path, run.history, splits.train, splits.test, predictions, x=x)
    return predictions


@contextmanager
def _unfinished(claim: Claim, status: RunStatus, screen: "Console", again: str) -> Iterator[None]:
    """Keep what was done, and say in `run.json` why it is not more, if anything ends the training inside."""
    try:
        yield
    except BaseException as error:
        match error:
            case KeyboardInterrupt() | SystemExit():
                status.status = "interrupted"
            case NonFiniteLoss():
                status.status = "diverged"
            case _:
                status.status = "failed"
        _keep(claim, status, screen, again)
        raise


def _keep(claim: Claim, status: RunStatus, screen: "Console", again: str) -> None:
    """Keep what an unfinished training has come to. Why it ended is being raised: no other error takes its place."""
    with suppress(OSError, OutputError):
        claim.result.write_recipe(status.recipe)
        claim.result.write_status(status)
        if status.status != "diverged":
            claim.show()
            screen.print(f"To go on with it: {again}", soft_wrap=True)
        elif claim.keeps_old:
            claim.discard()
            screen.print(f"{claim.path} still holds the run that was there before", soft_wrap=True)
        else:
            claim.finish()


def _resume(claim: Claim, request: TrainingRequest) -> str:
    """The command that goes on. It names callbacks again: no file says which code is run."""
    return " ".join([f"foveola train --resume {claim.path}", *(f"--callback {name}" for name in request.callbacks)])


def _trackers(claim: Claim, request: TrainingRequest, status: RunStatus, screen: "Console") -> "list[Tracker]":
    from foveola.training.trackers import TRACKERS

    settings = {
        "recipe": status.recipe.model_dump(mode="json", exclude_none=True),
        "data": status.data.name,
        "fingerprint": status.data.fingerprint,
        "parameters": status.model.parameters,
        **status.model_dump(mode="json", include={"seed", "device", "threads", "precision", "init", "versions"}),
    }
    return [
        TRACKERS[name](
            claim.path, claim.tracker_path(name), claim.path.resolve().name, settings,
            lambda text: screen.print(text, soft_wrap=True),
        )
        for name in request.log
    ]  # fmt: skip


@contextmanager
def _tracked(trackers: "Sequence[Tracker]", status: RunStatus) -> Iterator[None]:
    """Close the trackers, however the training ends."""
    try:
        yield
    finally:
        for tracker in trackers:
            tracker.close(status.status)


def _results(run: Run, status: RunStatus, predictions: Predictions | None) -> "Results":
    """What trackers get of a measured run."""
    from foveola.training.trackers import Results

    metrics: dict[str, float] = {}
    for name, estimate in (run.evaluation.metrics if predictions is not None else {}).items():
        values = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        metrics |= {f"test_{name}{end}": value for end, value in values.items() if value is not None}
    files = (run.model_path, run.path / "recipe.toml", run.history_path, run.evaluation_path, run.path / "model.onnx")
    return Results(status.epochs, sorted(run.path.glob("*.png")), metrics, [path for path in files if path.is_file()])


def _identity(status: RunStatus) -> str:
    """What makes a checkpoint this training's and no other's."""
    what = f"{status.recipe.model_dump_json()} {status.seed} {status.data.fingerprint} {status.init} {status.freeze}"
    if status.pretrained is not None:
        what += f" {status.pretrained.sha256}"
    if status.teacher is not None:
        what += f" {status.teacher.sha256}"
    return hashlib.sha256(what.encode()).hexdigest()


def _build(status: RunStatus, processes: "Processes") -> dict[str, str]:
    """What decides the last bits of a result."""
    installed = {name: status.versions[name] for name in _COMPUTING}
    return installed | {
        "device": status.device,
        "threads": str(status.threads),
        "processor": str(status.processor),
        "precision": str(status.precision),
        "processes": str(processes.size),
    }


def _announcement(claim: Claim, status: RunStatus) -> str:
    """The first lines of a training."""
    from foveola.training.augment import describe

    changes = describe(status.recipe.augment, status.flip)
    augmentation = [f"augmentation: {changes}"] if changes else []
    model = f"{status.recipe.name}: {status.model.parameters:,} parameters; writing to {claim.path}"
    return "\n".join([*status.data.summary, *augmentation, model])


def _validation_auc(predictions: Predictions) -> float:
    from foveola.evaluation.auc import auc_macro_ovr

    return auc_macro_ovr(predictions).value


def evaluate_test_split(run: Run, classifier: "Classifier", splits: Splits, overlap: Overlap) -> Predictions | None:
    """Measure on the test split: the one place of a training that reads it."""
    if splits.test is None or overlap.test is None:
        return None
    origin = classifier.metadata.data
    assert origin is not None, "set before the training"
    # Of more images than a model file can name, those are known that are in the splits of this training
    seen = overlap.test | origin.learnt.seen(splits.test.images) if origin.learnt is not None else overlap.test
    outputs = classifier.predict_outputs(splits.test.images)
    test = splits.test
    predictions = Predictions(
        outputs.logits, test.labels, test.class_names, not seen.any.any(), test.groups, test.weights,
        classifier.metadata.thresholds,
    )  # fmt: skip
    evaluation = evaluate_predictions(predictions, "test", classifier.metadata, outputs.unfamiliarity, seen=seen)
    run.write_evaluation(evaluation)
    return predictions


def _training_accuracy(classifier: "Classifier", train: ImageSet) -> float:
    """Accuracy of the finished network on some of its training images, chosen at random."""
    from foveola.training.budget import MAX_ACCURACY_IMAGES, count_accuracy_images

    metadata, count = classifier.metadata, MAX_ACCURACY_IMAGES
    if metadata.layers is not None:
        shape, classes = metadata.network_shape, len(metadata.class_names)
        count = count_accuracy_images(metadata.layers, shape, classes, len(train))
    some = np.sort(np.random.default_rng(0).permutation(len(train))[:count])
    logits, thresholds = classifier.predict_logits(train.images[some]), metadata.thresholds
    weights = None if train.weights is None or not train.weights[some].any() else train.weights[some]
    predictions = Predictions(
        logits, train.labels[some], train.class_names, held_out=False, weights=weights, thresholds=thresholds
    )
    return predictions.mean(predictions.right)


def _write_page(
    run: Run, classifier: "Classifier", splits: Splits, predictions: Predictions | None, screen: "Console"
) -> None:
    """Write the run's page. The run is complete already, so no fault in a page may turn it into a failure."""
    from foveola.workflow.report import write_page

    try:
        write_page(run, classifier, splits, predictions)
    except Exception as error:
        screen.print(f"the report could not be written: {error}")
