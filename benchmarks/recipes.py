"""Training speed and peak memory of each recipe, and start-up time of commands.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/recipes.py [--data mnist] [--epochs 2] [--json]

Every training runs in a process of its own, one after the other; nothing else should run beside them. Seconds an epoch
include its validation; the first epoch, which warms up, is left out. Peak memory is that of the whole process. Start-up
is the median of nine fresh processes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from foveola.recipe import load_recipe, recipe_names
from foveola.runs import Run
from foveola.workflow.environment import describe_environment

START_UPS = {
    "import foveola": [sys.executable, "-c", "import foveola"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "foveola --help": [str(Path(sys.executable).with_name("foveola")), "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each training, at least 2")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    rows = [measure(recipe, options.data, options.epochs) for recipe in recipe_names()]
    starts = {what: start_up(command) for what, command in START_UPS.items()}
    if options.json:
        print(
            json.dumps(
                {"machine": describe_environment().model_dump(), "recipes": rows, "start_up_seconds": starts}, indent=2
            )
        )
        return
    print(f"{describe_environment().platform}, {processor()}, {os.cpu_count()} processors; data: {options.data}\n")
    print("| recipe | batch | seconds an epoch | images a second | ms a step | peak memory, MiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['recipe']} | {row['batch_size']} | {row['seconds_an_epoch']:.2f} | {row['images_a_second']:,.0f} "
            f"| {row['ms_a_step']:.2f} | {row['peak_mib']:,.0f} |"
        )
    print("\n| start-up | seconds |\n|---|---:|")
    for what, seconds in starts.items():
        print(f"| `{what}` | {seconds:.3f} |")


def measure(recipe: str, data: str, epochs: int) -> dict[str, Any]:
    """Speed and peak memory of one training in a fresh process."""
    loaded = load_recipe(recipe)
    # with random batches an epoch is a handful of steps: keep the recipe's own length
    length = [] if loaded.batches == "random" else ["--epochs", str(epochs)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [START_UPS["foveola --help"][0], "train", data, "--recipe", recipe, "--out", str(out), "--quiet"]
        process = subprocess.Popen([*command, *length], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed")
        history = Run.open(out).history
    first, last = history[0], history[-1]
    seconds, steps = last["seconds"] - first["seconds"], last["step"] - first["step"]
    return {
        "recipe": recipe,
        "batch_size": loaded.batch_size,
        "seconds_an_epoch": seconds / (last["epoch"] - first["epoch"]),
        "images_a_second": steps * loaded.batch_size / seconds,
        "ms_a_step": 1000 * seconds / steps,
        "peak_mib": peak_mib(usage),
    }


def peak_mib(usage: resource.struct_rusage) -> float:
    """Peak memory of a process; macOS counts in bytes, other systems in KiB."""
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def start_up(command: list[str]) -> float:
    """Median seconds of nine fresh processes, after one that warms the disk cache."""
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def processor() -> str:
    """Name of the processor, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


if __name__ == "__main__":
    main()
