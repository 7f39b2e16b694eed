"""How often intervals of a weighted accuracy hold the truth, by what the effective number of images is taken to be.

    python benchmarks/weighted_intervals.py

Kish's number knows the weights only, Korn and Graubard's the variance of the weighted answers; Foveola takes the
smaller. Weights are drawn from three distributions, alone or such that heavy images are wrong more often.
"""

import numpy as np

from foveola.evaluation.intervals import _effective_size, effective_number, fraction, wilson_bounds

DRAWS = 1000
WEIGHTS = {
    "lognormal": lambda generator, n: generator.lognormal(size=n),
    "0.5 or 5": lambda generator, n: np.where(generator.random(n) < 0.2, 5.0, 0.5),
    "exponential": lambda generator, n: generator.exponential(size=n),
}


def draw(generator, n, accuracy, weights, heavy_are_worse):
    """Weights and probabilities of a right answer, N each."""
    drawn = WEIGHTS[weights](generator, n)
    if not heavy_are_worse:
        return drawn, np.full(n, accuracy)
    spread = 0.8 * (1 - accuracy)
    return drawn, np.where(drawn > np.median(drawn), accuracy - spread, accuracy + spread)


def main():
    print("images  accuracy  weights      heavy are worse  Kish   Korn and Graubard  smaller")
    for n in (50, 200, 1000):
        for accuracy in (0.7, 0.9, 0.97):
            for weights in WEIGHTS:
                for worse in (False, True):
                    generator = np.random.default_rng(0)
                    truth = np.average(*draw(generator, 400_000, accuracy, weights, worse)[::-1])
                    covered = np.zeros(3)
                    for _ in range(DRAWS):
                        own, rates = draw(generator, n, accuracy, weights, worse)
                        right = generator.random(n) < rates
                        value, kish = float(np.average(right, weights=own)), effective_number(own)
                        found = _effective_size(right, np.arange(n), own, value) or kish
                        smaller = fraction(right, weights=own)
                        bounds = [wilson_bounds(value, kish), wilson_bounds(value, found), (smaller.low, smaller.high)]
                        covered += [low <= truth <= high for low, high in bounds]
                    rates = "  ".join(f"{share:.3f}" for share in covered / DRAWS)
                    print(f"{n:6}  {accuracy:8}  {weights:11}  {worse!s:15}  {rates}")


if __name__ == "__main__":
    main()
