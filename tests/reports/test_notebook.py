"""What notebooks show: one line in a terminal; small HTML, escaped and without scripts, in a notebook."""

import re
import shutil
from html.parser import HTMLParser
from importlib import util

import numpy as np
import pytest

import foveola
from foveola.documents import (
    Audit,
    AuditedData,
    AuditSettings,
    ComparedPair,
    ComparedRun,
    Comparison,
    DataSummary,
    LabelSuspect,
    Significance,
)
from foveola.errors import UserError
from foveola.evaluation.comparison import McNemar
from foveola.images import Dataset, ImageSet
from foveola.predictions import Estimate, Predictions
from foveola.reports import pixels
from foveola.reports.html import image_uri

HOSTILE = "<script>alert('x')</script>&\"\x1b[31m"
ESTIMATE = Estimate(0.9, 0.85, 0.94, 200, "Wilson")
MAX_BYTES = 300_000


class Tags(HTMLParser):
    """Tags that are opened and closed, and what was found on the way."""

    VOID = ("img", "br", "path", "use", "rect", "meta", "line", "circle")

    def __init__(self, html):
        super().__init__()
        self.open, self.seen, self.sources, self.text = [], set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def checked(shown):
    """The HTML of an object, after the checks that hold for all of it."""
    html = shown._repr_html_()
    assert len(html) < MAX_BYTES
    tags = Tags(html)
    assert not tags.open
    assert "script" not in tags.seen
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in tags.sources)
    assert "\x1b" not in html
    assert "\n" not in repr(shown)
    assert str(shown)
    return tags


@pytest.fixture(scope="module")
def hostile(toy):
    """The toy data with names that would be markup, and control characters."""
    names = (HOSTILE, "middle", "right")
    return Dataset(HOSTILE, ImageSet(toy.train.images, toy.train.labels, names), notes=(HOSTILE,))


