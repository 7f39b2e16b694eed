"""Compare: runs measured on the same test images, the significance of their differences, and their costs."""

import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from foveola.claims import unfinished_request
from foveola.datasets import Progress
from foveola.datasets.reload import GIVEN_GROUPS, RecordedData, check_fingerprint, reload_data
from foveola.datasets.splits import select_split
from foveola.documents import (
    ComparedPair,
    ComparedRun,
    Comparison,
    DataSummary,
    Disagreement,
    SeedAccuracy,
    Significance,
)
from foveola.errors import DataError, ModelError, OutputError, UserError, require
from foveola.evaluation.comparison import (
    accuracy_difference,
    holm,
    is_significant,
    mcnemar,
    metric_differences,
    scope,
    verdict,
)
from foveola.evaluation.costs import Speed, device_name, measure_speeds, multiply_adds, parameters_by_image_size
from foveola.evaluation.metrics import accuracy
from foveola.files import write_atomically, writing
from foveola.images import Dataset, ImageSet, check_one_class
from foveola.models.model_file import read_metadata
from foveola.predictions import Predictions, Predictor
from foveola.progress import console, show_progress
from foveola.recipe import Recipe
from foveola.runs import Run, run_folder
from foveola.workflow.open import Device, choose_device, choose_threads, model_path, open_model
from foveola.workflow.train import resume, train

PREDICTION_CHUNK = 2048


@dataclass(frozen=True)
class _Side:
    """A run, the trainings of its recipe with other seeds, and the predictions of each for the test images."""

    name: str
    trainings: list[Run]
    classifier: Predictor
    predictions: list[Predictions]

    @property
    def recipe(self) -> Recipe:
        return self.trainings[0].recipe


def compare(
    *runs: str | Path | Run,
    data: object = None,
    seeds: int = 1,
    out: str | Path | None = None,
    device: Device = "auto",
    threads: int | None = None,
    verbose: bool = True,
) -> Comparison:
    """Compare runs of the same data on their test images: the first with each of the others.

    Parameters
    ----------
    runs : at least two runs, or their directories
    data : the runs' data, as for `foveola.load`; by default found by its name or its recorded path
    seeds : trainings per run; with more than one, each run's recipe is trained with the next seeds, into folders beside
        it (RUN-seed1, …); existing ones are reused
    out : an HTML file to write, with the images that the models disagree on
    device : where to predict, to measure speed, and to train further seeds
    threads : number of threads, from now on in this process; by default one per core
    verbose : report progress on standard error

    Returns
    -------
    The document of `foveola compare --json`. Differences are the first run's metric less the second's; p-values of
    several pairs are corrected (Holm 1979); `scaling` has rows if one of the networks is dense from the start.

    Raises
    ------
    UserError
        If there are fewer than two runs, one is not finished, or they have no test images in common.

    Examples
    --------
    >>> first = foveola.train("digits", "mlp", overrides={"epochs": 1}, verbose=False)
    >>> second = foveola.train("digits", "mlp", overrides={"epochs": 4}, verbose=False)
    >>> comparison = foveola.compare(first.path, second.path, verbose=False)
    >>> comparison.n, comparison.pairs[0].test.name
    (359, "McNemar's exact test")
    """
    require("torch", "train")
    if len(runs) < 2:
        raise UserError("A comparison takes at least two runs. Name a second one.")
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}; each run needs at least 1.")
    chosen_device = choose_device(device)
    choose_threads(threads)
    paths = [os.fspath(run_folder(run)) for run in runs]
    opened = [_finished(path) for path in paths]
    _check_same_data(opened)
    page = _writable(out)
    screen = console(verbose)
    with show_progress(screen) as progress:
        dataset = _read(opened[0], data, progress)
    check_fingerprint(opened[0].status.data, opened[0].path, dataset)
    check_one_class(dataset, "Runs are compared")
    unique = {run.path: run for run in opened}
    classifiers = {path: open_model(run.path, device=device, threads=threads) for path, run in unique.items()}
    test = _common_test_images(dataset, classifiers)
    trainings = {path: _trainings(run, dataset, seeds, device, verbose) for path, run in unique.items()}
    with show_progress(screen) as progress:
        sides = {
            path: _Side(_name(path, opened), of_run, classifiers[path], _predict(of_run, test, device, progress))
            for path, of_run in trainings.items()
        }
        speeds = measure_speeds(classifiers, test.images, progress)
        compared = [sides[run.path] for run in opened]
        pairs = _pairs(compared, progress)
    comparison = Comparison(
        data=DataSummary(name=dataset.name, fingerprint=dataset.fingerprint, classes=list(test.class_names)),
        split="test",
        n=len(test),
        seeds=seeds,
        scope=scope(seeds, _more_seeds(paths, opened, classifiers), weighted=test.weights is not None),
        measured_on=device_name(chosen_device),
        runs=[_compared_run(side, speeds[side.trainings[0].path]) for side in compared],
        pairs=pairs,
        scaling=parameters_by_image_size({side.name: side.recipe for side in sides.values()}, len(test.class_names)),
    )
    if page is not None:
        from foveola.reports.comparison import comparison_page

        with writing(page):
            write_atomically(page, comparison_page(comparison, test))
    return comparison


