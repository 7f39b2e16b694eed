"""Shared by the benchmarks: a training in a fresh process, the log of trainings, mean and standard deviation."""

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
    """The JSON document of `foveola train --json`; prints accuracy and seconds to standard error."""
    foveola = str(Path(sys.executable).with_name("foveola"))
    with tempfile.TemporaryDirectory() as folder:
        command = [foveola, "train", *arguments, "--seed", str(seed), "--out", f"{folder}/run"]
        command += ["--no-report", "--json", "--quiet"]
        document: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    accuracy, seconds = document["evaluation"]["accuracy"]["value"], document["seconds"]["training"]
    print(f"{' '.join(arguments)}, seed {seed}: {accuracy:.4f} in {seconds:.1f} s", file=sys.stderr, flush=True)
    return document


def shown(arguments: Sequence[str]) -> str:
    """The training command with these arguments, with $FOVEOLA_DATA in the place of the data folder."""
    return " ".join(("foveola train", *arguments)).replace(str(DATA), "$FOVEOLA_DATA")


def trained(arguments: Sequence[str], seed: int, log: Path | None) -> Training:
    """Seconds and accuracy of a training: from the log, or measured and added to it."""

    def measure() -> tuple[float, float]:
        document = train(arguments, seed)
        return document["seconds"]["training"], document["evaluation"]["accuracy"]["value"]

    return logged(shown(arguments), seed, log, measure)


def logged(command: str, seed: int, log: Path | None, measure: Callable[[], tuple[float, float]]) -> Training:
    """The log's entry for a command and a seed; if there is none, the result of `measure`, which is then added."""
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
    """All trainings in a log."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def add_log_option(parser: ArgumentParser) -> None:
    """Add --log: resume an interrupted benchmark, or add seeds to an earlier one."""
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="log of trainings, one line of JSON each; trainings in the log are not repeated, new ones are added",
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over the seeds; 0 for a single one."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def spreads(trainings: Sequence[Training]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of seconds and of accuracy."""
    return {what: spread([training[what] for training in trainings]) for what in ("seconds", "accuracy")}
