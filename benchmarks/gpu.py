"""Training time and test accuracy on a GPU; all rows together take under ten minutes.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/gpu.py [--seeds 3] [--json]

Each row is trained in this process, first cold (the network is new to the device), then warm, once per seed. Seconds
are those of the training, validation included. Exits with 2 if PyTorch finds no CUDA device.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foveola
from runs import spread


@dataclass(frozen=True)
class Row:
    """What to train, and the goal: an accuracy, and the seconds of training it may take (None: no limit)."""

    data: str
    recipe: str
    overrides: dict[str, Any]
    accuracy: float
    seconds: float | None


ROWS = (
    Row("mnist", "fast", {"epochs": 2, "batch_size": 256, "augment.shift": 1}, 0.995, 1.0),
    Row("fashion-mnist", "strong", {"epochs": 10, "batch_size": 256}, 0.94, 4.0),
    Row("fashion-mnist", "best", {"epochs": 40, "batch_size": 256, "augment.cutout": 8}, 0.955, 60.0),
    Row("mnist", "best", {"augment.shift": 2, "augment.rotation": 10.0}, 0.9972, None),
    Row("fashion-mnist", "best", {"epochs": 100, "augment.cutout": 8}, 0.96, None),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="warm trainings of each row that has a time goal")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("gpu.py: PyTorch finds no CUDA device.", file=sys.stderr)
        sys.exit(2)
    rows = [measure(row, options.seeds if row.seconds else 1) for row in ROWS]
    if options.json:
        print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}, indent=2))
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print("| data | recipe | goal | cold, s | warm, s | test accuracy |")
    print("|---|---|---|---:|---:|---:|")
    for row in rows:
        warm, accuracy = row["warm"], row["accuracy"]
        print(
            f"| {row['data']} | {row['recipe']} | {row['goal']} | {row['cold']:.2f} "
            f"| {warm['mean']:.2f} ± {warm['sd']:.2f} | {accuracy['mean']:.4f} ± {accuracy['sd']:.4f} |"
        )


def measure(row: Row, seeds: int) -> dict[str, Any]:
    """Train once cold, which does not count for the accuracy, then warm with every seed."""
    data = foveola.load(row.data)
    cold, *warm = [train(data, row, seed) for seed in (seeds, *range(seeds))]
    goal = f"{row.accuracy:.2%}" + (f" in {row.seconds:g} s" if row.seconds else "")
    return {
        "data": row.data,
        "recipe": row.recipe,
        "overrides": row.overrides,
        "goal": goal,
        "cold": cold["seconds"],
        "warm": spread([run["seconds"] for run in warm]),
        "accuracy": spread([run["accuracy"] for run in warm]),
    }


def train(data: Any, row: Row, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = foveola.train(
            data, row.recipe, overrides=row.overrides, seed=seed, device="cuda", out=Path(folder) / "run", verbose=False
        )
        return {"seconds": run.status.seconds.training, "accuracy": run.evaluation.accuracy.value}


if __name__ == "__main__":
    main()
