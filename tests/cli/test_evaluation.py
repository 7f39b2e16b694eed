"""`evaluate` and `compare`: tables, JSON and pages."""

import json
import shutil
from pathlib import Path


def test_evaluate_writes_the_same_document(foveola_command, arguments):
    code, out, _ = foveola_command("evaluate", *arguments["evaluate"], "--json", "--out", "metrics.json")
    assert code == 0
    assert json.loads(Path("metrics.json").read_text()) == json.loads(out)


def test_compare_prints_the_verdict_of_the_page(foveola_command, arguments):
    code, out, err = foveola_command("compare", *arguments["compare"], "--out", "page.html", "--quiet")
    assert (code, err) == (0, "")
    verdict = out.splitlines()[0]
    assert verdict == "no difference: toy and toy predict the same class for every image"
    assert verdict in Path("page.html").read_text("utf-8")


def test_compare_trains_and_shows_seeds(foveola_command, arguments, toy_run, toy_npz, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(toy_run, tmp_path / name)
    code, out, err = foveola_command("compare", "one", "two", "--data", toy_npz, "--seeds", 2, "--out", "page.html")
    assert code == 0
    assert "training two with seed 1" in err
    assert "standard deviation over seeds" in out
    assert "over 2 and 2 trainings" in out
    assert "2 seeds per run" in Path("page.html").read_text("utf-8")


def test_compare_refuses_a_single_run(foveola_command, toy_run):
    code, out, err = foveola_command("compare", toy_run)
    assert (code, out) == (2, "")
    assert "at least two runs" in err
