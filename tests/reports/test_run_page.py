"""The report of a run: every section, for every kind of run."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torch import nn

import foveola
from foveola.errors import DataError, OutputError
from foveola.images import Dataset, ImageSet
from foveola.reports.pixels import map_sheet, thumbnail
from foveola.runs import Run

SECTIONS = ["data", "training", "quality", "failures", "sight", "map", "repeat"]
TITLES = ["Data", "Training", "Metrics", "Mistakes", "Explanations", "Map of the images", "Reproduce"]
CONVOLUTIONS = """
name = "small"
epochs = 1
validation = 0.2
precision = "float32"
layers = [
  { type = "Conv2D", filters = 3, padding = "same", activation = "relu" },
  { type = "MaxPool2D" },
  { type = "Flatten" },
  { type = "Dense", units = "classes" },
]
"""


def dataset(classes=3, each=10, channels=1, names=None, name="made"):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    images = random.integers(0, 256, (len(labels), 8, 8, channels), dtype=np.uint8)
    return Dataset(name, ImageSet(images, labels, names or tuple(f"class {label}" for label in range(classes))))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(CONVOLUTIONS)
    return path


@pytest.fixture
def page(tmp_path, small):
    """Train, report, and read what was written."""

    def make(data, recipe=small, network=None, **options):
        run = foveola.train(data, recipe, out=tmp_path / "run", network=network, verbose=False, **options)
        return foveola.report(run.path, data=data, network=network, verbose=False).read_text("utf-8")

    return make


def sections(text):
    return re.findall(r'<section id="(\w+)">', text)


def test_every_section_is_there(page, toy, tmp_path):
    text = page(toy, overrides={"epochs": 3})
    assert sections(text) == SECTIONS
    assert re.findall("<h2>(.+?)</h2>", text) == TITLES
    sizes = Run(tmp_path / "run").status.data
    assert f"{sizes.train} training, {sizes.validation} validation, {sizes.test} test (held out)" in text
    assert f"<code>{toy.fingerprint}</code>" in text
    assert text.count('aria-label="Loss over the training"') == 1
    for part in ("ROC", "Reliability", "Risk and coverage", "Least confident", "Filters of the first", "HiResCAM"):
        assert part in text, part
    assert len(re.findall(r'src="data:image/png;base64,[^"]{50,}"', text)) > 40
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    assert "--seed 0" in text


def test_the_values_of_the_page_are_in_evaluation_json(page, toy, tmp_path):
    run = Run(tmp_path / "run")
    text = page(toy)
    evaluation = run.evaluation
    assert foveola.evaluate(run.path, toy, verbose=False) == evaluation
    written = json.loads(run.evaluation_path.read_text("utf-8"))
    curves = {"roc", "reliability", "risk_coverage", "confused_pairs", "worst_mistakes", "least_certain"}
    assert curves <= written.keys()
    accuracy = evaluation.accuracy
    assert f"{100 * accuracy.value:.1f} % of {evaluation.n} test images are classified correctly" in text
    assert f"{accuracy.low:.4f} – {accuracy.high:.4f}" in text
    for row in evaluation.per_class:
        assert f'>{row.recall:.4f}</td><td class="number">{row.recall_low:.4f} – {row.recall_high:.4f}</td>' in text
    for mistake in evaluation.curves.worst_mistakes:
        assert mistake.true != mistake.given


def test_the_same_run_gives_the_same_page(toy_run, toy_npz, tmp_path):
    pages = [foveola.report(toy_run, data=toy_npz, out=tmp_path / name, verbose=False) for name in ("a", "b")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_run_without_test_images_says_so(page, toy, tmp_path):
    text = page(toy, overrides={"test": 0})
    assert "has not been measured: this run has no test images" in text
    assert sections(text) == [part for part in SECTIONS if part not in ("quality", "failures")]
    assert "of the validation split" in text
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_an_interrupted_run_says_so_and_is_not_evaluated(page, toy, tmp_path):
    page(toy)
    run = Run(tmp_path / "run")
    run.write_status(run.status.model_copy(update={"status": "interrupted"}))
    for name in ("evaluation.json", "history.csv"):
        (run.path / name).unlink()
    text = foveola.report(run.path, data=toy, verbose=False).read_text("utf-8")
    assert "its status is “interrupted”" in text
    assert "has not been measured: the run has no evaluation" in text
    assert not (run.path / "evaluation.json").exists()


def test_without_validation_and_without_convolution(page, toy, tiny):
    text = page(toy, tiny, overrides={"validation": 0})
    assert "Without validation images, no temperature was fitted" in text
    assert "no convolution" in text
    assert "Occlusion" in text


def test_a_custom_network(page, toy, tmp_path):
    class Mine(nn.Sequential):
        pass

    text = page(toy, network=Mine(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)))
    assert sections(text) == SECTIONS
    assert "<code>Mine</code>" in text
    assert "network=YourModule()" in text.replace("&#39;", "'")
    without_code = foveola.report(tmp_path / "run", data=toy, verbose=False).read_text("utf-8")
    assert sections(without_code) == SECTIONS
    assert "<code>Mine</code>" in without_code


def test_names_in_any_script_and_colour_images_from_a_folder(page, tmp_path):
    names = ("お", "кот", "<script>alert(1)</script>".replace("/", "∕"))
    made = dataset(channels=3, each=12)
    for number, (image, label) in enumerate(zip(made.train.images, made.train.labels, strict=True)):
        folder = tmp_path / "images" / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    text = page(tmp_path / "images")
    assert "お" in text
    assert "кот" in text
    assert text.count("<script>") == 1
    assert "in the colours that they respond to" in text


@pytest.mark.parametrize("classes", [2, 120])
def test_two_and_many_classes(page, classes):
    text = page(dataset(classes, each=4 if classes > 2 else 30))
    (matrix,) = re.findall(r'<table class="matrix".*?</table>', text, re.DOTALL)
    assert matrix.count("<td") == min(classes, 30) ** 2
    assert ("other 90 are in evaluation.json" in text) == (classes == 120)
    assert ("110 other classes" in text) == (classes == 120)


def test_a_perfect_model_has_no_mistakes_to_show(page, toy):
    text = page(toy, overrides={"epochs": 60})
    assert "All images are classified correctly" in text
    assert "Most confused pairs" not in text
    assert "Most confident mistakes" not in text
    assert "Mistakes: for the predicted" not in text


def test_imbalanced_classes_are_reported(page):
    made = dataset(2, each=60)
    kept = [*range(60), *range(60, 65)]
    assert "The classes are imbalanced: 3 training images of class 1" in page(
        replace(made, train=made.train.take(kept))
    )


def test_other_data_is_refused(toy_run, toy):
    other = replace(toy, train=toy.train.take(range(59)))
    with pytest.raises(DataError, match=r"fingerprint .* is not the data that .* --data"):
        foveola.report(toy_run, data=other, verbose=False)
    with pytest.raises(DataError, match="--data"):
        foveola.report(toy_run, data="digits", verbose=False)


def test_missing_data_is_requested_with_its_option(toy_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moved = foveola.Run(shutil.copytree(toy_run, tmp_path / "moved"))
    recorded = moved.status.data.model_copy(update={"path": None})
    moved.write_status(moved.status.model_copy(update={"data": recorded}))
    with pytest.raises(DataError, match=r"\(toy\) .* with --data"):
        foveola.report(moved.path, verbose=False)


def test_a_page_that_cannot_be_written(toy_run, toy_npz, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        foveola.report(toy_run, data=toy_npz, out=tmp_path / "no" / "page.html", verbose=False)


def test_the_command_prints_the_path_of_the_page(foveola_command, toy_run, toy_npz, tmp_path):
    target = tmp_path / "page.html"
    code, out, _ = foveola_command("report", toy_run, "--data", toy_npz, "--out", target, "--json")
    assert code == 0
    assert json.loads(out) == {"format": 1, "report": str(target), "size_bytes": target.stat().st_size}


def test_thumbnails_keep_their_shape():
    assert thumbnail(np.zeros((200, 100, 3), np.uint8)).shape == (64, 32, 3)
    small = np.zeros((28, 28, 1), np.uint8)
    assert thumbnail(small) is small


def test_a_sheet_shows_the_strongest_maps_on_one_scale():
    maps = np.zeros((24, 24, 5), np.float32)
    maps[..., 1], maps[..., 3], maps[..., 4] = 1, 4, 2
    shown = map_sheet(maps, count=3, across=2)
    assert shown.shape == (50, 50, 1)
    assert [shown[5, 5, 0], shown[5, 30, 0], shown[30, 5, 0]] == [64, 255, 128]
