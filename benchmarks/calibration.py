"""Calibration error, log loss, and coverage at a target error: `fast` on Fashion-MNIST, over seeds.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/calibration.py [--seeds 3] [--reject 0.01] [--json]

Temperature and threshold are fitted on the validation images; all metrics are those of the test images, read once.
Expected calibration error (ECE): 15 bins with equal numbers of images.
"""

import argparse
import json

from runs import spread, train

ARGUMENTS = ("fashion-mnist", "--epochs", "5")
METRICS = ("ece_uncalibrated", "ece", "log_loss_uncalibrated", "log_loss", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reject", type=float, default=0.01, help="target error rate among the accepted predictions")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(seed, options.reject) for seed in range(options.seeds)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| metric | mean ± sd | by seed |\n|---|---:|---|")
    for name in rows[0]:
        found = spread([row[name] for row in rows])
        each = ", ".join(f"{row[name]:.4f}" for row in rows)
        print(f"| {name.replace('_', ' ')} | {found['mean']:.4f} ± {found['sd']:.4f} | {each} |")


def measure(seed: int, error: float) -> dict[str, float]:
    """Metrics of one training."""
    evaluation = train((*ARGUMENTS, "--reject", str(error)), seed)["evaluation"]
    rejection = evaluation["rejection"]
    metrics = {name: evaluation[name]["value"] for name in METRICS} | {"coverage": rejection["coverage"]["value"]}
    # Where no threshold keeps the target error, no prediction is accepted, so that no accepted one is wrong
    return metrics | {"accepted_error": rejection["accepted_error"]["value"] if rejection["accepted_error"] else 0.0}


if __name__ == "__main__":
    main()
