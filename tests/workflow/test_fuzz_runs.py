"""A few executions of benchmarks/fuzz_runs.py, which damages hundreds of thousands of checkpoints and run files."""

import importlib
from collections import Counter
from pathlib import Path


def test_damaged_checkpoints_and_run_files_are_refused_or_whole(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    fuzz_runs = importlib.import_module("fuzz_runs")
    world = fuzz_runs.World(tmp_path)
    outcomes = [fuzz_runs.execute(world, number, seed=1) for number in range(800)]
    assert {target for target, _ in outcomes} == set(fuzz_runs.TARGETS)
    assert set(Counter(outcome for _, outcome in outcomes)) == {"read", "refused"}
