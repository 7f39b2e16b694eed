"""Runs compared on the same test images: is the difference real, and what does it cost?"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.datasets import Progress
from foveola.errors import DataError, ModelError, OutputError, UserError, require
from foveola.files import write_atomically
from foveola.images import Dataset, ImageSet
from foveola.models.card import read_card
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.run import Run
from foveola.workflow import costs
from foveola.workflow.opening import Device, choose_device, model_path, open_model
from foveola.workflow.origin import check_same, find_again
from foveola.workflow.progress import console, reading
from foveola.workflow.splits import choose_split
from foveola.workflow.train import train

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

PREDICTED_AT_ONCE = 2048


@dataclass(frozen=True)
class _Side:
    """A run, with the further trainings of its recipe, and what each of them says of the test images."""

    name: str
    trainings: list[Run]
    classifier: "Classifier"
    predictions: list[Predictions]

    @property
    def recipe(self) -> Recipe:
        return self.trainings[0].recipe


def compare(
    *runs: str | Path,
    data: str | Path | Dataset | None = None,
    seeds: int = 1,
    out: str | Path | None = None,
    device: Device = "auto",
    verbose: bool = True,
) -> dict[str, Any]:
    """Compare runs of the same data on their test images: the first with each other one.

    Parameters
    ----------
    runs : at least two run directories
    data : the data that the runs have learnt from; by default found again by its name, or where the run says it lay
    seeds : trainings a side; with more than one, the recipe of each run is trained with the next seeds, into folders
        beside it (RUN-seed1, …), and those that are there already are used again
    out : an HTML file to write, with the images that the models disagree on
    device : where to predict, to measure speed, and to train further seeds
    verbose : report progress on standard error

    Returns
    -------
    data {name, fingerprint, classes}, split, n, seeds, measured_on; runs [{path, name, recipe, accuracy, parameters,
    multiply_adds, seconds_training, latency_ms, images_per_second, trainings}]; pairs [{first, second,
    accuracy_difference, mcnemar, test {name, p, p_corrected}, real, differences, disagreements,
    disagreeing_images, verdict}], differences being the first's figure less the second's; scaling, the parameters of
    the networks by image shape, where one of them is dense from the start. P-values of several pairs are corrected
    (Holm 1979).

    Raises
    ------
    UserError
        If there are fewer than two runs, one is not finished, or they have no test images in common.
    """
    require("torch", "train")
    if len(runs) < 2:
        raise UserError("A comparison takes at least two runs. Name a second one.")
    if seeds < 1:
        raise UserError(f"{seeds} seeds were asked for; each side needs at least 1.")
    place = choose_device(device)
    opened = [_finished(path) for path in runs]
    _check_same_data(opened)
    page = _writable(out)
    screen = console(verbose)
    with reading(screen) as progress:
        dataset = data if isinstance(data, Dataset) else _read(opened[0], data, progress)
    check_same(opened[0], dataset)
    unique = {run.path: run for run in opened}
    classifiers = {path: _classifier(run, device) for path, run in unique.items()}
    test = _common_test_images(dataset, classifiers)
    trainings = {path: _trainings(run, dataset, seeds, device, verbose) for path, run in unique.items()}
    with reading(screen) as progress:
        sides = {
            path: _Side(_name(path, opened), of_run, classifiers[path], _predict(of_run, test, device, progress))
            for path, of_run in trainings.items()
        }
        speeds = costs.speeds(classifiers, test.images, progress)
        compared = [sides[run.path] for run in opened]
        pairs = _pairs(compared, progress)
    document = {
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "classes": list(test.class_names)},
        "split": "test",
        "n": len(test),
        "seeds": seeds,
        "measured_on": costs.device_name(place),
        "runs": [_facts(side) | speeds[side.trainings[0].path] for side in compared],
        "pairs": pairs,
        "scaling": costs.scaling({side.name: side.recipe for side in sides.values()}, len(test.class_names)),
    }
    if page is not None:
        from foveola.report.comparison_page import comparison_page

        try:
            write_atomically(page, comparison_page(document, test))
        except OSError as error:
            raise OutputError(f"{page} cannot be written: {error}. Choose another file with --out.") from None
    return document


def _finished(path: str | Path) -> Run:
    """A run that trained to its end, and knows its data."""
    run = Run.open(path)
    status = run.status
    try:
        ended, tested = status["status"], status["data"]["test"]
        _ = status["data"]["name"], status["data"]["fingerprint"], status["seed"], status["seconds"]["training"]
    except (KeyError, TypeError):
        raise ModelError(
            f"The run.json of {path} is damaged: it lacks what a comparison needs. Train it again."
        ) from None
    if ended != "done":
        raise ModelError(f"The training of {path} has not come to its end (status: {ended}). Train it again.")
    if not tested:
        raise ModelError(
            f"{path} was trained without test images, so that there is nothing to compare it on. "
            f"Train it with --set test=0.2."
        )
    return run


def _check_same_data(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs[1:]:
        ours, theirs = (run.status["data"] for run in (first, other))
        if ours["fingerprint"] != theirs["fingerprint"]:
            raise DataError(
                f"{first.path.name} has learnt from {_data_text(ours)}, {other.path.name} from {_data_text(theirs)}. "
                f"Models can only be compared on the same test images: train both on the same data, with the same "
                f"image_size and channels."
            )


def _data_text(data: Mapping[str, Any]) -> str:
    return f"{data['name']} (fingerprint {data['fingerprint'][:12]})"


def _writable(out: str | Path | None) -> Path | None:
    """The page's path, checked before hours of training."""
    if out is None:
        return None
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OutputError(
            f"{path} cannot be written: it is a folder, or in one that does not exist. Choose another --out."
        )
    return path


