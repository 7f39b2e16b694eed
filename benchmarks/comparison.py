"""How often equal recipes are called different, and how often unequal ones are: the tests of `foveola compare`.

    .venv/bin/python benchmarks/comparison.py [--draws 1000]

An image is easy or hard for all (the odds of Beta(4, 1)), easier or harder for one recipe (normal, 1 on the scale of
log odds), and each training is right or wrong on it by these odds; with a seed effect, a training is better or worse
on all images (normal, 0.3). Recipes are equal, or one has 0.4 more log odds. "Different" is what `compare` says: both
the test's p below 0.05 and 0 outside of the interval. With 1,000 draws, two standard errors of 5 % are 1.4 points.
With one training a side and a seed effect, the trained models do differ, although the recipes do not: that is why the
verdict of one training names the trained models.
"""

import argparse

import numpy as np

from foveola.evaluation.comparison import Runs, accuracy_difference, is_significant
from foveola.predictions import Predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    columns = [(images, gain) for gain in (0.0, 0.4) for images in (50, 300, 2000)]
    print("| trainings a side | seed effect |", " | ".join(f"{n:,} images, gain {gain:g}" for n, gain in columns), "|")
    print("|---:|---:|" + "---:|" * len(columns))
    for trainings in (1, 2, 3, 5):
        for effect in (0.0, 0.3):
            rates = [rate(trainings, effect, n, gain, options.draws) for n, gain in columns]
            print(f"| {trainings} | {effect:g} |", " | ".join(f"{100 * one:.1f} %" for one in rates), "|", flush=True)


def rate(trainings: int, effect: float, n: int, gain: float, draws: int) -> float:
    """How often two recipes are called different."""
    random = np.random.default_rng(n)
    called = 0
    for _ in range(draws):
        ease = np.log(1 / random.beta(1, 4, n) - 1)
        tested = accuracy_difference(*(side(random, ease, more, trainings, effect) for more in (0.0, gain)))
        called += is_significant(tested.difference, tested.p)
    return called / draws


def side(random: np.random.Generator, ease: np.ndarray, gain: float, trainings: int, effect: float) -> Runs:
    """The trainings of a recipe."""
    own = ease + gain + random.normal(0, 1, len(ease))
    odds = [own + random.normal(0, effect) for _ in range(trainings)]
    return [predictions(random.random(len(ease)) < 1 / (1 + np.exp(-one))) for one in odds]


def predictions(right: np.ndarray) -> Predictions:
    """Of two classes; the true one is the second."""
    logits = np.eye(2, dtype=np.float32)[right.astype(int)]
    return Predictions(logits, np.ones(len(right), np.int64), ("no", "yes"), True)


if __name__ == "__main__":
    main()
