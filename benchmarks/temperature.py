"""Gain and harm of fitted temperatures under several priors, over many draws of few to many validation images.

    .venv/bin/python benchmarks/temperature.py [--draws 300] [LOGITS.npz …]

Simulated logits of five classes, calibrated, or 2.5 times too sharp or half as sharp, 20,000 of each; a file holds
`logits`, N×K, and `labels`, N, of a network's held-out images, and stands for itself. The temperature is fitted on n
images that are drawn from them, and the change of the mean log loss measured on all of them: its mean, and the worst of
all draws. Priors on log T: none; normal of standard deviation 0.1 and 0.2; Student's t of scale 0.1 with 3 and with 10
degrees of freedom, which is what `fit_temperature` uses.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveola.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE
from foveola.tasks import log_losses, softmax

Values = NDArray[np.float64]
GRID = np.linspace(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE), 241)
UNCHANGED = len(GRID) // 2  # log T = 0
SIZES = (20, 80, 200, 500, 2000)


def student(freedom: int) -> Callable[[Values], Values]:
    return lambda log_t: (freedom + 1) / 2 * np.log1p((log_t / 0.1) ** 2 / freedom)


PRIORS: dict[str, Callable[[Values], Values]] = {
    "none": np.zeros_like,
    "normal 0.1": lambda log_t: log_t**2 / (2 * 0.1**2),
    "normal 0.2": lambda log_t: log_t**2 / (2 * 0.2**2),
    "t, 3 degrees": student(3),
    "t, 10 degrees": student(10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--draws", type=int, default=300)
    options = parser.parse_args()
    print("| logits | images |", " | ".join(PRIORS), "|\n|---|---:|" + "---:|" * len(PRIORS))
    for name, logits, labels in worlds(options.files):
        losses = np.stack([log_losses(logits / np.exp(log_t), labels) for log_t in GRID])
        changes = losses.mean(axis=1) - losses[UNCHANGED].mean()
        for n in (size for size in SIZES if size < len(labels)):
            print(f"| {name} | {n:,} |", " | ".join(row(losses, changes, n, options.draws)), "|", flush=True)


def worlds(files: list[Path]) -> list[tuple[str, Values, Values]]:
    """Name, logits and labels."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 5)) * 5
    labels = (softmax(logits).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1).clip(max=4)
    simulated = [(f"simulated, times {factor:g}", logits * factor, labels) for factor in (1, 2.5, 0.5)]
    return simulated + [(file.stem, *(np.load(file)[key] for key in ("logits", "labels"))) for file in files]


def row(losses: Values, changes: Values, n: int, draws: int) -> list[str]:
    """Mean and worst change of the log loss under each prior."""
    random = np.random.default_rng(n)
    sums = [losses[:, random.integers(losses.shape[1], size=n)].sum(axis=1) for _ in range(draws)]
    cells = []
    for prior in PRIORS.values():
        found = [changes[np.argmin(one + prior(GRID))] for one in sums]
        cells.append(f"{np.mean(found):+.4f}, {np.max(found):+.4f}")
    return cells


if __name__ == "__main__":
    main()
