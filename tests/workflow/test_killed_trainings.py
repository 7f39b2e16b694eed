"""A few kills of benchmarks/kills.py, which ends hundreds of trainings: what was resumed equals what was not killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forks")]


@pytest.mark.parametrize(("name", "kills"), [("KILL", 12), ("TERM", 10)])
def test_a_training_that_is_killed_and_resumed_gives_the_same_bytes(name, kills):
    command = [
        sys.executable,
        _SCRIPT,
        "--signal",
        name,
        "--kills",
        kills,
        "--case",
        "short",
        "--calls-only",
        "--no-plots",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= kills
