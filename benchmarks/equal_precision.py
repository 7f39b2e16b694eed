"""Milliseconds a training step of the tutorials' networks, in Keras and in Foveola, both in float32 and both in bf16.

    make peers    # Keras in an environment of its own, once
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/equal_precision.py [--rounds 5] [--threads 2 1] [--json]

Each measurement is a fresh process that trains two epochs of the same images and times the second one, without
validation: compilation and warm-up are over then. Keras's bf16 is its policy mixed_bfloat16. The programs alternate in
every round, and nothing else should run beside them. A cell is the median of the rounds; the ratio is the median of the
rounds' ratios, with the smallest and the largest.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from foveola import datasets

HERE = Path(__file__).parent
KERAS = HERE.parent / ".venv-peers" / "bin" / "python"
FOVEOLA = Path(sys.executable).with_name("foveola")
# Data, images in a batch, and steps in an epoch
PROGRAMS = {"lenet5": ("mnist", 100, 300), "west": ("fashion-mnist", 256, 180), "eduonix": ("fashion-mnist", 32, 300)}
PRECISIONS = ("float32", "bf16")

Setting = tuple[str, int, str]
"""Program, threads, precision."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not KERAS.exists():
        sys.exit(f"{KERAS} is missing. Run make peers first.")
    settings = list(product(PROGRAMS, options.threads, PRECISIONS))
    found: dict[Setting, list[tuple[float, float]]] = {setting: [] for setting in settings}
    with tempfile.TemporaryDirectory() as folder:
        for program in PROGRAMS:
            make_file(program, Path(folder))
        for number, setting in product(range(options.rounds), settings):
            found[setting].append((with_keras(setting, Path(folder)), with_foveola(setting, Path(folder))))
            print(number, *setting, *found[setting][-1], file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([{"setting": setting, "milliseconds": pairs} for setting, pairs in found.items()], indent=2))
    else:
        print_table(found)


def make_file(program: str, folder: Path) -> None:
    """Write the first training images of a program's data, as many as an epoch takes."""
    data, batch, steps = PROGRAMS[program]
    train = datasets.load(data).train
    np.savez(folder / program, x_train=train.images[: batch * steps], y_train=train.labels[: batch * steps])


def with_keras(setting: Setting, folder: Path) -> float:
    program, threads, precision = setting
    _, batch, steps = PROGRAMS[program]
    command = [KERAS, HERE / "peers" / "keras_steps.py", program, folder / f"{program}.npz"]
    command += [str(batch), str(steps), precision, str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout.split()[-1])


def with_foveola(setting: Setting, folder: Path) -> float:
    program, threads, precision = setting
    _, batch, steps = PROGRAMS[program]
    settings = {
        "precision": precision, "validation": 0, "batch_size": batch, "epochs": 2,
        "batches": "random", "steps_per_epoch": steps,
    }  # fmt: skip
    run = folder / "run"
    command = [FOVEOLA, "train", folder / f"{program}.npz", "--recipe", program, "--threads", str(threads)]
    command += ["--out", run, "--force", "--no-report", "--quiet"]
    command += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    subprocess.run(command, check=True, capture_output=True)
    first, second = csv.DictReader((run / "history.csv").read_text().splitlines())
    return 1000 * (float(second["seconds"]) - float(first["seconds"])) / steps


def print_table(found: dict[Setting, list[tuple[float, float]]]) -> None:
    print("| network | threads | precision | Keras, ms a step | Foveola, ms a step | Keras / Foveola |")
    print("|---|---:|---|---:|---:|---:|")
    for (program, threads, precision), pairs in found.items():
        keras, foveola = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [one / other for one, other in pairs]
        print(
            f"| {program} | {threads} | {precision} | {keras:.1f} | {foveola:.1f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
