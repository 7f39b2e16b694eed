"""Kill trainings at random moments, resume them until they are finished; are the files those of an uninterrupted run?

    python benchmarks/kills.py --kills 200 --signal KILL
    python benchmarks/kills.py --kills 100 --signal TERM --fresh

Half of the moments are random times; the other half are random calls that write (a file opened and half written, fsync,
rename, unlink, mkdir), so that many fall into saves. Each attempt, the first one and every resume, gets its own moment.
All are drawn from --seed. Equal must be, byte for byte: model.safetensors, evaluation.json, recipe.toml and the plots;
history.csv and run.json but for their seconds. Ends with 1 if anything differs.
"""

import argparse
import csv
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CASES: dict[str, list[str]] = {
    "short": ["--recipe", "mlp", "--epochs", "8", "--set", "keep=best"],
    "muon": [
        "--recipe", "fast", "--set", "minimum_steps=300", "--set", "augment.shift=1", "--set", "augment.rotation=10",
        "--set", "keep=best", "--set", "monitor=val_accuracy",
    ],
    "early-stopping": ["--recipe", "mlp", "--epochs", "60", "--set", "keep=best", "--set", "patience=6"],
    "sgd": [
        "--recipe", "lenet5", "--set", "pad=4", "--set", "optimizer=sgd", "--set", "learning_rate=0.01",
        "--set", "schedule=step", "--set", "step_epochs=20",
    ],
    "auc": [
        "--recipe", "fast", "--set", "minimum_steps=0", "--epochs", "15", "--set", "optimizer=adamw",
        "--set", "epoch_auc=true", "--set", "monitor=val_auc", "--set", "keep=best", "--set", "augment.mixup=0.4",
        "--set", "augment.cutout=2",
    ],
}  # fmt: skip
CHECKPOINTS = ["--checkpoint-every", "0.2s"]
# Calls of `os` before which a process may be killed; it may also be killed with half a file written
CALLS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
# What a training imports
_MODULES = (
    "torch", "safetensors.torch", "sklearn.datasets", "scipy.optimize", "scipy.stats",
    "matplotlib.backends.backend_agg", "foveola.cli.tables", "foveola.datasets.digits", "foveola.training.budget",
    "foveola.training.stopping", "foveola.training.transfer", "foveola.reports.plots", "foveola.workflow.train",
)  # fmt: skip
# A training that is not finished after so many attempts never will be
MAX_ATTEMPTS = 200
MAX_SECONDS = 300


# Kills of a training; then it may finish
MAX_KILLS = 10


@dataclass(frozen=True)
class Moment:
    """When an attempt is killed: after some seconds, or at a writing call, counted from 1."""

    seconds: float | None = None
    call: int | None = None


NEVER = Moment()


@dataclass(frozen=True)
class Training:
    """A case with its uninterrupted run, how long that took, and how many writing calls it made."""

    name: str
    options: list[str]
    reference: Path
    seconds: float
    calls: int


