"""How often 95 % intervals hold the truth: every metric, on simulated test sets of 20 to 2,000 images.

    .venv/bin/python benchmarks/intervals.py [--draws 400] [--sizes 20,50,150,500,2000] [--worlds easy,ten]

A world draws labels and logits; the truth of a metric is its value on 100,000 images of the world, and of the
calibration error the mean distance between confidence and the probability of being right, which the world knows:
logits of the true distribution, times a factor. `easy`: 3 classes, 99 % right. `ten`: 10 classes, 93 % right.
`over-confident`: as `ten`, logits doubled. `rare`: 3 classes of 70, 25 and 5 % of the images. `mislabelled`: two
classes far apart, and 1 % of the labels swapped. Rates of holding the truth, in %; with 400 draws, two standard errors
of 95 % are 2.2 points.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveola.evaluation.metrics import METRICS
from foveola.predictions import Predictions
from foveola.tasks import softmax

World = Callable[[np.random.Generator, int], tuple[Predictions, NDArray[np.float64]]]
"""Predictions for n images, and the true probability that each is right, N."""


def calibrated(classes: int, scale: float, factor: float = 1.0, odds: tuple[float, ...] = ()) -> World:
    """Labels drawn from the softmax of normal logits; the predictions' logits are those times a factor."""

    def draw(random: np.random.Generator, n: int) -> tuple[Predictions, NDArray[np.float64]]:
        logits = random.normal(size=(n, classes)) * scale + np.log(odds or np.ones(classes))
        true = softmax(logits)
        labels = (true.cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(max=classes - 1)
        predictions = Predictions((logits * factor).astype(np.float64), labels, tuple(map(str, range(classes))), True)
        return predictions, true.max(axis=1)

    return draw


def mislabelled(random: np.random.Generator, n: int) -> tuple[Predictions, NDArray[np.float64]]:
    seen = random.integers(2, size=n)
    labels = np.where(random.random(n) < 0.01, 1 - seen, seen)
    logits = 4 * np.eye(2)[seen] + random.normal(0, 0.3, (n, 2))
    return Predictions(logits, labels, ("0", "1"), True), np.full(n, 0.99)


WORLDS: dict[str, World] = {
    "easy": calibrated(3, 40.0),
    "ten": calibrated(10, 12.0),
    "over-confident": calibrated(10, 12.0, 2.0),
    "rare": calibrated(3, 3.0, 1.0, (0.7, 0.25, 0.05)),
    "mislabelled": mislabelled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--sizes", default="20,50,150,500,2000")
    parser.add_argument("--worlds", default=",".join(WORLDS))
    options = parser.parse_args()
    print("| world | images |", " | ".join(METRICS), "|\n|---|---:|" + "---:|" * len(METRICS))
    for name, world in ((name, WORLDS[name]) for name in options.worlds.split(",")):
        truths = truth(world)
        for n in map(int, options.sizes.split(",")):
            print(f"| {name} | {n:,} |", " | ".join(coverage(world, truths, n, options.draws)), "|", flush=True)


def truth(world: World) -> dict[str, float]:
    """The metrics of the world itself."""
    predictions, right = world(np.random.default_rng(1), 100_000)
    values = {key: float(metric.weighted([predictions])(np.ones(100_000))[0]) for key, metric in METRICS.items()}
    return values | {"ece": float(abs(predictions.probabilities.max(axis=1) - right).mean())}


def coverage(world: World, truths: dict[str, float], n: int, draws: int) -> list[str]:
    """How often each metric's interval holds its truth."""
    random = np.random.default_rng(n)
    held: dict[str, list[bool]] = {key: [] for key in METRICS}
    for _ in range(draws):
        predictions, _ = world(random, n)
        for key, metric in METRICS.items():
            found = metric.compute(predictions)
            if found.is_defined:
                held[key].append(found.low <= truths[key] <= found.high)
    return [f"{100 * np.mean(values):.0f}" for values in held.values()]


if __name__ == "__main__":
    main()
