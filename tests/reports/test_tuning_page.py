"""The page of a tuning: the figure to quote, plots, trials; readable on a phone, without requests."""

import json

import numpy as np
import pytest

from foveola.documents import Tuning
from foveola.reports.tuning import tuning_page

KEYS = ("learning_rate", "weight_decay", "augment.shift", "optimizer")


def document(count=24, *, evaluation=None, objective="log_loss", **more):
    """Trials of which every third was pruned; the more augmentation, the better."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        values = [0.01 * 4 ** random.uniform(-1, 1), 0.05, int(random.integers(4)), ("adam", "<muon>")[number % 2]]
        pruned = number % 3 == 2
        rows.append(
            {"number": number, "state": "pruned" if pruned else "complete", "start": number == 0, "seconds": 12.34}
            | {"value": 0.2 - 0.02 * values[2] + 0.01 * random.uniform(), "scores": []}
            | {"reason": "pruned at 40%" if pruned else None, "values": dict(zip(KEYS, values, strict=True))}
        )
    complete = [row for row in rows if row["state"] == "complete"]
    choose = max if objective == "accuracy" else min
    return Tuning(
        data="letters & signs",
        fingerprint="f" * 64,
        recipe="fast",
        space={
            "learning_rate": {"low": 0.0025, "high": 0.04, "log": True},
            "weight_decay": {"low": 0.01, "high": 0.1},
            "augment": {"shift": {"low": 0, "high": 3}},
            "optimizer": {"choices": ["adam", "<muon>"]},
        },
        objective=objective,
        judged_by="Judged by 5-fold cross-validation of 1,438 images",
        folds=5,
        repeats=1,
        seed=0,
        final_seed=1,
        study="sqlite:///study.db",
        study_name="letters-fast",
        trials=rows,
        start=rows[0],
        best=choose(complete, key=lambda row: row["value"]),
        importances={"augment.shift": 0.8, "learning_rate": 0.15, "optimizer": 0.05} if count > 5 else {},
        evaluation=evaluation,
        files=["best.toml"],
        seconds=300.0,
        **more,
    )


@pytest.fixture(scope="module")
def evaluation(toy_run):
    return json.loads((toy_run / "evaluation.json").read_text())


def test_the_page_says_which_figure_to_quote_and_which_is_optimistic(evaluation):
    page = tuning_page(document(evaluation=evaluation, run="run"))
    assert "letters &amp; signs" in page
    assert "&lt;muon&gt;" in page
    assert "<muon>" not in page
    assert "is optimistic" in page
    assert "The figure to quote is the test accuracy" in page
    assert page.count("<svg") == 3
    assert page.count('scope="row" class="number"') == 24
    assert "16</b>complete trials" in page


@pytest.mark.parametrize(
    ("more", "sentence"),
    [({"run": "run"}, "no figure to quote yet"), ({}, "has not been trained and measured on test images yet")],
)
def test_without_a_test_figure_the_page_says_why(more, sentence):
    assert sentence in " ".join(tuning_page(document(**more)).split())


@pytest.mark.parametrize("objective", ["log_loss", "accuracy"])
def test_a_single_trial_is_a_page_too(objective):
    page = tuning_page(document(1, objective=objective))
    assert page.count("<svg") == 1
    assert "No trial was better than the recipe to start from" in page


def test_the_best_trial_comes_first():
    for objective, order in (("log_loss", 1), ("accuracy", -1)):
        made = document(objective=objective)
        page = tuning_page(made)
        numbers = [int(part.split("<")[0]) for part in page.split('scope="row" class="number">')[1:]]
        values = [made.trials[number].value for number in numbers[:16]]
        assert numbers[0] == made.best.number
        assert values == sorted(values, key=lambda value: order * value)


@pytest.mark.parametrize("width", [360, 1200])
def test_in_a_browser_it_has_no_errors_no_requests_and_no_sideways_scrolling(browser, tmp_path, evaluation, width):
    path = tmp_path / "report.html"
    path.write_text(tuning_page(document(evaluation=evaluation, run="run")), encoding="utf-8")
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("performance")
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in requested if not url.startswith("data:")} == {path.as_uri()}
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