def _read(run: Run, data: str | Path | None, progress: Progress) -> Dataset:
    return find_again(run, read_card(model_path(run.path)), data, "Runs are compared on their test images", progress)


def _classifier(run: Run, device: Device) -> "Classifier":
    from foveola.models.classifier import Classifier

    model = open_model(run.path, device=device)
    assert isinstance(model, Classifier), "a run's model"
    return model


def _common_test_images(dataset: Dataset, classifiers: Mapping[Path, "Classifier"]) -> ImageSet:
    parts = {path: choose_split(dataset, model.card, "test")[0] for path, model in classifiers.items()}
    first, test = next(iter(parts.items()))
    for path, other in parts.items():
        if other.fingerprint != test.fingerprint:
            raise DataError(
                f"{first.name} was measured on {len(test):,} test images, {path.name} on {len(other):,} others of the "
                f"same data. Models can only be compared on the same images: train both with the same share, "
                f"--set test=…"
            )
    return test


def _trainings(run: Run, dataset: Dataset, seeds: int, device: Device, verbose: bool) -> list[Run]:
    """The run, and its recipe with the next seeds."""
    first = run.status["seed"]
    if seeds > 1 and (init := run.status.get("init")):
        raise UserError(
            f"{run.path} started from the weights of {init}; with other seeds, its recipe alone would be another "
            f"training. Train the seeds yourself, and compare without --seeds."
        )
    return [run, *(_trained(run, dataset, seed, device, verbose) for seed in range(first + 1, first + seeds))]


def _trained(run: Run, dataset: Dataset, seed: int, device: Device, verbose: bool) -> Run:
    """The same recipe with another seed: found beside the run, or trained."""
    name = run.path.resolve().name
    folder = (run.path if run.path.name == name else run.path.resolve()).with_name(f"{name}-seed{seed}")
    unfinished = False
    if folder.exists():
        found = Run.open(folder)
        status = found.status["status"]
        fits = found.recipe == run.recipe and found.status["seed"] == seed
        fits = fits and found.status["data"]["fingerprint"] == dataset.fingerprint
        if not fits or status not in ("done", "interrupted"):
            raise OutputError(
                f"{folder} should hold {name} with seed {seed}, but it holds another training, or one that "
                f"failed or is still running. Move or remove it."
            )
        if status == "done":
            return found
        unfinished = True
    console(verbose).print(f"training {name} again, with seed {seed}", highlight=False, markup=False)
    return train(
        dataset, run.recipe, out=folder, seed=seed, device=device, force=unfinished, report=False, verbose=verbose
    )


