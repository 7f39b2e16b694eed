"""The readable tutorial programs, with Keras and with Foveola: same layers, batch size and epochs, in one run.

    make peers    # Keras in an environment of its own, once
    FOVEOLA_DATA=../shared/data .venv/bin/python benchmarks/tutorials.py [--seeds 3] [--only west] [--json]

The two alternate, each in a fresh process; nothing else should run beside them. Seconds are those of the fit,
validation included, start-up not; each process compiles or warms up within its own fit.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import spread, train

HERE = Path(__file__).parent
KERAS = HERE.parent / ".venv-peers" / "bin" / "python"
DATA = {"lenet5": "mnist", "west": "fashion-mnist", "eduonix": "fashion-mnist"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=list(DATA))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not KERAS.exists():
        sys.exit(f"{KERAS} is missing. Run make peers first.")
    rows = [compare(program, options.seeds) for program in options.only or DATA]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| program | Keras, s | Foveola, s | times faster | Keras, accuracy | Foveola, accuracy |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        seconds, accuracy = (
            [row[who][what]["mean"] for who in ("keras", "foveola")] for what in ("seconds", "accuracy")
        )
        print(
            f"| {row['program']} | {seconds[0]:.1f} | {seconds[1]:.1f} | {seconds[0] / seconds[1]:.1f} "
            f"| {accuracy[0]:.4f} | {accuracy[1]:.4f} |"
        )


def compare(program: str, seeds: int) -> dict[str, Any]:
    """Both programs with every seed, alternating."""
    runs: dict[str, list[dict[str, float]]] = {"keras": [], "foveola": []}
    for seed in range(seeds):
        for who, measure in (("keras", with_keras), ("foveola", with_foveola)):
            runs[who].append(measure(program, seed))
    return {"program": program} | {
        who: {what: spread([run[what] for run in found]) for what in ("seconds", "accuracy")}
        for who, found in runs.items()
    }


def with_keras(program: str, seed: int) -> dict[str, float]:
    folder = Path(os.environ.get("FOVEOLA_DATA", "../shared/data")) / DATA[program]
    command = [str(KERAS), str(HERE / "peers" / "keras_tutorials.py"), program, str(folder), str(seed)]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(f"{program} with Keras, seed {seed}: {answer}", file=sys.stderr, flush=True)
    return answer


def with_foveola(program: str, seed: int) -> dict[str, float]:
    document = train((DATA[program], "--recipe", program), seed)
    return {"seconds": document["seconds"]["training"], "accuracy": document["evaluation"]["accuracy"]["value"]}


if __name__ == "__main__":
    main()
