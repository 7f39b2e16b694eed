"""Seconds of short trainings alone and beside two busy processes, by how OpenMP's threads wait for each other.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/busy.py [--steps 120] [--rounds 3] [--recipe fast]

Each training is a fresh process with its environment alone changed; settings alternate within a round, and nothing else
should run. Prints medians over the rounds. "default" is what the command chooses, "as libgomp" its own default.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "as libgomp": {"GOMP_SPINCOUNT": "300000"},
    "30,000 looks": {"GOMP_SPINCOUNT": "30000"},
    "1,000 looks": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", default="fast")
    options = parser.parse_args()
    seconds: dict[str, dict[int, list[float]]] = {name: {0: [], 2: []} for name in SETTINGS}
    for _ in range(options.rounds):
        for busy in (0, 2):
            with busy_processes(busy):
                for name, setting in SETTINGS.items():
                    seconds[name][busy].append(train(options.recipe, options.steps, setting))
    print(f"| `{options.recipe}`, {options.steps} steps | alone, s | beside two busy processes, s |")
    print("|---|---:|---:|")
    for name, of_setting in seconds.items():
        alone, beside = (statistics.median(of_setting[busy]) for busy in (0, 2))
        print(f"| {name} | {alone:.2f} | {beside:.2f} |")


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(recipe: str, steps: int, setting: dict[str, str]) -> float:
    """Seconds of the steps of a training on MNIST, start-up not counted."""
    with tempfile.TemporaryDirectory() as folder:
        length = [f"steps={steps}"] if recipe != "lenet5" else [f"epochs={steps // 5}"]
        command = [sys.executable, "-m", "foveola", "train", "mnist", "--recipe", recipe, "--set", *length]
        command += ["--set", "validation=0.02", "--out", f"{folder}/run", "--no-report", "--json", "--quiet"]
        unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        done = subprocess.run(command, env=unset | setting, capture_output=True, text=True, check=True)
    seconds: float = json.loads(done.stdout)["seconds"]["training"]
    return seconds


if __name__ == "__main__":
    main()