@dataclass
class Killer:
    """Starts attempts and ends them by a signal at random moments; counts how they ended."""

    number: int
    chance: random.Random
    fresh: bool
    calls_only: bool
    ends: Counter[str] = field(default_factory=Counter)

    def moment(self, training: Training) -> Moment:
        if self.calls_only or self.chance.random() < 0.5:
            return Moment(call=self.chance.randint(1, training.calls))
        return Moment(seconds=self.chance.uniform(0, training.seconds))

    def attempt(self, command: list[str], log: Path, moment: Moment) -> int:
        """The exit code of a command that is killed at a moment, unless it ends before."""
        process = _start(command, log, moment, self.number, self.fresh)
        if moment.seconds is not None:
            _signal_later(process, moment.seconds, self.number)
        code = _wait(process)
        self.ends[f"{'resumed' if '--resume' in command else 'begun'}: {code}"] += 1
        return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT", "HUP"), default="KILL")
    parser.add_argument("--case", choices=[*CASES, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-plots", action="store_true", help="without plots: a short training takes less")
    parser.add_argument("--fresh", action="store_true", help="a new Python for each attempt, instead of a fork")
    parser.add_argument("--calls-only", action="store_true", help="no random times, which depend on the machine")
    options = parser.parse_args()
    if options.no_plots:
        plots: Any = importlib.import_module("foveola.reports.plots")
        plots.plot_run = lambda folder, *_, **__: (folder / "curves.png").write_bytes(b"")
    number = getattr(signal, f"SIG{options.signal}")
    killer = Killer(number, random.Random(options.seed), options.fresh, options.calls_only)  # noqa: S311
    kills = trials = 0
    with tempfile.TemporaryDirectory() as folder:
        names = list(CASES) if options.case == "all" else [options.case]
        trainings = [uninterrupted(name, Path(folder) / name, options.fresh) for name in names]
        while kills < options.kills:
            training, run = trainings[trials % len(trainings)], Path(folder) / "run"
            trials += 1
            killed = train_killed(training, run, killer)
            kills += killed
            if found := differences(training.reference, run):
                print(f"{training.name}, training {trials}, {killed} kills: {found}")
                return 1
            shutil.rmtree(run)
            print(f"{training.name}: {killed} kills, equal; {kills} kills in {trials} trainings", flush=True)
    print(json.dumps({"signal": options.signal, "kills": kills, "trainings": trials, "ends": dict(killer.ends)}))
    return 0


def uninterrupted(name: str, path: Path, fresh: bool) -> Training:
    options = ["train", "digits", *CASES[name], *CHECKPOINTS, "--no-report", "--seed", "3", "--quiet"]
    counted, log = path.with_suffix(".calls"), path.with_suffix(".log")
    start = time.monotonic()
    code = _wait(_start([*options, "--out", str(path)], log, NEVER, signal.SIGKILL, fresh, counted))
    assert code == 0, log.read_text()
    return Training(name, options, path, time.monotonic() - start, int(counted.read_text()))


def train_killed(training: Training, run: Path, killer: Killer) -> int:
    """Train and resume, killed again and again, until the run is finished; the number of kills."""
    begin, resume = [*training.options, "--out", str(run)], ["train", "--resume", str(run), "--quiet"]
    command, kills, log = begin, 0, run.with_suffix(".log")
    for _ in range(MAX_ATTEMPTS):
        code = killer.attempt(command, log, killer.moment(training) if kills < MAX_KILLS else NEVER)
        if code == 0:
            return kills
        if code == 2 and command is resume and re.search("is not a run|ended before it began", log.read_text()):
            command = begin
            continue
        # By the signal itself where Python was not ready to note it
        assert code in (-killer.number, 128 + killer.number), f"{code}: {log.read_text()}"
        kills += 1
        command = resume
    raise AssertionError(f"not finished after {MAX_ATTEMPTS} attempts")


def _start(
    arguments: list[str], log: Path, moment: Moment, number: int, fresh: bool, counted: Path | None = None
) -> "subprocess.Popen[bytes] | int":
    child: list[Any] = [arguments, moment.call, number, None if counted is None else str(counted)]
    if fresh:
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, __file__, "--child", json.dumps(child)], stdout=file, stderr=file, env=_environment()
            )
    for module in _MODULES:
        importlib.import_module(module)  # once, for all forks
    process = os.fork()
    if process == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        run_child(*child)
    return process


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_child(arguments: list[str], call: int | None, number: int, counted: str | None) -> None:
    """Run a command in this process, which kills itself at its writing call of that number; never returns."""
    calls = 0

    def is_reached() -> bool:
        nonlocal calls
        calls += 1
        return calls == call

    def watch(name: str) -> None:
        original = getattr(os, name)

        def watched(*positional: Any, **named: Any) -> Any:
            if is_reached():
                os.kill(os.getpid(), number)
            return original(*positional, **named)

        setattr(os, name, watched)

    def open_file(file: Any, mode: str = "r", *positional: Any, **named: Any) -> Any:
        opened = original_open(file, mode, *positional, **named)
        if mode.startswith("w") and is_reached():
            opened.write(b"half a file" if "b" in mode else "half a file")
            opened.flush()
            os.kill(os.getpid(), number)
            opened.seek(0)  # a signal that is only noted changes nothing
            opened.truncate()
        return opened

    original_open = io.open
    io.open = open_file  # what Path.open calls
    from foveola.cli import main as foveola

    for name in CALLS:
        watch(name)
    code = 1
    try:
        code = foveola(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if counted:
            Path(counted).write_text(str(calls))
        os._exit(code)


def _signal_later(process: "subprocess.Popen[bytes] | int", seconds: float, number: int) -> None:
    """Send the signal after some seconds, unless the process ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if _ended(process):
            return
        time.sleep(min(0.01, max(end - time.monotonic(), 0)))
    os.kill(_number_of(process), number)


def _number_of(process: "subprocess.Popen[bytes] | int") -> int:
    return process if isinstance(process, int) else process.pid


def _ended(process: "subprocess.Popen[bytes] | int") -> bool:
    return os.waitid(os.P_PID, _number_of(process), os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(process: "subprocess.Popen[bytes] | int") -> int:
    """The exit code, negative for a signal."""
    end = time.monotonic() + MAX_SECONDS
    while not _ended(process):
        assert time.monotonic() < end, f"still running after {MAX_SECONDS} s"
        time.sleep(0.002)
    if isinstance(process, int):
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return process.wait()


def differences(expected: Path, found: Path) -> list[str]:
    """What differs between two runs, but for seconds."""
    names = {path.relative_to(expected).as_posix() for path in expected.rglob("*")}
    others = {path.relative_to(found).as_posix() for path in found.rglob("*")}
    unequal = [f"{name}: only in one" for name in sorted(names ^ others)]
    files = sorted(name for name in names & others - {"SHA256SUMS"} if (expected / name).is_file())
    both = {name: (_without_seconds(expected / name), _without_seconds(found / name)) for name in files}
    unequal += [f"{name}: differs" for name, (first, second) in both.items() if first != second]
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=found, capture_output=True)
    return unequal if checked.returncode == 0 else [*unequal, f"SHA256SUMS: {checked.stdout.decode()}"]


def _without_seconds(path: Path) -> Any:
    if path.name == "history.csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    if path.name == "run.json":
        return {key: value for key, value in json.loads(path.read_text("utf-8")).items() if key != "seconds"}
    return path.read_bytes()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(*json.loads(sys.argv[2]))
    sys.exit(main())
