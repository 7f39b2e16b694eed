"""Weights of images through a whole training: what is learnt, measured, recorded and printed."""

from dataclasses import replace

import numpy as np
import pytest

import foveola
from foveola.documents import Evaluation
from foveola.images import Dataset


@pytest.fixture(scope="module")
def mislabelled(toy):
    """The toy data twice; the second copies, a little noisier, have the label of the next class, and weigh nothing."""
    images = toy.train.take(np.tile(np.arange(60), 2))
    noise = np.random.default_rng(0).integers(0, 10, (60, 8, 8, 1), dtype=np.uint8)
    pixels = images.images.copy()
    pixels[60:] = np.clip(pixels[60:].astype(int) + noise, 0, 255)
    labels = np.r_[images.labels[:60], (images.labels[60:] + 1) % 3]
    return replace(images, images=pixels, labels=labels, weights=np.repeat([1.0, 0.0], 60))


def test_images_of_weight_0_are_neither_learnt_nor_measured(mislabelled, tiny, tmp_path, foveola_command):
    data = Dataset("weighted", mislabelled, test=mislabelled)
    settings = {"epochs": 30, "validation": 0.2}
    run = foveola.train(data, tiny, out=tmp_path / "run", overrides=settings, report=False, verbose=False)
    evaluation = run.evaluation
    assert evaluation.accuracy.value > 0.9  # of all images alike, half would be wrong
    assert evaluation.weighted.effective == pytest.approx(60)
    assert Evaluation.from_json(evaluation.to_json(), "") == evaluation
    assert sum(map(sum, evaluation.confusion)) == evaluation.n == 120
    assert [line for line in run.status.data.summary if line.startswith("weights: 0 to 1 a training image")]
    assert run.status.training_accuracy > 0.9

    packed = tmp_path / "packed"
    foveola.pack(data, packed, verbose=False)
    outcome = foveola_command("evaluate", run.path, packed)
    assert outcome.code == 0
    assert "weighted: they count as 60.0" in outcome.out
    again = foveola.evaluate(run.path, packed, verbose=False)
    assert again.accuracy == evaluation.accuracy
