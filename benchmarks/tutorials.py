"""The tutorial programs in Keras (float32) and in Foveola (bf16 where the processor can), alternating in one run.

    make peers    # Keras in an environment of its own, once
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/tutorials.py [--seeds 3] [--only west] \
        [--log docs/trainings.jsonl] [--json]

Layers, batch size and epochs are the same. Both read one file, which `make_file` writes, with the same training and
validation images for every seed; the file is not recognised as a data set of the catalog, so that neither side trains
with mirror images. Each training is a fresh process; nothing else should run beside it. Seconds are those of the fit,
validation included, start-up not; each process compiles or warms up within its own fit. The ratio is bf16 against
float32: it does not compare the two at equal precision.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foveola import datasets
from runs import Training, add_log_option, logged, spreads, trained

HERE = Path(__file__).parent
KERAS = HERE.parent / ".venv-peers" / "bin" / "python"
PROGRAMS = {"lenet5": "mnist", "west": "fashion-mnist", "eduonix": "fashion-mnist"}
TITLES = {"lenet5": "LeNet-5", "west": "West", "eduonix": "Eduonix"}
# Number of training images: the first ones, as in the programs; the others are validation images. Packt's program
# has none and evaluates on 1,200 test images instead: here as many training images are set aside
LEARNING = {"lenet5": 58_800, "west": 48_000, "eduonix": 54_000}
FILES = Path("build") / "tutorials"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=list(PROGRAMS))
    add_log_option(parser)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not KERAS.exists():
        sys.exit(f"{KERAS} is missing. Run make peers first.")
    rows = [compare(program, options.seeds, options.log) for program in options.only or PROGRAMS]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| program | Keras float32, s | Foveola bf16, s | ratio | Keras float32, accuracy | Foveola bf16, accuracy |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        seconds, accuracy = (
            [row[who][what]["mean"] for who in ("keras", "foveola")] for what in ("seconds", "accuracy")
        )
        print(
            f"| {row['program']} | {seconds[0]:.1f} | {seconds[1]:.1f} | {seconds[0] / seconds[1]:.1f} "
            f"| {accuracy[0]:.4f} | {accuracy[1]:.4f} |"
        )


def compare(program: str, seeds: int, log: Path | None) -> dict[str, Any]:
    """Spread of seconds and accuracy of both programs over the seeds, alternating."""
    make_file(program)
    runs: dict[str, list[Training]] = {"keras": [], "foveola": []}
    for seed in range(seeds):
        runs["keras"].append(logged(keras_command(program), seed, log, partial(with_keras, program, seed)))
        runs["foveola"].append(trained((str(file(program)), "--recipe", program), seed, log))
    return {"program": program} | {who: spreads(trainings) for who, trainings in runs.items()}


def make_file(program: str) -> None:
    """Write images, uint8 N×28×28×1, and labels for a program, split as the program splits them."""
    data, learning = datasets.load(PROGRAMS[program]), LEARNING[program]
    images, labels = data.train.images, data.train.labels
    FILES.mkdir(parents=True, exist_ok=True)
    np.savez(
        file(program),
        x_train=images[:learning], y_train=labels[:learning],
        x_val=images[learning:], y_val=labels[learning:],
        x_test=data.test.images, y_test=data.test.labels,
    )  # fmt: skip


def file(program: str) -> Path:
    """The file with the images of a program."""
    return FILES / f"{program}.npz"


def keras_command(program: str) -> str:
    """Name in the log of a training with Keras."""
    return f"keras_tutorials.py {program} {file(program)}"


def with_keras(program: str, seed: int) -> tuple[float, float]:
    """Seconds of the fit, and accuracy on the test images."""
    command = [KERAS, HERE / "peers" / "keras_tutorials.py", program, file(program), str(seed)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(f"{program} with Keras, seed {seed}: {answer}", file=sys.stderr, flush=True)
    return answer["seconds"], answer["accuracy"]


if __name__ == "__main__":
    main()
