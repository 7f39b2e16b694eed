"""Seconds of training to a target accuracy.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/time_to_accuracy.py \
        [--target fashion-mnist:0.9137] [--seeds 5] [--log docs/trainings.jsonl] [--json]

Each seed trains in a fresh process; nothing else should run beside it. Seconds are those of `fit`, validation included;
accuracy is that of the last epoch on the test split. No seed and no epoch is selected: settings are chosen with
benchmarks/held_out.py, or were chosen on other seeds than these (docs/lab/measuring.md lists what was tried and
replaced). With a log, seeds in the log are not trained again.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import DATA, add_log_option, shown, spreads, trained


@dataclass(frozen=True)
class Target:
    """Arguments of `foveola train` that should reach `accuracy`, and the seconds that they may take.

    Seeds below `first_seed` were used to choose its settings.
    """

    data: str
    accuracy: float
    seconds: float
    arguments: str
    first_seed: int = 100

    @property
    def name(self) -> str:
        return f"{self.data}:{self.accuracy:.4f}".rstrip("0")

    @property
    def command(self) -> tuple[str, ...]:
        return (PATHS.get(self.data, self.data), *self.arguments.split())


PATHS = {
    "kmnist-from-test": str(DATA / "kmnist-from-test"),
    "sign-language-digits": str(DATA / "folders" / "sign-language-digits"),
}
# Steps instead of epochs where an epoch is too long; few validation images where there is little time
TARGETS = (
    Target("mnist", 0.99, 1.8, "--set steps=155 --set validation=0.02 --set label_smoothing=0.05"),
    Target(
        "mnist", 0.995, 7,
        "--set steps=720 --set augment.shift=1 --set validation=0.02 --set label_smoothing=0.05",
    ),
    Target(
        "mnist", 0.997, 120,
        "--recipe strong --set augment.shift=2 --set augment.rotation=10.0 --set augment.zoom=0.1",
    ),
    Target(
        "fashion-mnist", 0.9137, 5.5, "--set steps=560 --set initialization=whitened --set validation=0.02",
    ),
    Target(
        "fashion-mnist", 0.93, 24,
        "--recipe strong --set steps=1000 --set initialization=whitened --set validation=0.02",
    ),
    Target(
        "fashion-mnist", 0.94, 150,
        "--recipe benchmarks/recipes/deep.toml --epochs 10 --set initialization=whitened --set validation=0.02",
    ),
    Target(
        "fashion-mnist", 0.95, 900,
        "--recipe best --epochs 8 --set augment.flip=true --set initialization=whitened --set validation=0.02",
    ),
    Target(
        "kmnist-from-test", 0.99, 20,
        "--epochs 32 --set augment.shift=2 --set augment.rotation=10.0 --set validation=0.02"
        " --set label_smoothing=0.02",
    ),
    Target("sign-language-digits", 0.985, 30, "--set image_size=48"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS], metavar="DATA:SHARE")
    parser.add_argument("--seeds", type=int, default=5)
    add_log_option(parser)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [target for target in TARGETS if not options.target or target.name in options.target]
    rows = [measure(target, options.seeds, options.log) for target in chosen]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| target | goal, s | training, s | test accuracy | command |")
    print("|---|---:|---:|---:|---|")
    for target, row in zip(chosen, rows, strict=True):
        seconds, accuracy = row["seconds"], row["accuracy"]
        print(
            f"| {target.name} | {target.seconds:g} | {seconds['mean']:.2f} ± {seconds['sd']:.2f} "
            f"| {accuracy['mean']:.4f} ± {accuracy['sd']:.4f} | `{row['command']}` |"
        )


def measure(target: Target, seeds: int, log: Path | None) -> dict[str, Any]:
    """Command, seeds, and spread of seconds and accuracy."""
    chosen = range(target.first_seed, target.first_seed + seeds)
    trainings = [trained(target.command, seed, log) for seed in chosen]
    return {
        "target": target.name,
        "command": shown(target.command),
        "seeds": list(chosen),
        **spreads(trainings),
    }


if __name__ == "__main__":
    main()
