"""A few executions of benchmarks/fuzz.py, which runs a million of them."""

import importlib.util
from collections import Counter
from pathlib import Path

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_damaged_files_are_read_or_refused(tmp_path):
    spec = importlib.util.spec_from_file_location("fuzz", _SCRIPT)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    outcomes = [fuzz.execute(number, 0, tmp_path) for number in range(600)]
    assert {reader for reader, _ in outcomes} == set(fuzz.WEIGHTS)
    assert set(Counter(outcome for _, outcome in outcomes)) == {"read", "refused"}
