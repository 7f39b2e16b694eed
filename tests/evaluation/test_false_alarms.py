"""False alarms of the measure of unfamiliarity."""

import numpy as np
import pytest

import foveola
from foveola.evaluation.intervals import wilson
from foveola.evaluation.unfamiliarity import evaluate_unfamiliarity
from foveola.models.metadata import Unfamiliarity

MEASURE = Unfamiliarity(layers=("dense_1",), energy_weight=0.1, threshold=2.0, false_alarms=0.02, validation_images=49)


@pytest.mark.parametrize(("scores", "alarms"), [([0, 1, 2, 3], 1), ([2, 2], 0), ([5, 5, 5], 3)])
def test_images_above_the_threshold_are_false_alarms(scores, alarms):
    result = evaluate_unfamiliarity(np.array(scores, np.float32), MEASURE)
    assert result.false_alarms == wilson(alarms, len(scores))
    assert (result.threshold, result.promised) == (2.0, 0.02)


def test_training_and_evaluation_report_them_on_the_test_split(tmp_path, foveola_command):
    run = foveola.train("digits", overrides={"epochs": 1, "minimum_steps": 40}, out=tmp_path / "run", verbose=False)
    model, data = foveola.open(run.path), foveola.load("digits")
    result = run.evaluation.unfamiliar
    assert result.threshold == model.metadata.unfamiliarity.threshold
    assert (result.false_alarms.n, result.false_alarms.method) == (359, "Wilson")
    assert foveola.evaluate(run.path, data, verbose=False).unfamiliar == result
    assert "called unfamiliar" in foveola_command("evaluate", run.path, "digits").out
    page = " ".join((run.path / "report.html").read_text().split())
    assert f"says so of {100 * result.false_alarms.value:.2f} % of these images" in page
