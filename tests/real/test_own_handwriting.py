"""Photographs of one's own dark digits on paper, made from MNIST's test split: the doctor names what is wrong, and its
fixes make an MNIST model read them.
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
    figures = json.loads(
        subprocess.run([sys.executable, BENCHMARK, "--json"], check=True, stdout=subprocess.PIPE).stdout
    )
    assert figures["polarity_named"] >= 0.98
    assert figures["centring_named"] >= 0.95
    assert figures["accuracy_without_fixes"] < 0.3
    assert figures["accuracy_with_fixes"] >= 0.95
