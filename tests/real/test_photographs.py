"""Photographs, from published weights to exports. Slow: make test-slow; figures: docs/photographs.md."""

from statistics import mean

import pytest

import foveola
from foveola.exports.onnx import OnnxModel
from foveola.workflow.export import export

pytestmark = pytest.mark.slow
RECIPE = "efficientnet-lite0"


@pytest.fixture
def train(real_data, tmp_path, monkeypatch):
    """Function that trains on trashnet-150 from the published weights."""
    if not (real_data / "backbones" / RECIPE / "model.safetensors").is_file():
        pytest.skip("no pretrained weights in the folder of the real data")
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))

    def run(seed, **overrides):
        settings = {"image_size": 160} | overrides
        folder = real_data / "folders" / "trashnet-150"
        return foveola.train(folder, RECIPE, seed=seed, overrides=settings, out=tmp_path / str(seed), verbose=False)

    return run


def test_the_recipe_classifies_trashnet(train):
    assert mean(train(seed).evaluation.accuracy.value for seed in (11, 12, 13)) >= 0.915


def test_a_short_training_classifies_trashnet_and_its_exports_agree(train):
    run = train(11, epochs=4)
    assert run.evaluation.accuracy.value >= 0.87
    exported = foveola.open(export(run.path, verbose=False).path)
    assert isinstance(exported, OnnxModel)
    report = export(run.path, int8=True, verbose=False)
    assert report.gain.accuracy >= report.gain.accuracy_float32 - 0.01
    assert report.size_bytes < 6e6
    page = export(run.path, format="web", verbose=False)
    assert (page.path / "index.html").is_file()
