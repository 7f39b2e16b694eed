"""What the benchmarks share: one training in a fresh process, a log of them, and the spread over several."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("FOVEOLA_DATA", "../shared/data"))

Training = dict[str, Any]
"""A line of a log: command, seed, seconds, accuracy."""


def train(arguments: Sequence[str], seed: int) -> dict[str, Any]:
    """The document that `foveola train --json` prints; accuracy and seconds go to standard error as they come."""
    foveola = str(Path(sys.executable).with_name("foveola"))
    with tempfile.TemporaryDirectory() as folder:
        command = [foveola, "train", *arguments, "--seed", str(seed), "--out", f"{folder}/run"]
        command += ["--no-report", "--json", "--quiet"]
        document: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    accuracy, seconds = document["evaluation"]["accuracy"]["value"], document["seconds"]["training"]
    print(f"{' '.join(arguments)}, seed {seed}: {accuracy:.4f} in {seconds:.1f} s", file=sys.stderr, flush=True)
    return document


def shown(arguments: Sequence[str]) -> str:
    """The command that trains with these arguments, as somebody with the data elsewhere would type it."""
    return " ".join(("foveola train", *arguments)).replace(str(DATA), "$FOVEOLA_DATA")


def trained(arguments: Sequence[str], seed: int, log: Path | None) -> Training:
    """A training's seconds and accuracy: from the log, or else measured and added to it."""

    def measure() -> tuple[float, float]:
        document = train(arguments, seed)
        return document["seconds"]["training"], document["evaluation"]["accuracy"]["value"]

    return logged(shown(arguments), seed, log, measure)


def logged(command: str, seed: int, log: Path | None, measure: Callable[[], tuple[float, float]]) -> Training:
    """What the log says of a command with a seed; where it says nothing, what `measure` gives is added to it."""
    for training in read(log) if log is not None and log.exists() else []:
        if (training["command"], training["seed"]) == (command, seed):
            return training
    seconds, accuracy = measure()
    training = {"command": command, "seed": seed, "seconds": round(seconds, 3), "accuracy": round(accuracy, 6)}
    if log is not None:
        with log.open("a") as lines:
            print(json.dumps(training), file=lines)
    return training


def read(log: Path) -> list[Training]:
    """The trainings of a log."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def add_log_option(parser: ArgumentParser) -> None:
    """Let a benchmark be interrupted, and add seeds to what was measured before."""
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="trainings, a line of JSON each: those that stand there are not repeated, others are added",
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over the seeds; 0 for a single one."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def spreads(trainings: Sequence[Training]) -> dict[str, dict[str, float]]:
    """Of seconds and accuracy."""
    return {what: spread([training[what] for training in trainings]) for what in ("seconds", "accuracy")}
