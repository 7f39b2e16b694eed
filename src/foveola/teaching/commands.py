"""The commands behind the buttons, as they are run and as they are shown: the same words."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RUNS = "runs"
ANNOUNCE = "foveola.teaching.announce:Announce"
"""The callback of the page's trainings, which shows nothing on a terminal, and is left out of what is shown."""
RECORDING_GROUPS = r"((?:recording-[0-9a-f]{8}(?=_))|.+)"
"""`--groups`: all pictures of a recording are one group, any other picture is one by itself."""
MIN_UNITS = 3
"""Recordings and single pictures that a class needs for a training that is measured: one for each split."""
VALIDATION = {500: 0.2, 1_000: 0.1}
"""Of fewer pictures, the fraction for validation, from which probabilities and thresholds come."""
REJECT, MIN_TO_REJECT = 0.05, 250
"""Target error rate of predictions that are not called uncertain. Of 250 pictures, 40 are for validation; of fewer, the
threshold is often one that no prediction reaches."""


def runs_folder(project: Path) -> Path:
    """Where the runs of a project lie: beside it."""
    return project.absolute().parent / RUNS


def audit_folder(project: Path) -> Path:
    """Where an audit from the command line lies, in whichever folder it is started."""
    return project.absolute().parent / "audits" / project.name


def runs_of(project: Path) -> list[Path]:
    """What is called NAME-1, NAME-2, … where a project's runs lie, newest first."""
    found = []
    pattern = re.compile(re.escape(project.name) + r"-([1-9][0-9]{0,8})")
    folder = runs_folder(project)
    for path in folder.iterdir() if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match is not None:
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found, reverse=True)]


def next_run(project: Path) -> Path:
    """The folder of the next training."""
    before = runs_of(project)
    number = int(before[0].name.rpartition("-")[2]) + 1 if before else 1
    return runs_folder(project) / f"{project.name}-{number}"


def make_next_run(project: Path) -> Path:
    """Make the folder of the next training, which nobody else had made before: it may be removed if that fails."""
    while True:
        run = next_run(project)
        try:
            run.mkdir(parents=True)
        except FileExistsError:  # another training has just begun there
            continue
        return run


def train(
    project: Path, run: Path, seconds: float | None, recipe: str, *, pictures: int, grouped: bool, measured: bool
) -> Sequence[str]:
    """`foveola train`.

    Parameters
    ----------
    seconds : time limit for everything; None for none
    pictures : how many there are
    grouped : whether there are recordings
    measured : whether each class has enough pictures to be in every split; without, nothing is held out
    """
    command = ["train", str(project), "--recipe", recipe, "--out", str(run)]
    command += ["--no-report"] if seconds is None else ["--budget", f"{seconds:g}s"]
    command += ["--groups", RECORDING_GROUPS] if grouped else []
    if not measured:
        return [*command, "--set", "validation=0", "--set", "test=0"]
    fractions = [fraction for fewer, fraction in VALIDATION.items() if pictures < fewer]
    command += ["--set", f"validation={fractions[0]}"] if fractions else []
    return [*command, *(["--reject", f"{REJECT:g}", "--reject-on-average"] if pictures >= MIN_TO_REJECT else [])]


def resume(run: Path) -> Sequence[str]:
    """`foveola train` that goes on with an interrupted training."""
    return ["train", "--resume", str(run)]


def export(run: Path, format: str, data: Path | None = None) -> Sequence[str]:
    """`foveola export`; `data` is where the pictures of the training are, if they have changed."""
    return ["export", str(run), "--format", format, *_data(data)]


def report(run: Path, data: Path | None = None) -> Sequence[str]:
    """`foveola report`."""
    return ["report", str(run), *_data(data)]


def audit(project: Path, out: Path, *, grouped: bool) -> Sequence[str]:
    """`foveola audit`."""
    groups = ["--groups", RECORDING_GROUPS] if grouped else []
    return ["audit", str(project), "--recipe", "auto", "--out", str(out), *groups]


def shown(arguments: Sequence[str]) -> str:
    """A command as it is typed in a terminal."""
    words = ["foveola", *arguments]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _data(data: Path | None) -> list[str]:
    return [] if data is None else ["--data", str(data)]
