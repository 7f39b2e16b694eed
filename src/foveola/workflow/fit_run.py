"""Fit, calibrate and measure a prepared classifier in a claimed folder; however it ends, what was done is kept."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foveola.claims import Claim
from foveola.datasets.splits import Overlap, Splits
from foveola.documents import RunStatus, TrainingRequest
from foveola.errors import NonFiniteLoss, OutputError
from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.runs import Run
from foveola.workflow.calibrate import calibrate
from foveola.workflow.evaluate import evaluate_predictions

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from foveola.models.classifier import Classifier
    from foveola.training.callbacks import Callback
    from foveola.training.checkpoint import Checkpoint
    from foveola.training.stopping import StopSignals


MAX_TRAINING_ACCURACY_IMAGES = 1000
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


def fit_run(
    claim: Claim,
    request: TrainingRequest,
    prepared: Prepared,
    callbacks: Sequence["Callback"],
    signals: "StopSignals",
    screen: "Console",
    started: float,
) -> Run:
    """Train in a claimed folder, from its checkpoint if there is one, and put the finished run in its place.

    Parameters
    ----------
    callbacks : the user's own
    signals : end the training at its next step, with a checkpoint
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
    claim.write_request(request)
    claim.begun = True
    screen.print(_announcement(claim, status), soft_wrap=True)
    checkpoint = Checkpoint(
        claim.state_path, request.checkpoint_every, _identity(status), _build(status), signals,
        announce=lambda text: screen.print(text, soft_wrap=True),
    )  # fmt: skip
    with _outcome(claim, status, checkpoint, screen, started):
        predictions = _fit(claim.result, prepared, callbacks, checkpoint, signals, screen)
    if request.report:
        screen.print("writing the report")
        _write_page(claim.result, prepared.classifier, prepared.splits, predictions, screen)
    return claim.finish()


def _fit(
    run: Run,
    prepared: Prepared,
    callbacks: Sequence["Callback"],
    checkpoint: "Checkpoint",
    signals: "StopSignals",
    screen: "Console",
) -> Predictions | None:
    """Train, calibrate, measure."""
    from foveola.reports.plots import plot_run
    from foveola.training.callbacks import CsvLog, ElapsedTime, History, LearningRate, ProgressBar, ValidationMetric
    from foveola.training.loop import fit

    classifier, splits, status = prepared.classifier, prepared.splits, prepared.status
    recipe = status.recipe
    run.write_recipe(recipe)
    history, elapsed, progress_bar = History(), ElapsedTime(), ProgressBar(screen)
    log = CsvLog(history, run.history_path)
    auc = [ValidationMetric("val_auc", _validation_auc)] if recipe.epoch_auc else []
    every = [*auc, LearningRate(), elapsed, *callbacks, *_selection(recipe), history, log, progress_bar]
    try:
        with signals.deferred():
            state = fit(
                classifier, splits.train, splits.validation, recipe,
                seed=status.seed, device=prepared.device, precision=prepared.precision, flip=status.flip,
                callbacks=every, checkpoint=checkpoint,
            )  # fmt: skip
    finally:
        progress_bar.close()
        status.seconds.training = elapsed.seconds
        if history.rows:
            status.epochs, status.steps = int(history.rows[-1]["epoch"]), int(history.rows[-1]["step"])
        log.close()
        classifier.save(run.model_path)
    signals.end()
    status.chosen_epoch = state.best_epoch
    calibrate(classifier, splits, recipe)
    status.reject = classifier.metadata.reject
    classifier.save(run.model_path)
    status.training_accuracy = _training_accuracy(classifier, splits.train)
    predictions = evaluate_test_split(run, classifier, splits, prepared.overlap)
    x = "epoch" if recipe.batches == "epoch" else "step"
    plot_run(run.path, history.rows, splits.train, splits.test, predictions, x=x)
    return predictions


@contextmanager
def _outcome(
    claim: Claim, status: RunStatus, checkpoint: "Checkpoint", screen: "Console", started: float
) -> Iterator[None]:
    """Write into `run.json` how the training inside ended, whatever ended it."""
    try:
        yield
        status.status = "done"
    except (KeyboardInterrupt, SystemExit):
        status.status = "interrupted"
        raise
    except NonFiniteLoss:
        status.status = "diverged"
        raise
    except BaseException:
        status.status = "failed"
        raise
    finally:
        status.seconds.total = checkpoint.seconds + time.perf_counter() - started
        if status.status == "done":
            claim.result.write_status(status)
        else:
            _keep(claim, status, screen)


def _keep(claim: Claim, status: RunStatus, screen: "Console") -> None:
    """Keep what an unfinished training has come to. Why it ended is being raised: no other error takes its place."""
    with suppress(OSError, OutputError):
        claim.result.write_status(status)
        if status.status != "diverged":
            claim.show()
            screen.print(f"To go on with it: foveola train --resume {claim.path}", soft_wrap=True)
        elif claim.keeps_old:
            claim.discard()
        else:
            claim.finish()


def _identity(status: RunStatus) -> str:
    """What makes a checkpoint this training's and no other's."""
    what = f"{status.recipe.model_dump_json()} {status.seed} {status.data.fingerprint} {status.init} {status.freeze}"
    return hashlib.sha256(what.encode()).hexdigest()


def _build(status: RunStatus) -> dict[str, str]:
    """What decides the last bits of a result."""
    installed = {name: status.versions[name] for name in _COMPUTING}
    return installed | {
        "device": status.device,
        "threads": str(status.threads),
        "processor": str(status.processor),
        "precision": str(status.precision),
    }


def _announcement(claim: Claim, status: RunStatus) -> str:
    """The first lines of a training."""
    model = f"{status.recipe.name}: {status.model.parameters:,} parameters; writing to {claim.path}"
    return "\n".join([*status.data.summary, model])


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
