"""Test accuracy of each recipe over seeds, for docs/benchmarks.md.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/figures.py \
        [--only NAME] [--log docs/trainings.jsonl] [--json]

Prints each command with mean and standard deviation of the test accuracy over its seeds. Accuracy is that of the last
epoch, or of the best validation epoch where the recipe says so; the test split is read once, and selects no seed.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import DATA, add_log_option, shown, spreads, trained


@dataclass(frozen=True)
class Figure:
    """One row of the table: `arguments` of `foveola train`, and the seeds."""

    name: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]


FIGURES = (
    Figure("digits", ("digits",), (0, 1, 2)),
    Figure("lenet5", ("mnist", "--recipe", "lenet5"), (98, 99, 100)),
    Figure("west", ("fashion-mnist", "--recipe", "west"), (0, 1, 2, 3, 4)),
    Figure("eduonix", ("fashion-mnist", "--recipe", "eduonix"), (0, 1, 2)),
    Figure("mlp-mnist", ("mnist", "--recipe", "mlp"), (0, 1, 2)),
    Figure("mlp-fashion", ("fashion-mnist", "--recipe", "mlp"), (0, 1, 2, 3, 4)),
    Figure("kmnist", (str(DATA / "kmnist-from-test"), "--recipe", "kmnist"), (0, 1, 2)),
    Figure("fast-mnist", ("mnist", "--epochs", "1"), (0, 1, 2, 3, 4)),
    Figure("fast-fashion", ("fashion-mnist", "--epochs", "5"), (0, 1, 2)),
    Figure("strong-fashion", ("fashion-mnist", "--recipe", "strong"), (0, 1, 2)),
    Figure("sign-language", (str(DATA / "folders" / "sign-language-digits"),), (0, 1, 2)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[figure.name for figure in FIGURES])
    add_log_option(parser)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(figure, options.log) for figure in FIGURES if not options.only or figure.name in options.only]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| command | seeds | training seconds | test accuracy | by seed |")
    print("|---|---|---:|---:|---|")
    for row in rows:
        accuracy, seeds = row["accuracy"], ", ".join(map(str, row["seeds"]))
        each = ", ".join(f"{value:.4f}" for value in row["by_seed"])
        print(
            f"| `{row['command']}` | {seeds} | {row['seconds']['mean']:.1f} "
            f"| {accuracy['mean']:.4f} ± {accuracy['sd']:.4f} | {each} |"
        )


def measure(figure: Figure, log: Path | None) -> dict[str, Any]:
    """Command, seeds, and spread of seconds and accuracy."""
    trainings = [trained(figure.arguments, seed, log) for seed in figure.seeds]
    return {
        "name": figure.name,
        "command": shown(figure.arguments),
        "seeds": figure.seeds,
        **spreads(trainings),
        "by_seed": [training["accuracy"] for training in trainings],
    }


if __name__ == "__main__":
    main()
