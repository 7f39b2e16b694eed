"""Accuracy when few images are labelled: 5, 10, 20 and 50 a class, ten draws each.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/few.py --log FILE [--recipes fast 'efficientnet-lite0 epochs=20'] \
        [--data trashnet-150 sign-language-digits] [--per-class 5 10 20 50] [--draws 10]

A recipe is its name or file, and what is changed: settings of the recipe, and parameters of `foveola.train`, such as
'fast augment.shift=2 budget=20.0'. Logistic regression on pixels is measured beside them. Data are names of folders in
$FOVEOLA_DATA/folders, or paths.

A third of the images is held out for testing, once; copies stay on one side. Each draw takes the same number of images
of every class from the others, the same images for every method; what a recipe uses for validation is among them.
Prints the mean accuracy on the test images, with the 95 % interval of Student's t over the draws, as tables in
Markdown. The intervals are about the draws: all share the test images. Rows in the log are not computed again.
"""

import argparse
import inspect
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import foveola
from foveola.datasets.reload import load_for_recipe
from foveola.datasets.splits import Splits, image_keys, joined_groups
from foveola.images import Dataset
from foveola.progress import no_progress
from foveola.recipe import load_recipe, parse_override
from foveola.stratified import hold_out

FOLDERS = Path(os.environ.get("FOVEOLA_DATA", "../shared/data")) / "folders"
TEST_FRACTION = 1 / 3
PIXELS = "logistic regression on 32×32 pixels"
PARAMETERS = inspect.signature(foveola.train).parameters

Indices = NDArray[np.int64]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True, help="finished rows, a line of JSON each; goes on with it")
    parser.add_argument("--recipes", nargs="*", default=["fast"], metavar="'RECIPE KEY=VALUE …'")
    parser.add_argument("--data", nargs="+", default=["trashnet-150", "sign-language-digits"])
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    methods = [PIXELS, *options.recipes]
    done = {key(row): row for row in read(options.log)}
    wanted = [
        {"data": data, "per_class": per_class, "draw": draw, "method": method}
        for data in options.data
        for per_class in options.per_class
        for draw in range(options.draws)
        for method in methods
    ]
    for number, row in enumerate(wanted, 1):
        if key(row) not in done:
            done[key(row)] = measured = row | measure(row)
            with options.log.open("a") as log:
                print(json.dumps(measured), file=log)
            print(
                f"{number}/{len(wanted)} {row['data']}, {row['per_class']} a class, draw {row['draw']}, "
                f"{row['method']}: {measured['accuracy']:.4f} in {measured['seconds']:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    for data in options.data:
        print(table(data, methods, options.per_class, [done[key(row)] for row in wanted]))


def read(log: Path) -> list[Row]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("data", "per_class", "draw", "method"))


def measure(row: Row) -> Row:
    """Accuracy on the test images of a method that has learnt from one draw, and its seconds, reading data aside."""
    test, others = divide(row["data"])
    labels = load(row["data"], 32).train.labels
    chosen = draw_images(labels, others, row["per_class"], row["draw"])
    learn = learn_pixels if row["method"] == PIXELS else learn_recipe
    accuracy, seconds = learn(row["method"], row["data"], chosen, test, row["draw"])
    return {"test": len(test), "accuracy": round(accuracy, 6), "seconds": round(seconds, 3)}


@cache
def divide(data: str) -> tuple[Indices, Indices]:
    """The test images, and one of each group of copies among the others."""
    images = load(data, 32).train
    keys = image_keys(Splits(images, None, None), "near copies")[0]
    held_out = hold_out(images.labels, joined_groups(None, keys), images.class_names, TEST_FRACTION, seed=0)
    others = np.flatnonzero(~held_out)
    return np.flatnonzero(held_out), others[np.unique(keys[others], return_index=True)[1]]


def draw_images(labels: Indices, others: Indices, per_class: int, draw: int) -> Indices:
    """So many images of each class. A draw's smaller numbers of images are the first ones of its larger numbers."""
    random = np.random.default_rng(draw)
    classes = [random.permutation(others[labels[others] == label]) for label in np.unique(labels)]
    if (fewest := min(map(len, classes))) < per_class:
        sys.exit(f"A class has {fewest} images beside the test images, fewer than {per_class}. Lower --per-class.")
    return np.concatenate([members[:per_class] for members in classes])


def learn_pixels(method: str, data: str, chosen: Indices, test: Indices, seed: int) -> tuple[float, float]:
    """Logistic regression whose regularization is chosen by cross-validation among the drawn images."""
    images = load(data, 32).train
    pixels = images.images.reshape(len(images), -1) / 255.0
    started = time.perf_counter()
    regression = LogisticRegressionCV(
        Cs=np.logspace(-4, 0, 5), cv=3, scoring="neg_log_loss", l1_ratios=(0,), max_iter=1000,
        use_legacy_attributes=False,
    )  # fmt: skip
    model = make_pipeline(StandardScaler(), regression).fit(pixels[chosen], images.labels[chosen])
    seconds = time.perf_counter() - started
    return float(np.mean(model.predict(pixels[test]) == images.labels[test])), seconds


def learn_recipe(method: str, data: str, chosen: Indices, test: Indices, seed: int) -> tuple[float, float]:
    """A recipe as `foveola.train` trains it; seconds of the whole call."""
    name, *changes = method.split()
    values = dict(map(parse_override, changes))
    parameters = {key: value for key, value in values.items() if key in PARAMETERS}
    overrides = {key: value for key, value in values.items() if key not in PARAMETERS}
    dataset = load_as(data, name, tuple(overrides.items()))
    images = dataset.train
    some = replace(dataset, train=images.take(chosen), test=images.take(test), originals=None)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = foveola.train(
            some, name, out=f"{folder}/run", overrides=overrides, seed=seed, report=False, verbose=False, **parameters
        )
        return run.evaluation.accuracy.value, time.perf_counter() - started


@cache
def load(data: str, image_size: int) -> Dataset:
    return foveola.load(place(data), image_size=image_size)


@cache
def load_as(data: str, recipe: str, overrides: tuple[tuple[str, Any], ...]) -> Dataset:
    """The data in the size that a recipe asks for; the images come in the same order in every size."""
    return load_for_recipe(load_recipe(recipe, dict(overrides)), place(data), None, 0, no_progress)


def place(data: str) -> Path:
    return FOLDERS / data if (FOLDERS / data).is_dir() else Path(data)


def table(data: str, methods: list[str], sizes: list[int], rows: list[Row]) -> str:
    """Mean accuracy with its interval: a line a method, a column a number of images."""
    own = [row for row in rows if row["data"] == data]
    head = [f"{data}, {own[0]['test']:,} test images", *(f"{size} a class" for size in sizes)]
    lines = [head, ["---", *("---:" for _ in sizes)]]
    for method in methods:
        accuracies = [
            [row["accuracy"] for row in own if (row["method"], row["per_class"]) == (method, size)] for size in sizes
        ]
        lines.append([f"`{method}`" if method != PIXELS else method, *map(interval, accuracies)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def interval(accuracies: list[float]) -> str:
    """Mean and 95 % interval of Student's t."""
    mean, count = statistics.mean(accuracies), len(accuracies)
    if count < 2:
        return f"{mean:.3f}"
    half = float(student.ppf(0.975, count - 1)) * statistics.stdev(accuracies) / count**0.5
    return f"{mean:.3f} ({mean - half:.3f}–{mean + half:.3f})"


if __name__ == "__main__":
    main()
