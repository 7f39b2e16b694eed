"""Precision and recall of `foveola audit` for planted label errors, over seeds.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/audit_labels.py DATA [--images N] [--rates 0.01 0.03] [--seeds 20]
        [--steps N] [--image-size N] [--retrain]

DATA is a catalog name or a path; of its training images, N random ones are taken. Each seed replaces a share of the
labels by another class, each equally likely. The networks are trained once, before that (3 folds, 3 rounds), which is
quick and spares them the few wrong labels; --retrain trains them anew for each seed. `--steps` trains shorter than the
recipe `fast`, in batches of 64. Errors that were in the data before count as wrongly accused.

The table gives mean ± standard error over the seeds. Counted are as many of the first suspects as confident learning
estimates to be wrong; "hard" is the share of images whose labels the networks contradict beside these.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

import foveola
from foveola.audits.label_errors import LabelErrors, find_label_errors
from foveola.audits.units import find_units
from foveola.datasets.duplicates import find_duplicates
from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.recipe import Recipe, load_recipe
from foveola.training.cross_fit import cross_fit

FOLDS, ROUNDS = 3, 3
COLUMNS = ("hard", "counted", "precision of these", "recall", "precision of as many as planted", "of the first ten")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--retrain", action="store_true")
    options = parser.parse_args()

    recipe = load_recipe("fast", {} if options.steps is None else {"steps": options.steps, "batch_size": 64})
    train = foveola.load(options.data, image_size=options.image_size).train
    if options.images is not None:
        train = train.take(np.random.default_rng(0).choice(len(train), options.images, replace=False))
    clean = predict(train, recipe, 0)
    found = find_label_errors(clean)
    accuracy = (clean.predicted == clean.labels).mean()
    print(f"{options.data}: {len(train):,} images, cross-fitted accuracy {accuracy:.3f}; nothing planted:")
    print(f"{len(found.suspects)} suspects, {found.likely} counted, countable: {found.countable}\n")
    print("| planted | countable | " + " | ".join(COLUMNS) + " |\n|---|---:|" + len(COLUMNS) * "---:|")
    for rate in options.rates:
        rows, countable = [], []
        for seed in range(options.seeds):
            wrong, labels = plant(train, rate, seed)
            images = ImageSet(train.images, labels, train.class_names)
            logits = predict(images, recipe, seed).logits if options.retrain else clean.logits
            errors = find_label_errors(Predictions(logits, labels, train.class_names, held_out=True))
            rows.append(score(errors, wrong, len(train)))
            countable.append(errors.countable)
        mean, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / len(rows) ** 0.5
        cells = [f"{value:.3g} ± {spread:.1g}" for value, spread in zip(mean, error, strict=True)]
        print(f"| {rate:.0%} | {np.mean(countable):.0%} | " + " | ".join(cells) + " |", flush=True)


def predict(images: ImageSet, recipe: Recipe, seed: int) -> Predictions:
    """Cross-fitted predictions, as `foveola audit` makes them."""
    every = np.ones(len(images), dtype=bool)
    units = find_units(images, every, find_duplicates(images.images), FOLDS)
    return cross_fit(
        images, every, recipe, folds=FOLDS, rounds=ROUNDS, units=units, seed=seed, device=torch.device("cpu")
    )[0]


def plant(train: ImageSet, rate: float, seed: int) -> tuple[set[int], NDArray[np.int64]]:
    """Which labels are replaced, and the labels."""
    random, classes = np.random.default_rng(seed), len(train.class_names)
    wrong = random.choice(len(train), round(rate * len(train)), replace=False)
    labels = train.labels.copy()
    labels[wrong] = (labels[wrong] + random.integers(1, classes, len(wrong))) % classes
    return set(wrong.tolist()), labels


def score(errors: LabelErrors, wrong: set[int], images: int) -> list[float]:
    """The figures of `COLUMNS`."""
    ranked = [suspect.index for suspect in errors.suspects]
    counted = wrong.intersection(ranked[: errors.likely])
    return [
        (len(ranked) - errors.likely) / images,
        errors.likely,
        len(counted) / max(errors.likely, 1),
        len(counted) / len(wrong),
        len(wrong.intersection(ranked[: len(wrong)])) / len(wrong),
        len(wrong.intersection(ranked[:10])) / 10,
    ]


if __name__ == "__main__":
    main()