def _name(path: Path, runs: Sequence[Run]) -> str:
    """The folder's name, or the whole path where two runs share the name."""
    folder = path.resolve()
    namesakes = {other for run in runs if (other := run.path.resolve()).name == folder.name}
    return folder.name if len(namesakes) == 1 else str(path)


def _predict(trainings: Sequence[Run], test: ImageSet, device: Device, progress: Progress) -> list[Predictions]:
    predictions = []
    for run in trainings:
        model, logits = _classifier(run, device), []
        for start in range(0, len(test), PREDICTED_AT_ONCE):
            logits.append(model.predict_logits(test.images[start : start + PREDICTED_AT_ONCE]))
            progress(min(start + PREDICTED_AT_ONCE, len(test)), len(test), f"predicting with {run.path.name}")
        predictions.append(Predictions(np.concatenate(logits), test.labels, test.class_names, held_out=True))
        if not np.isfinite(predictions[-1].logits).all():
            raise ModelError(f"The model of {run.path} gives NaN or infinite logits: it is damaged. Train it again.")
    return predictions


def _pairs(sides: Sequence[_Side], progress: Progress) -> list[dict[str, Any]]:
    """The first side with each other one."""
    from foveola.evaluation import comparison

    first, *others = sides
    tested = [comparison.accuracy_difference(first.predictions, other.predictions) for other in others]
    corrected = comparison.holm([test.p for test in tested])
    pairs = []
    for other, test, p in zip(others, tested, corrected, strict=True):
        one, two = first.predictions[0], other.predictions[0]
        differences = comparison.metric_differences(
            first.predictions,
            other.predictions,
            progress=partial(progress, what=f"comparing {first.name} and {other.name}, resamples"),
        )
        same = all(
            np.array_equal(ours.predicted, theirs.predicted)
            for ours, theirs in zip(first.predictions, other.predictions, strict=True)
        )
        disagreeing = _disagreeing(one, two)
        pairs.append(
            {
                "first": first.name,
                "second": other.name,
                "accuracy_difference": test.difference.as_json(),
                "mcnemar": asdict(comparison.mcnemar(one, two)),
                "test": {"name": test.test, "p": test.p, "p_corrected": p},
                "real": comparison.is_real(test.difference, p),
                "differences": {name: estimate.as_json() for name, estimate in differences.items()},
                "disagreements": len(disagreeing),
                "disagreeing_images": disagreeing,
                "verdict": comparison.verdict(
                    first.name, other.name, test.difference, p, trainings=len(first.trainings), same=same
                ),
            }
        )
    return pairs


def _disagreeing(first: Predictions, second: Predictions) -> list[dict[str, Any]]:
    """The test images that two models answer differently: position in the test split, truth, both answers."""
    names = first.class_names
    return [
        {
            "index": int(index),
            "true": names[first.labels[index]],
            "first": names[first.predicted[index]],
            "second": names[second.predicted[index]],
        }
        for index in np.flatnonzero(first.predicted != second.predicted)
    ]


def _facts(side: _Side) -> dict[str, Any]:
    """What a side is, what it is worth, and what it cost."""
    from foveola.evaluation.metrics import accuracy

    run, model = side.trainings[0], side.classifier
    accuracies = [accuracy(predictions) for predictions in side.predictions]
    several = len(accuracies) > 1
    values = [estimate.value for estimate in accuracies]
    return {
        "path": str(run.path),
        "name": side.name,
        "recipe": side.recipe.name,
        "accuracy": accuracies[0].as_json(),
        "accuracy_mean": statistics.mean(values) if several else None,
        "accuracy_standard_deviation": statistics.stdev(values) if several else None,
        "parameters": model.parameter_count,
        "multiply_adds": costs.multiply_adds(model),
        "seconds_training": run.status["seconds"]["training"],
        "trainings": [
            {"path": str(one.path), "seed": one.status["seed"], "accuracy": value}
            for one, value in zip(side.trainings, values, strict=True)
        ],
    }
