"""Is a recipe that `foveola tune` finds in some minutes no worse than the one it started from? Interrupted on the way.

    .venv/bin/python benchmarks/tuning.py DATA [--minutes 10] [--processes 2] [--seeds 5] [--out FOLDER]

The tuning is ended by SIGTERM after 40 % of its time, and gone on with for what is left. Then the best recipe and the
one to start from are trained with as many seeds, none of which a trial had, and compared on the same test images. The
last line is the verdict of the paired test.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOVEOLA = [sys.executable, "-m", "foveola"]
INTERRUPTED_AT = 0.4
FIRST_SEED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for the tuning, its last training included")
    parser.add_argument("--processes", type=int, default=2, help="that share the study, with a thread each")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="tuning-"))
    tuning = tune(options, out / "tuning")
    runs = []
    for name, recipe in (("tuned", out / "tuning" / "best.toml"), ("start", options.recipe)):
        runs.append(out / name)
        arguments = [options.data, "--recipe", recipe, "--seed", FIRST_SEED, "--out", out / name, "--quiet"]
        subprocess.run([*FOVEOLA, "train", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    command = [*FOVEOLA, "compare", *map(str, runs), "--seeds", str(options.seeds), "--json"]
    comparison = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(f"trials: {len(tuning['trials'])}; best: {tuning['best']['values']}")
    for run in comparison["runs"]:
        print(f"{run['name']}: {run['accuracy_mean']:.4f} ± {run['accuracy_standard_deviation']:.4f}")
    print(comparison["pairs"][0]["verdict"])


def tune(options: argparse.Namespace, out: Path) -> dict:
    """The tuning's document, after one interruption by SIGTERM."""
    seconds, started = 60 * options.minutes, time.monotonic()
    processes = start(options, out, seconds)
    time.sleep(INTERRUPTED_AT * seconds)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes = [process.wait() for process in processes]
    print(f"interrupted after {time.monotonic() - started:.0f} s; exit codes {codes}")
    for process in start(options, out, max(seconds - (time.monotonic() - started), 1.0)):
        if process.wait():
            sys.exit(f"foveola tune ended with {process.returncode}")
    print(f"tuned in {time.monotonic() - started:.0f} s")
    return json.loads((out / "tuning.json").read_text())


def start(options: argparse.Namespace, out: Path, seconds: float) -> list[subprocess.Popen]:
    arguments = [options.data, "--recipe", options.recipe, "--budget", f"{seconds:.0f}s", "--out", out]
    arguments += ["--threads", 1] if options.processes > 1 else []
    command = [*FOVEOLA, "tune", *map(str, arguments)]
    return [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(options.processes)]


if __name__ == "__main__":
    main()
