"""Data → split → training → temperature → one look at the test split → run."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.datasets import CATALOG, load
from foveola.errors import NonFiniteLoss, UserError, require
from foveola.images import Dataset
from foveola.models.card import DataOrigin, Rejection
from foveola.predictions import Predictions
from foveola.recipe import Recipe, load_recipe
from foveola.run import Run
from foveola.workflow.budget import networks, within_budget
from foveola.workflow.evaluate import measure
from foveola.workflow.machine import versions
from foveola.workflow.opening import Device, choose_device, model_path
from foveola.workflow.progress import console, reading
from foveola.workflow.splits import Parts, split

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from torch import nn

    from foveola.models.classifier import Classifier
    from foveola.training.callbacks import Callback
    from foveola.training.progress import ProgressReport


def train(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Device = "auto",
    force: bool = False,
    budget: float | None = None,
    init: str | Path | None = None,
    freeze: bool = False,
    skip_bad: int = 0,
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
    device : auto takes a GPU where there is one
    force : replace a run that is already in `out`
    budget : seconds that everything may take, from this call to the written run; sets the number of steps
    init : a run or model file whose weights are taken over, layer by layer, where names and shapes agree
    freeze : keep the layers that `init` gave as they are; the last one is then not taken over, and learns
    skip_bad : how many unreadable images of a folder may be left out
    network : the user's own module, float N×C×H×W → logits N×K, instead of the recipe's layers
    callbacks : the user's own, called after validation and before the choice of weights
    report : write the run's page, which takes some seconds more, unless there is a budget
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If recipe, data, device or folder cannot be used; nothing is written then.
    NonFiniteLoss
        If training diverges; the run then holds the last finite weights, and its status is "diverged".
    """
    started = time.perf_counter()
    require("torch", "train")
    from foveola.models.classifier import new_classifier
    from foveola.training.progress import ProgressReport
    from foveola.training.transfer import take_over

    unnamed = recipe is None and network is None
    recipe = load_recipe(recipe or "fast", overrides)
    if freeze and init is None:
        raise UserError("--freeze keeps the layers that --init gives, but there is no --init. Add --init RUN.")
    place = choose_device(device)
    run = Run.claim(Path(out), force=force) if out is not None else None
    source = model_path(Path(init)) if init is not None else None
    screen = console(verbose)
    with reading(screen) as progress:
        size, channels = recipe.image_size, {"data": None, "grey": 1, "rgb": 3}[recipe.channels]
        dataset = (
            data
            if isinstance(data, Dataset)
            else load(data, image_size=size, channels=channels, skip_bad=skip_bad, progress=progress)
        )
    flip = recipe.augment.flip is True or (recipe.augment.flip == "auto" and dataset.flip_safe)
    parts = split(dataset, recipe.validation, recipe.test, seed)
    if budget is not None:
        candidates = networks(overrides) if unnamed else [(recipe, 0.0)]
        recipe = within_budget(candidates, parts, started + budget, device=place, flip=flip, network=network)
    classifier = new_classifier(recipe, parts.train, seed, network=network)
    if source is not None:
        taken = take_over(classifier, source, freeze=freeze)
        screen.print(f"taken over{' and frozen' if freeze else ''}: {', '.join(taken)}", highlight=False)
    classifier.card = classifier.card.model_copy(update={"data": _origin(dataset, recipe, seed)})
    run = run or Run.claim(_new_folder(dataset.name, recipe.name))
    status = _status(recipe, dataset, parts, classifier) | {"seed": seed, "device": place.type, "flip": flip}
    status["data"]["path"] = _lying_at(data)
    status |= {"init": None if init is None else str(init), "freeze": freeze}
    screen.print(_announcement(run, status), highlight=False, soft_wrap=True)
    progress_report = ProgressReport(screen)
    predictions = _fit_into(run, classifier, parts, recipe, status, place, callbacks, progress_report, started)
    if report and budget is None:
        screen.print("writing the report", highlight=False)
        _write_page(run, classifier, parts, predictions, screen)
    return run


def _fit_into(
    run: Run,
    classifier: "Classifier",
    parts: Parts,
    recipe: Recipe,
    status: dict[str, Any],
    device: "torch.device",
    callbacks: Sequence["Callback"],
    report: "ProgressReport",
    started: float,
) -> Predictions | None:
    """Train, calibrate, measure, and leave a readable run behind, however the training ends."""
    from foveola.report.pictures import draw_pictures
    from foveola.training.callbacks import CsvLog, Duration, EpochMetric, History, LearningRate
    from foveola.training.loop import choose_precision, fit

    precision = choose_precision(recipe.precision, device)
    status["precision"] = str(precision).removeprefix("torch.")
    run.start(status)
    run.write_recipe(recipe)
    history = History()
    log = CsvLog(history, run.history_path)
    auc = [EpochMetric("val_auc", _validation_auc)] if recipe.epoch_auc else []
    ours = [*auc, LearningRate(), Duration(), *callbacks, *_selection(recipe)]
    ours += [history, log, report]
    with _recorded(run, status, started):
        training_started = time.perf_counter()
        try:
            state = fit(
                classifier, parts.train, parts.validation, recipe,
                seed=status["seed"], device=device, precision=precision, flip=status["flip"], callbacks=ours,
            )  # fmt: skip
        finally:
            report.close()
            status["seconds"]["training"] = time.perf_counter() - training_started
            log.close()
            if history.rows:
                status |= {"epochs": int(history.rows[-1]["epoch"]), "steps": int(history.rows[-1]["step"])}
            classifier.save(run.model_path)
        status["chosen_epoch"] = state.chosen_epoch
        _calibrate(classifier, parts, recipe.reject)
        status["reject"] = classifier.card.reject and classifier.card.reject.model_dump()
        classifier.save(run.model_path)
        predictions = _look_once(run, classifier, parts)
        x = "epoch" if recipe.batches == "epoch" else "step"
        draw_pictures(run.path, history.rows, parts.train, parts.test, predictions, x=x)
    return predictions


