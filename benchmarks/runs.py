"""What the benchmarks share: one training in a fresh process, and the spread over several."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over the seeds; 0 for a single one."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}
