"""Simulated photographs of dark digits on paper, made from MNIST's test split: the checks report what differs from the
training images, and with the proposed fixes an MNIST model classifies them.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "doctor.py"


@pytest.mark.slow
def test_the_proposed_fixes_make_photographs_readable(real_data, monkeypatch):
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))
    results = json.loads(
        subprocess.run([sys.executable, BENCHMARK, "--json"], check=True, stdout=subprocess.PIPE).stdout
    )
    assert results["polarity_named"] >= 0.98
    assert results["centring_named"] >= 0.95
    assert results["accuracy_without_fixes"] < 0.3
    assert results["accuracy_with_fixes"] >= 0.95
