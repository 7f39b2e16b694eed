"""Do probabilities mean what they say, and how many answers are sure enough? `fast` on Fashion-MNIST, over seeds.

    FOVEOLA_DATA=../shared/data .venv/bin/python benchmarks/calibration.py [--seeds 3] [--reject 0.01] [--json]

Temperature and threshold are chosen on the validation images; every figure is of the test images, read once.
Calibration error (ECE): 15 bins of equal numbers of images.
"""

import argparse
import json

from runs import spread, train

ARGUMENTS = ("fashion-mnist", "--epochs", "5")
FIGURES = ("ece_uncalibrated", "ece", "log_loss_uncalibrated", "log_loss", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reject", type=float, default=0.01, help="accepted share of wrong answers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(seed, options.reject) for seed in range(options.seeds)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| figure | mean ± sd | by seed |\n|---|---:|---|")
    for name in rows[0]:
        found = spread([row[name] for row in rows])
        each = ", ".join(f"{row[name]:.4f}" for row in rows)
        print(f"| {name.replace('_', ' ')} | {found['mean']:.4f} ± {found['sd']:.4f} | {each} |")


def measure(seed: int, error: float) -> dict[str, float]:
    """The figures of one training."""
    evaluation = train((*ARGUMENTS, "--reject", str(error)), seed)["evaluation"]
    rejection = evaluation["rejection"]
    figures = {name: evaluation[name]["value"] for name in FIGURES} | {"coverage": rejection["coverage"]["value"]}
    # Where no threshold keeps the error, nothing is accepted, and nothing accepted is wrong
    return figures | {"accepted_error": rejection["accepted_error"]["value"] if rejection["accepted_error"] else 0.0}


if __name__ == "__main__":
    main()
