"""Pairs of trainings at the same moment: whole runs or clear refusals, and every printed figure its own run's.

    python benchmarks/simultaneous.py --pairs 20

The pairs differ in what they have in common: the same --out, no --out, or --force on the same finished run; their seeds
differ, so that exchanged figures are noticed. A training that ends with 0 must have printed the figures of the folder
that it names, with its own seed; one that ends with 2 must name the folder. At the end, every folder holds one whole
run. Ends with 1 if anything else is found.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from foveola.runs import Run

KINDS = ("the same --out", "no --out", "--force on the same run")
OPTIONS = ["digits", "--recipe", "mlp", "--epochs", "3", "--no-report", "--json", "--checkpoint-every", "0.2s"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number in range(pairs):
            kind = KINDS[number % len(KINDS)]
            if kind == "--force on the same run":
                end(start(place, 1000, "--out", "forced", "--force"), place, 1000)
            options = {
                "the same --out": ["--out", f"run-{number}"],
                "no --out": [],
                "--force on the same run": ["--out", "forced", "--force"],
            }[kind]
            seeds = (2 * number, 2 * number + 1)
            both = [start(place, seed, *options) for seed in seeds]
            outcomes = [end(process, place, seed) for process, seed in zip(both, seeds, strict=True)]
            assert "whole" in outcomes, f"{kind}: neither training has finished"
            if kind == "no --out":
                assert outcomes == ["whole", "whole"], "without --out, nothing is to be refused"
            if kind == "the same --out":
                assert sorted(outcomes) == ["refused", "whole"], "two trainings have written into the same folder"
            ends.update(f"{kind}: {outcome}" for outcome in outcomes)
            print(f"{kind}: {', '.join(outcomes)}", flush=True)
        check_folders(place)
    print(json.dumps({"pairs": pairs, "ends": dict(ends)}))
    return 0


def start(place: Path, seed: int, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "foveola", "train", *OPTIONS, "--seed", str(seed), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: "subprocess.Popen[str]", place: Path, seed: int) -> str:
    """How a training ended: whole, or refused; fails for everything else."""
    out, error = process.communicate(timeout=600)
    if process.returncode == 2:
        message = error.strip().splitlines()[-1]
        assert out == "", out
        assert message.startswith("foveola: ") and ("run" in message or "forced" in message), error
        assert "Traceback" not in error, error
        return "refused"
    assert process.returncode == 0, f"{process.returncode}: {error}"
    printed: dict[str, Any] = json.loads(out)
    assert printed["seed"] == seed, f"printed the figures of seed {printed['seed']}, asked for {seed}"
    run = place / printed["run"]
    # With --force, another training may have replaced the run since: its figures are then of another seed
    found = Run.open(run)
    if found.status.seed == seed:
        assert json.loads(found.evaluation.to_json()) == printed["evaluation"], f"{run} has other figures than printed"
        assert json.loads(found.status.to_json()) == {
            name: printed[name] for name in json.loads(found.status.to_json())
        }
    else:
        assert run.name == "forced", f"{run} holds seed {found.status.seed}, not {seed}"
    return "whole"


def check_folders(place: Path) -> None:
    """Every folder holds one whole run and nothing unfinished."""
    for run in [*place.glob("run-*"), *place.glob("runs/*"), place / "forced"]:
        if run.name == "forced" and not run.exists():
            continue
        assert Run.open(run).status.status == "done", run
        assert not (run / "checkpoint").exists(), run
        assert not (run / ".checkpoint-removed").exists(), run
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=run, check=True)


if __name__ == "__main__":
    sys.exit(main())