@contextmanager
def _recorded(run: Run, status: dict[str, Any], started: float) -> Iterator[None]:
    """However the training inside ends, the run says how."""
    try:
        yield
        status["status"] = "done"
    except BaseException as end:
        status["status"] = {KeyboardInterrupt: "interrupted", NonFiniteLoss: "diverged"}.get(type(end), "failed")
        raise
    finally:
        status["seconds"]["total"] = time.perf_counter() - started
        run.write_status(status)


def _selection(recipe: Recipe) -> list["Callback"]:
    """Early stopping and best weights, as the recipe asks for them."""
    from foveola.training.callbacks import BestWeights, EarlyStopping

    best = recipe.keep == "best"
    if recipe.patience is not None:
        return [EarlyStopping(recipe.monitor, recipe.patience, recipe.min_delta, restore=best)]
    return [BestWeights(recipe.monitor, recipe.min_delta)] if best else []


def _validation_auc(predictions: Predictions) -> float:
    from foveola.evaluation.metrics import auc_macro_ovr

    return auc_macro_ovr(predictions).value


def _calibrate(classifier: "Classifier", parts: Parts, accepted_error: float | None) -> None:
    """Choose temperature and threshold on the validation images, and put them into the model."""
    from foveola.evaluation.calibration import fit_temperature
    from foveola.evaluation.rejection import choose_threshold

    if parts.validation is None:
        return
    logits, labels = classifier.predict_logits(parts.validation.images), parts.validation.labels
    if not np.isfinite(logits).all():  # the last step's weights are finite, but overflow
        raise NonFiniteLoss(
            "After the last step, the network's outputs are not finite. Training has diverged; "
            "lower the learning rate with --set learning_rate=…"
        )
    temperature = fit_temperature(logits, labels)
    reject = None
    if accepted_error is not None:
        calibrated = Predictions(logits / np.float32(temperature), labels, classifier.class_names, held_out=True)
        reject = Rejection(error=accepted_error, threshold=choose_threshold(calibrated, accepted_error))
    classifier.card = classifier.card.model_copy(update={"temperature": temperature, "reject": reject})


def _look_once(run: Run, classifier: "Classifier", parts: Parts) -> Predictions | None:
    """Measure on the test split: the one place of a training that reads it."""
    if parts.test is None:
        return None
    logits = classifier.predict_logits(parts.test.images)
    predictions = Predictions(logits, parts.test.labels, parts.test.class_names, held_out=True)
    run.write_evaluation(measure(predictions, "test", classifier.card))
    return predictions


def _write_page(
    run: Run, classifier: "Classifier", parts: Parts, predictions: Predictions | None, screen: "Console"
) -> None:
    """Write the run's page; the run is whole already, so that nothing in a page may turn it into a failure."""
    from foveola.workflow.report import write_page

    try:
        write_page(run, classifier, parts, predictions)
    except Exception as error:
        screen.print(f"the report could not be written: {error}", highlight=False, markup=False)


def _status(recipe: Recipe, dataset: Dataset, parts: Parts, classifier: "Classifier") -> dict[str, Any]:
    """What `run.json` says when training starts."""
    return {
        "status": "running",
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            **{name: len(part) if part is not None else 0 for name, part in vars(parts).items()},
            "classes": list(dataset.class_names),
            "image_shape": list(dataset.image_shape),
            "skipped": list(dataset.skipped),
        },
        "model": {"parameters": classifier.parameter_count},
        "seconds": {"training": 0.0, "total": 0.0},
        "epochs": 0,
        "steps": 0,
        "chosen_epoch": 0,
        "reject": None,
        "versions": versions(),
    }


def _lying_at(data: str | Path | Dataset) -> str | None:
    """Where data that came by its path will be found again."""
    if isinstance(data, Dataset) or (isinstance(data, str) and data in CATALOG):
        return None
    return str(Path(data).resolve())


def _announcement(run: Run, status: Mapping[str, Any]) -> str:
    data, model = status["data"], status["model"]
    return (
        f"{data['name']}: {data['train']:,} images to learn from, {data['validation']:,} to validate, {data['test']:,} "
        f"held out for the test; {len(data['classes'])} classes\n"
        f"{status['recipe']['name']}: {model['parameters']:,} parameters; writing to {run.path}"
    )


def _origin(dataset: Dataset, recipe: Recipe, seed: int) -> DataOrigin:
    return DataOrigin(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        licence=dataset.licence,
        validation=recipe.validation,
        test=recipe.test if dataset.test is None else None,
        seed=seed,
    )


def _new_folder(data: str, recipe: str) -> Path:
    """A folder under `runs` that is not there yet."""
    first = Path("runs") / f"{data}-{recipe}"
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder
