"""How often a rejection threshold exceeds its target error, on simulated models.

    .venv/bin/python benchmarks/rejection.py [--draws 400] [--confidence 0.9]

A model is a distribution of the top probability and the probability of being wrong at each. `calibrated`: what the top
probability says, accuracy 93 %; `good`: the same, 99 %; `over-confident`: wrong as 0.6 · (1 − p)^0.6; `label noise`:
calibrated, but never less often wrong than in 0.8 %; `bad top`: the most confident 7 % are wrong in 3 %;
`uninformative`: wrong in 1.2 % at every probability; `few levels`: calibrated, 20 different probabilities, so that
images tie; `ten classes`: logits of ten classes, 1.6 times too sharp, with the temperature fitted on the same
validation images, which changes the ranking.

The threshold is chosen on n validation images. Its true risk is that of the model, over 400,000 images. For each model:
over all targets (0.5, 1, 2, 5 and 10 %), the rate of thresholds that exceed theirs at worst, and the mean coverage at
1 and 5 %, in parentheses that of "average". "Offered": the error rate that is offered where the target cannot be
promised, and how often that is exceeded. "Average": `reject_mode = "average"`. A threshold that accepts nothing does
not exceed.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveola.evaluation.calibration import fit_temperature
from foveola.evaluation.rejection import choose_threshold
from foveola.predictions import Predictions
from foveola.tasks import softmax

POPULATION = 400_000
TARGETS = (0.005, 0.01, 0.02, 0.05, 0.1)
Logits = NDArray[np.float64]


def two_classes(probability: Logits, error: Logits) -> tuple[Logits, Logits]:
    """Logits, N×2, with these top probabilities; the first class is wrong with these probabilities."""
    kept = probability.clip(0.5 + 1e-9, 1 - 1e-12)
    return np.stack([np.log(kept / (1 - kept)), np.zeros_like(kept)], axis=1), np.stack([1 - error, error], axis=1)


def models() -> dict[str, tuple[Logits, Logits]]:
    """Logits and the true distribution of the labels, both N×K, of each model."""
    random = np.random.default_rng(0)
    p = 0.5 + 0.5 * random.beta(5, 0.7, POPULATION)
    good = 0.5 + 0.5 * random.beta(30, 0.5, POPULATION)
    levels = np.round(p * 40) / 40
    logits = random.normal(size=(POPULATION // 4, 10)) * 7
    return {
        "calibrated": two_classes(p, 1 - p),
        "good": two_classes(good, 1 - good),
        "over-confident": two_classes(p, 0.6 * (1 - p) ** 0.6),
        "label noise": two_classes(p, 0.008 + 0.992 * (1 - p)),
        "bad top": two_classes(p, np.where(p > np.quantile(p, 0.93), 0.03, 1 - p)),
        "uninformative": two_classes(p, np.full(POPULATION, 0.012)),
        "few levels": two_classes(levels, 1 - levels),
        "ten classes": (1.6 * logits, softmax(logits)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--confidence", type=float, default=0.9)
    options = parser.parse_args()
    print("| model | validation images | exceeds, at worst | offered exceeds | average exceeds, at worst | coverage |")
    print("|---|---:|---:|---:|---:|---|")
    for name, model in models().items():
        for n in (80, 300, 1_000, 10_000):
            found = simulate(*model, n, options.draws, options.confidence, temperature=name == "ten classes")
            print(f"| {name} | {n:,} |", " | ".join(found), "|", flush=True)


def simulate(logits: Logits, truth: Logits, n: int, draws: int, confidence: float, *, temperature: bool) -> list[str]:
    """The cells of a row."""
    random = np.random.default_rng(n)
    risk_of = risks(logits, truth)
    draws = draws // 4 if temperature else draws
    promised, offered, average = ({target: [] for target in TARGETS} for _ in range(3))
    for _ in range(draws):
        drawn = random.integers(len(logits), size=n)
        labels = (truth[drawn].cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(max=truth.shape[1] - 1)
        scale = 1.0
        if temperature:
            scale = fit_temperature(logits[drawn], labels)
            risk_of = risks(logits / scale, truth)
        predictions = Predictions(logits[drawn] / scale, labels, tuple(map(str, range(truth.shape[1]))), True)
        for target in TARGETS:
            rejection = choose_threshold(predictions, target, confidence)
            promised[target].append((*risk_of(rejection.threshold), target))
            mean = choose_threshold(predictions, target, None)
            average[target].append((*risk_of(mean.threshold), target))
            if rejection.shortfall is not None and (possible := rejection.shortfall.possible_error) is not None:
                threshold = choose_threshold(predictions, possible, confidence).threshold
                offered[target].append((*risk_of(threshold), possible))
    coverage = ", ".join(
        f"{100 * target:g} %: {mean_coverage(promised[target]):.2f} ({mean_coverage(average[target]):.2f})"
        for target in (0.01, 0.05)
    )
    return [*(worst(rows) for rows in (promised, offered, average)), coverage]


def risks(logits: Logits, truth: Logits) -> Callable[[float | None], tuple[float, float]]:
    """Coverage and true risk of a threshold."""
    probabilities = softmax(logits).max(axis=1)
    wrong = 1 - truth[np.arange(len(truth)), logits.argmax(axis=1)]
    order = probabilities.argsort()[::-1]
    descending, total = -probabilities[order], wrong[order].cumsum()

    def of(threshold: float | None) -> tuple[float, float]:
        accepted = 0 if threshold is None else int(np.searchsorted(descending, -threshold + 1e-12, side="right"))
        return accepted / len(order), float(total[accepted - 1] / accepted) if accepted else 0.0

    return of


def worst(rows: dict[float, list[tuple[float, float, float]]]) -> str:
    """The largest rate over the targets of thresholds whose risk is above what was said."""
    rates = [np.mean([risk > said for _, risk, said in found]) for found in rows.values() if len(found) >= 40]
    return f"{100 * max(rates):.1f} %" if rates else "–"


def mean_coverage(found: list[tuple[float, float, float]]) -> float:
    return float(np.mean([coverage for coverage, _, _ in found]))


if __name__ == "__main__":
    main()