def _finished(path: str) -> Run:
    """A run whose training has ended, and that has test images."""
    run = Run.open(path)
    if run.status.status == "imported":
        raise ModelError(
            f"{path} was imported, so that it has no test images to compare it on. Measure both models on the same "
            f"images: foveola evaluate {path} DATA."
        )
    if run.status.status != "done":
        raise ModelError(
            f"The training of {path} is not complete: it was {run.status.status}. Go on with it if it was interrupted "
            f"(foveola train --resume {path}), or train it again."
        )
    if not run.status.data.test:
        raise ModelError(
            f"{path} was trained without test images, so there is nothing to compare it on. "
            f"Train it with --set test=0.2."
        )
    return run


def _check_same_data(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs[1:]:
        ours, theirs = first.status.data, other.status.data
        if ours.fingerprint != theirs.fingerprint:
            raise DataError(
                f"{first.path.name} was trained on {_data_text(ours)}, {other.path.name} on {_data_text(theirs)}. "
                f"Models can only be compared on the same test images: train both on the same data, with the same "
                f"image_size and channels."
            )


def _more_seeds(paths: Sequence[str], runs: Sequence[Run], classifiers: Mapping[Path, Predictor]) -> str | None:
    """The command that compares over seeds; None for a run that its recipe alone does not repeat."""
    if any(run.status.init or classifiers[run.path].metadata.layers is None for run in runs):
        return None
    return shlex.join(["foveola", "compare", *paths, "--seeds", "5"])


def _data_text(data: RecordedData) -> str:
    return f"{data.name} (fingerprint {data.fingerprint[:12]})"


def _writable(out: str | Path | None) -> Path | None:
    """The page's path, checked before the trainings."""
    if out is None:
        return None
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OutputError(
            f"{path} cannot be written: it is a folder, or in one that does not exist. Choose another --out."
        )
    return path


def _read(run: Run, data: object, progress: Progress) -> Dataset:
    metadata, purpose = read_metadata(model_path(run.path)), "Runs are compared on their test images"
    return reload_data(run.status.data, run.path, metadata, data, purpose, progress)


def _common_test_images(dataset: Dataset, classifiers: Mapping[Path, Predictor]) -> ImageSet:
    parts = {path: select_split(dataset, model.metadata, "test").images for path, model in classifiers.items()}
    first, test = next(iter(parts.items()))
    for path, other in parts.items():
        if other.fingerprint != test.fingerprint:
            raise DataError(
                f"{first.name} was measured on {len(test):,} test images, {path.name} on {len(other):,} others of the "
                f"same data. Models can only be compared on the same images: train both again, with the same "
                f"--set test=… and --groups."
            )
    return test


def _trainings(run: Run, dataset: Dataset, seeds: int, device: Device, verbose: bool) -> list[Run]:
    """The run, and its recipe trained with the next seeds."""
    status = run.status
    if seeds > 1 and status.init:
        raise UserError(
            f"{run.path} was initialised from {status.init}, which its recipe does not say, so further seeds cannot be "
            f"trained from the recipe. Train them yourself, and compare the runs without --seeds."
        )
    if seeds > 1 and status.graph is not None:
        raise UserError(
            f"{run.path} has a network of your own, which its recipe does not say, so further seeds cannot be trained "
            f"here. Train them yourself, and compare the runs without --seeds."
        )
    if seeds > 1 and status.data.groups == GIVEN_GROUPS and dataset.train.groups is None:
        raise UserError(
            f"The images of {run.path} were grouped by an array, which the run does not hold, so further seeds cannot "
            f"be trained on the same split. Compare from Python, and give data=Dataset with these groups."
        )
    return [
        run,
        *(_trained(run, dataset, seed, device, verbose) for seed in range(status.seed + 1, status.seed + seeds)),
    ]


def _trained(run: Run, dataset: Dataset, seed: int, device: Device, verbose: bool) -> Run:
    """The same recipe with another seed: found beside the run, or trained."""
    name = run.path.resolve().name
    folder = (run.path if run.path.name == name else run.path.resolve()).with_name(f"{name}-seed{seed}")
    interrupted = unfinished_request(folder)
    if interrupted is not None:
        if (interrupted.recipe, interrupted.seed, interrupted.fingerprint) != (run.recipe, seed, dataset.fingerprint):
            raise _in_the_way(folder, name, seed)
        console(verbose).print(f"going on with {name} with seed {seed}")
        return resume(folder, data=dataset if interrupted.data is None else None, verbose=verbose)
    unfinished = False
    if folder.exists():
        found = Run.open(folder)
        status = found.status
        fits = status.recipe == run.recipe and status.seed == seed and status.data.fingerprint == dataset.fingerprint
        fits = fits and status.pretrained == run.status.pretrained
        if not fits or status.status not in ("done", "interrupted"):
            raise _in_the_way(folder, name, seed)
        if status.status == "done":
            return found
        unfinished = True
    console(verbose).print(f"training {name} with seed {seed}")
    return train(
        dataset, run.recipe, out=folder, seed=seed, device=device, weights=run.status.weights, force=unfinished,
        report=False, verbose=verbose,
    )  # fmt: skip


def _in_the_way(folder: Path, name: str, seed: int) -> OutputError:
    return OutputError(
        f"{folder} should hold {name} with seed {seed}, but it holds another training, or one that "
        f"failed. Move or remove it."
    )


def _name(path: Path, runs: Sequence[Run]) -> str:
    """The folder's name, or the whole path where two runs share the name."""
    folder = path.resolve()
    namesakes = {other for run in runs if (other := run.path.resolve()).name == folder.name}
    return folder.name if len(namesakes) == 1 else str(path)


def _predict(trainings: Sequence[Run], test: ImageSet, device: Device, progress: Progress) -> list[Predictions]:
    predictions = []
    for run in trainings:
        model, logits = open_model(run.path, device=device), []
        for start in range(0, len(test), PREDICTION_CHUNK):
            logits.append(model.predict_logits(test.images[start : start + PREDICTION_CHUNK]))
            progress(min(start + PREDICTION_CHUNK, len(test)), len(test), f"predicting with {run.path.name}")
        predictions.append(Predictions(np.concatenate(logits), test.labels, test.class_names, True, test.groups))
        if not np.isfinite(predictions[-1].logits).all():
            raise ModelError(f"The model of {run.path} gives NaN or infinite logits: it is damaged. Train it again.")
    return predictions


def _pairs(sides: Sequence[_Side], progress: Progress) -> list[ComparedPair]:
    """The first side with each of the others."""
    first, *others = sides
    tests = [accuracy_difference(first.predictions, other.predictions) for other in others]
    corrected = holm([test.p for test in tests])
    pairs = []
    for other, test, p in zip(others, tests, corrected, strict=True):
        differences = metric_differences(
            first.predictions,
            other.predictions,
            progress=partial(progress, what=f"comparing {first.name} and {other.name}, resamples"),
        )
        same = all(
            np.array_equal(ours.predicted, theirs.predicted)
            for ours, theirs in zip(first.predictions, other.predictions, strict=True)
        )
        disagreeing = _disagreements(first.predictions[0], other.predictions[0])
        pairs.append(
            ComparedPair(
                first=first.name,
                second=other.name,
                accuracy_difference=test.difference,
                mcnemar=mcnemar(first.predictions[0], other.predictions[0]),
                test=Significance(name=test.test, p=test.p, p_corrected=p),
                real=is_significant(test.difference, p),
                differences=differences,
                disagreements=len(disagreeing),
                disagreeing_images=disagreeing,
                verdict=verdict(first.name, other.name, test.difference, p, trainings=len(first.trainings), same=same),
            )
        )
    return pairs


def _disagreements(first: Predictions, second: Predictions) -> list[Disagreement]:
    """The test images for which two models predict different classes."""
    names = first.class_names
    return [
        Disagreement(
            index=int(index),
            true=names[first.labels[index]],
            first=names[first.predicted[index]],
            second=names[second.predicted[index]],
        )
        for index in np.flatnonzero(first.predicted != second.predicted)
    ]


def _compared_run(side: _Side, speed: Speed) -> ComparedRun:
    run, model = side.trainings[0], side.classifier
    accuracies = [accuracy(predictions) for predictions in side.predictions]
    values = [estimate.value for estimate in accuracies]
    several = len(values) > 1
    return ComparedRun(
        path=str(run.path),
        name=side.name,
        recipe=side.recipe.name,
        accuracy=accuracies[0],
        accuracy_mean=statistics.mean(values) if several else None,
        accuracy_standard_deviation=statistics.stdev(values) if several else None,
        parameters=run.status.model.parameters,
        multiply_adds=multiply_adds(model),
        seconds_training=run.status.seconds.training,
        trainings=[
            SeedAccuracy(path=str(training.path), seed=training.status.seed, accuracy=value)
            for training, value in zip(side.trainings, values, strict=True)
        ],
        latency_ms=speed.latency_ms,
        images_per_second=speed.images_per_second,
    )
