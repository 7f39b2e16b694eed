"""Whether training and test images get comparable scores from cross-fitting.

    .venv/bin/python benchmarks/audit_scores.py [--seeds 8] [--steps 30]

A third of scikit-learn's digits, drawn at random, is called the test split, so that its scores must have the same
distribution as those of the other two thirds. Each image is predicted by one network of each of 3 rounds, as `audit`
does; beside it, test images by all 9 networks, as it did before. Printed are means over seeds, and how often a test at
the 5 % level (Kolmogorov and Smirnov) tells the distributions of the probability of the label apart.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp

import foveola
from foveola.images import ImageSet
from foveola.models.classifier import Classifier
from foveola.recipe import load_recipe
from foveola.tasks import softmax
from foveola.training import cross_fit

ROUNDS, FOLDS = 3, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()

    digits = foveola.load("digits").train
    every, names = {}, ("training", "test, one network a round", "test, all networks")
    for seed in range(options.seeds):
        for name, scores in zip(names, measure(digits, seed, options.steps), strict=True):
            every.setdefault(name, []).append(scores)
    print(
        "| scores | mean | images below 0.01 | 10th percentile | told apart from training |\n|---|---:|---:|---:|---:|"
    )
    for name, rows in every.items():
        apart = np.mean(
            [ks_2samp(own, other).pvalue < 0.05 for own, other in zip(rows, every["training"], strict=True)]
        )
        pooled = np.concatenate(rows)
        low, percentile = np.mean(pooled < 0.01), np.percentile(pooled, 10)
        print(f"| {name} | {pooled.mean():.4f} | {low:.2%} | {percentile:.3f} | {apart:.0%} |")


def measure(digits: ImageSet, seed: int, steps: int) -> tuple[NDArray[np.float64], ...]:
    """Probability of the label: of training images, and of test images in both ways."""
    random = np.random.default_rng(seed)
    learnt = random.permutation(len(digits)) % 3 > 0
    test, networks = digits.take(np.flatnonzero(~learnt)), []
    predict = Classifier.predict_logits

    def remembering(classifier, images):
        networks.append(softmax(predict(classifier, test.images)))
        return predict(classifier, images)

    Classifier.predict_logits = remembering
    try:
        predictions, _ = cross_fit.cross_fit(
            digits, learnt, load_recipe("fast", {"steps": steps, "batch_size": 64}), folds=FOLDS, rounds=ROUNDS,
            units=np.arange(len(digits)), seed=seed, device=torch.device("cpu"),
        )  # fmt: skip
    finally:
        Classifier.predict_logits = predict
    own = predictions.probabilities[np.arange(len(digits)), digits.labels]
    by_all = np.mean(networks, axis=0)[np.arange(len(test)), test.labels]
    return own[learnt], own[~learnt], by_all


if __name__ == "__main__":
    main()
