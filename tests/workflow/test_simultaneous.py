"""Pairs of trainings at the same moment: benchmarks/simultaneous.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "simultaneous.py"


@pytest.mark.slow
def test_two_trainings_at_the_same_moment_do_not_disturb_each_other():
    command = [sys.executable, str(_SCRIPT), "--pairs", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(json.loads(done.stdout.splitlines()[-1])["ends"].values()) == 12