@pytest.fixture(scope="module")
def hostile_run(hostile, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "<b>run"
    return foveola.train(hostile, tiny, out=out, report=False, verbose=False, overrides={"name": "<i>tiny</i>"})


def compared(name):
    return ComparedRun(
        path=f"runs/{name}", name=name, recipe="tiny", accuracy=ESTIMATE, accuracy_mean=None,
        accuracy_standard_deviation=None, parameters=1000, multiply_adds=2000, seconds_training=1.0, trainings=[],
        latency_ms=0.5, images_per_second=1000.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def comparison():
    pair = ComparedPair(
        first="a", second=HOSTILE, accuracy_difference=ESTIMATE, mcnemar=McNemar(1, 2, 3, 4, 0.5),
        test=Significance(name="McNemar's exact test", p=0.5, p_corrected=0.5), real=False,
        differences={"ece": Estimate(float("nan"), float("nan"), float("nan"), 0, "not defined")}, disagreements=0,
        disagreeing_images=[], verdict=f"no significant difference (a leads {HOSTILE} by 1.0 point)",
    )  # fmt: skip
    return Comparison(
        data=DataSummary(name="toy", fingerprint="0", classes=["x", "y"]), split="test", n=200, seeds=1, scope="models",
        measured_on="cpu", runs=[compared("a"), compared(HOSTILE)], pairs=[pair], scaling=[],
    )  # fmt: skip


def audit_of(certainty):
    suspects = [
        LabelSuspect(
            split="train", index=number, path=f"{HOSTILE}/{number}.png", given=HOSTILE, suggested="b", score=0.1
        )
        for number in range(30)
    ]
    return Audit(
        data=AuditedData(name=HOSTILE, fingerprint="0", splits={"train": 60, "test": 40}),
        settings=AuditSettings(recipe="fast", epochs=5, minimum_steps=1, folds=3, rounds=1, seed=0),
        cross_fitted_accuracy=ESTIMATE, label_certainty=certainty, likely_label_errors=12, label_suspects=suspects,
        duplicates=[], duplicate_groups=[], oddities=[], class_balance={}, retrained=None, files=["audits/a.html"],
        seconds=1.0,
    )  # fmt: skip


def test_a_run(toy_run):
    run = foveola.Run.open(toy_run)
    text = checked(run).text
    assert repr(run) == f"Run({str(toy_run)!r}: toy, tiny, accuracy {run.accuracy})"
    assert f"{run.accuracy.value:.4f}" in text and f"{run.accuracy.low:.4f} – {run.accuracy.high:.4f}" in text
    assert "Confusion matrix" in text and "Loss" in text and "The first mistakes" in text
    for row in run.evaluation.per_class:
        assert row.name in text


def test_names_are_escaped(hostile_run, hostile, comparison):
    shown = [hostile_run, hostile_run.evaluation, hostile, hostile.train, comparison, audit_of("likely errors")]
    for one in shown:
        assert "<script>alert('x')" in checked(one).text
        assert "\x1b" not in repr(one)


def test_a_run_that_is_gone_or_damaged_is_shown_as_its_path(toy_run, tmp_path):
    run = foveola.Run(shutil.copytree(toy_run, tmp_path / "copy"))
    (run.path / "run.json").write_text("{")
    assert (run._repr_html_(), repr(run)) == (None, f"Run({str(run.path)!r})")
    shutil.rmtree(run.path)
    assert (run._repr_html_(), repr(run)) == (None, f"Run({str(run.path)!r})")


def test_showing_a_run_keeps_nothing_of_it(toy_run):
    """A run is read once it is used: while a training writes it, it must not be shown for good as it is now."""
    run = foveola.Run(toy_run)
    repr(run)
    assert "status" not in vars(run) and "evaluation" not in vars(run)


def test_a_run_without_test_images(hostile, tiny, tmp_path):
    overrides = {"test": 0.0}
    run = foveola.train(hostile, tiny, out=tmp_path / "run", overrides=overrides, report=False, verbose=False)
    assert "Not measured" in checked(run).text
    assert repr(run).endswith(", tiny)")


def test_data(toy):
    text = checked(toy).text
    assert repr(toy) == "Dataset('toy': 60 training images of 8×8×1, 3 classes)"
    assert repr(toy.train) == "ImageSet(60 images of 8×8×1, 3 classes)"
    assert "60 training images of 8×8×1, 3 classes" in text
    assert len(checked(toy.train).sources) == 3
    many = ImageSet(np.zeros((300, 8, 8, 1), np.uint8), np.arange(300), tuple(map(str, range(300))))
    found = checked(many)
    assert "The first 20 of 300 classes" in found.text and len(found.sources) == 20


def test_data_with_several_labels_an_image():
    """The images of labels are those that have them, and what is counted are labels."""
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full((1, 8, 8, 1), 60, np.uint8)
    several = ImageSet(images, np.array([[0, 1], [1, 1], [0, 0], [1, 0]], bool), ("cat", "dog"))
    for shown in (several, Dataset("pets", several)):
        html = shown._repr_html_()
        assert "images of 8×8×1, 2 labels" in html
        assert '<th class="text">label</th>' in html
        first_images = [html.index(image_uri(pixels.thumbnail(images[number]))) for number in (1, 0)]
        assert first_images == sorted(first_images)


def test_an_evaluation_of_several_labels_says_which_accuracy(toy_run):
    evaluation = foveola.Run.open(toy_run).evaluation
    accuracy = {"accuracy": evaluation.accuracy}
    evaluation = evaluation.model_copy(update={"task": "multilabel", "metrics": accuracy})
    assert f"Subset accuracy {evaluation.accuracy}" in evaluation._repr_html_()


def test_estimates():
    assert repr(ESTIMATE) == "Estimate(0.9000, 95 % CI 0.8500–0.9400, n=200, Wilson)"
    assert "0.8500 – 0.9400, of 200 images (Wilson)" in checked(ESTIMATE).text
    undefined = Estimate(float("nan"), float("nan"), float("nan"), 0, "not <defined>")
    assert "Not defined: not <defined>" in checked(undefined).text


def test_documents(toy_run, comparison):
    evaluation = foveola.Run.open(toy_run).evaluation
    assert repr(evaluation) == str(evaluation) == f"Evaluation(test, 12 images, accuracy {evaluation.accuracy})"
    assert "Balanced accuracy" in checked(evaluation).text or "balanced accuracy" in checked(evaluation).text
    assert repr(comparison).startswith("Comparison(2 runs on 200 test images of toy: no significant difference")
    audit = audit_of("likely errors")
    assert "100 images: 12 likely label errors, 0 groups of duplicates, 0 outliers" in repr(audit)
    text = checked(audit).text
    assert "The first 20 of 30 label suspects" in text and "audits/a.html" in text


def test_suspects_that_say_nothing_are_not_listed():
    audit = audit_of("no better than guessing")
    assert "30 label suspects (no better than guessing)" in repr(audit)
    assert "suggested class" not in checked(audit).text


def test_what_is_wrong_with_the_input_is_one_message(toy_run):
    with pytest.raises(UserError) as caught:
        foveola.open(toy_run / "nothing")
    assert caught.value._render_traceback_() == [f"ModelError: {caught.value}"]


def test_layers():
    summary = foveola.summary("resnet20", (32, 32, 3))
    text = checked(summary).text
    assert "32×32×3" in text and f"{summary.parameters:,} parameters" in text
    assert "conv2d_1" in text


def test_the_catalog():
    catalog = foveola.catalog()
    assert "mnist" in checked(catalog).text
    assert repr(catalog).startswith("Catalog(")


def test_models_and_predictions(toy_run, toy):
    model = foveola.open(toy_run)
    assert repr(model) == "Classifier(tiny: images of 8×8×1 to 3 classes)"
    predictions = Predictions(model.predict_logits(toy.train.images), toy.train.labels, toy.class_names, held_out=False)
    assert repr(predictions) == "Predictions(60 images, 3 classes, not held out)"


def test_without_jinja2_notebooks_show_the_line(monkeypatch):
    monkeypatch.setattr("foveola.display.find_spec", lambda name: None)
    assert ESTIMATE._repr_html_() is None


def test_without_matplotlib_a_run_has_no_curves(toy_run, monkeypatch):
    real = util.find_spec
    monkeypatch.setattr("foveola.reports.notebook.find_spec", lambda name: None if name == "matplotlib" else real(name))
    assert not re.search("<svg", foveola.Run.open(toy_run)._repr_html_())
