"""Photographs, from published weights to exports. Slow: make test-slow; figures: docs/photographs.md."""

import shutil
from statistics import mean

import numpy as np
import pytest

import foveola
from foveola.exports.onnx import OnnxModel
from foveola.workflow.export import export

pytestmark = pytest.mark.slow
RECIPE = "efficientnet-lite0"


@pytest.fixture
def trashnet(real_data, monkeypatch):
    """The folder of trashnet-150, with the published weights at hand."""
    if not (real_data / "backbones" / RECIPE / "model.safetensors").is_file():
        pytest.skip("no pretrained weights in the folder of the real data")
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))
    return real_data / "folders" / "trashnet-150"


@pytest.fixture
def train(trashnet, tmp_path):
    """Function that trains on trashnet-150 from the published weights."""

    def run(seed, **overrides):
        settings = {"image_size": 160} | overrides
        return foveola.train(trashnet, RECIPE, seed=seed, overrides=settings, out=tmp_path / str(seed), verbose=False)

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


def test_wrong_labels_of_photographs_are_suspects(trashnet, tmp_path):
    """10 % of 60 photographs in each of three classes lie in another class; --recipe auto ranks most of them first."""
    random = np.random.default_rng(0)
    wrong = set()
    classes = ("cardboard", "glass", "paper")
    for number, name in enumerate(classes):
        chosen = random.choice(sorted((trashnet / name).glob("*.jpg")), 60, replace=False)
        for place, path in enumerate(chosen):
            other = classes[(number + 1 + place % 2) % 3] if place < 6 else name
            (tmp_path / "data" / other).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "data" / other / path.name)
            wrong |= {path.name} if place < 6 else set()
    found = foveola.audit(tmp_path / "data", recipe="auto", out=tmp_path / "audit", verbose=False)
    assert (found.settings.recipe, found.settings.epochs) == (RECIPE, 0)
    first = [suspect.path.rpartition("/")[2] for suspect in found.label_suspects[:20]]
    assert len(wrong) == 18
    assert len(wrong.intersection(first)) >= 14
    assert found.cross_fitted_accuracy.value > 0.7
