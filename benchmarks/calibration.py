"""Calibration error, log loss, and how often a promised error is exceeded: `fast` on Fashion-MNIST, over seeds.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/calibration.py [--seeds 10] [--epochs 2] [--reject 0.01] [--average]

Temperature and threshold are fitted on the validation images; all metrics are those of the test images, read once.
The calibration error is corrected for chance. `--average` chooses the threshold without a promise. The last line says
in how many trainings the error of the accepted test images is above the target.
"""

import argparse
import json

from runs import spread, train

METRICS = ("ece_uncalibrated", "ece", "log_loss_uncalibrated", "log_loss", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--reject", type=float, default=0.01, help="target error rate among the accepted predictions")
    parser.add_argument("--average", action="store_true", help="the threshold that keeps the target only on average")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    arguments = ["fashion-mnist", "--epochs", str(options.epochs), "--reject", str(options.reject)]
    arguments += ["--reject-on-average"] if options.average else []
    rows = [measure(arguments, seed) for seed in range(options.seeds)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| metric | mean ± sd | by seed |\n|---|---:|---|")
    for name in rows[0]:
        found = spread([row[name] for row in rows])
        each = ", ".join(f"{row[name]:.4f}" for row in rows)
        print(f"| {name.replace('_', ' ')} | {found['mean']:.4f} ± {found['sd']:.4f} | {each} |")
    exceeded = sum(row["accepted_error"] > options.reject for row in rows)
    print(f"\nAbove the target of {options.reject:g}: {exceeded} of {len(rows)}")


def measure(arguments: list[str], seed: int) -> dict[str, float]:
    """Metrics of one training."""
    evaluation = train(arguments, seed)["evaluation"]
    rejection = evaluation["rejection"]
    metrics = {name: evaluation[name]["value"] for name in METRICS} | {"coverage": rejection["coverage"]["value"]}
    # Where no threshold keeps the target error, no prediction is accepted, so that no accepted one is wrong
    return metrics | {"accepted_error": rejection["accepted_error"]["value"] if rejection["accepted_error"] else 0.0}


if __name__ == "__main__":
    main()
