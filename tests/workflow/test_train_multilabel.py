"""Several labels an image, from a file of arrays to an export: trained, measured, predicted, opened again, refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

import foveola
from foveola.arrays import labels_of_lists
from foveola.errors import DataError, UserError
from foveola.exports.onnx import open as open_onnx
from foveola.images import Dataset, ImageSet
from foveola.tasks import sigmoid

NAMES = ("left", "middle", "right")


def test_a_training_is_measured_as_scikit_learn_measures_it(bars_run, bars_npz):
    test = foveola.load(bars_npz).test
    model = foveola.open(bars_run.path)
    probabilities = sigmoid(model.predict_logits(test.images))
    given = probabilities >= np.array(model.metadata.thresholds)
    run = bars_run
    evaluation = run.evaluation
    assert evaluation.task == "multilabel"
    assert evaluation.metrics["mean_average_precision"].value == pytest.approx(
        metrics.average_precision_score(test.labels, probabilities)
    )
    assert evaluation.metrics["micro_f1"].value == pytest.approx(metrics.f1_score(test.labels, given, average="micro"))
    assert evaluation.accuracy.value == pytest.approx(metrics.accuracy_score(test.labels, given))
    assert evaluation.accuracy.value > 0.8
    assert run.status.training_accuracy > 0.8
    assert [row.threshold for row in evaluation.labels] == list(model.metadata.thresholds)
    assert any(line.startswith("labels: left, middle, right; ") for line in run.status.data.summary)
    again = foveola.evaluate(bars_run.path, bars_npz, verbose=False)
    assert again.metrics == evaluation.metrics
    assert again.labels == evaluation.labels


def test_labels_above_their_thresholds_are_predicted(bars_run, tmp_path, foveola_command, make_bars):
    images = make_bars(20, 2)
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(images.images[number, :, :, 0]).save(paths[-1])
    model = foveola.open(bars_run.path)
    probabilities = sigmoid(model.predict_logits(images.images[:4]))
    for row, prediction in zip(probabilities, foveola.predict(bars_run.path, paths, verbose=False), strict=True):
        expected = {name for name, p, t in zip(NAMES, row, model.metadata.thresholds, strict=True) if p >= t}
        assert set(prediction.labels) == expected
        assert dict(prediction.top) == pytest.approx(dict(zip(NAMES, row, strict=True)))
    outcome = foveola_command("predict", bars_run.path, *paths, "--json", "--out", tmp_path / "found.csv")
    assert outcome.code == 0
    documents = json.loads(outcome.out)["predictions"]
    assert set(documents[0]["labels"]) <= set(NAMES)
    assert "; ".join(documents[1]["labels"]) in (tmp_path / "found.csv").read_text()
    assert foveola_command("predict", bars_run.path, *paths).code == 0


def test_the_tables_of_the_command_line_show_labels(bars_run, bars_npz, foveola_command):
    outcome = foveola_command("evaluate", bars_run.path, bars_npz)
    assert outcome.code == 0
    for text in ("mean average precision (mAP)", "subset accuracy", "threshold", "middle"):
        assert text in outcome.out


def test_an_export_gives_the_same(bars_run, bars_npz, tmp_path):
    from foveola.workflow.export import export

    report = export(bars_run.path, out=tmp_path / "bars.onnx", verbose=False)
    assert report.parity.largest_difference < 1e-4
    model = open_onnx(tmp_path / "bars.onnx")
    assert (model.metadata.task, model.metadata.thresholds) == (
        "multilabel", foveola.open(bars_run.path).metadata.thresholds,
    )  # fmt: skip
    measured = foveola.evaluate(tmp_path / "bars.onnx", bars_npz, verbose=False)
    for key, estimate in bars_run.evaluation.metrics.items():
        assert measured.metrics[key].value == pytest.approx(estimate.value, abs=1e-3)


def test_the_same_data_however_it_comes(bars_npz, tmp_path, make_bars):
    data = foveola.load(bars_npz)
    assert (data.task, data.class_names) == ("multilabel", NAMES)
    np.testing.assert_array_equal(data.train.labels, make_bars(160, 0).labels)
    for dtype in (bool, np.int64, np.float32):
        made = ImageSet(data.train.images, data.train.labels.astype(dtype), NAMES)
        assert made.fingerprint == data.train.fingerprint
    lists = [[NAMES[k] for k in np.flatnonzero(row)] for row in data.train.labels]
    for form in (lists, ["; ".join(names) for names in lists]):
        matrix, names = labels_of_lists(form)
        assert names == NAMES
        assert ImageSet(data.train.images, matrix, names).fingerprint == data.train.fingerprint
    foveola.pack(bars_npz, tmp_path / "packed", verbose=False)
    assert foveola.load(tmp_path / "packed").fingerprint == data.fingerprint
    assert foveola.load(tmp_path / "packed").train.labels.dtype == bool


def test_one_hot_labels_are_still_refused_and_parts_of_several_labels_are_not(make_bars):
    images = make_bars(20, 3)
    with pytest.raises(DataError, match="one-hot"):
        ImageSet(images.images, np.eye(3)[np.arange(20) % 3], NAMES)
    single = images.take(np.flatnonzero(images.labels.sum(axis=1) == 1))
    assert single.task == "multilabel"
    with pytest.raises(DataError, match="20×4"):
        ImageSet(images.images, images.labels, (*NAMES, "more"))
    with pytest.raises(DataError, match="'cow' are not among"):
        labels_of_lists(["left;cow"], NAMES)
    every = images.labels.copy()
    every[:, 1] = True
    with pytest.raises(DataError, match="every training image has the label 'middle'"):
        Dataset("bars", replace(images, labels=every)).check_trainable()


def test_what_is_for_one_class_an_image_is_refused(bars_run, bars_npz, toy_npz, toy_run, tiny, tmp_path):
    from foveola.workflow.audit import audit
    from foveola.workflow.tune import tune

    several = foveola.load(bars_npz)
    with pytest.raises(UserError, match="several labels each, and the recipe's reject"):
        foveola.train(several, tiny, out=tmp_path / "no", overrides={"reject": 0.01}, verbose=False)
    with pytest.raises(DataError, match="several labels"):
        foveola.compare(bars_run.path, bars_run.path, verbose=False)
    with pytest.raises(DataError, match="Labels are audited on images of one class each"):
        audit(several, out=tmp_path / "audit", verbose=False)
    with pytest.raises(DataError, match="Recipes are tuned on images of one class each"):
        tune(several, tiny, out=tmp_path / "tuning", verbose=False)
    with pytest.raises(DataError, match="have one class each, but the model gives any number of labels"):
        foveola.evaluate(bars_run.path, toy_npz, verbose=False)
    with pytest.raises(DataError, match="have any number of labels each, but the model gives one class"):
        foveola.evaluate(toy_run, bars_npz, verbose=False)
    fewer = ImageSet(several.test.images, several.test.labels[:, :2], NAMES[:2])
    with pytest.raises(DataError, match="does not say which images have the labels right"):
        foveola.evaluate(bars_run.path, Dataset("fewer", fewer), verbose=False)


def test_balanced_classes_weigh_the_images_that_have_a_rare_label(bars_npz, tiny, tmp_path):
    settings = {"class_weights": "balanced", "epochs": 1}
    run = foveola.train(bars_npz, tiny, out=tmp_path / "run", overrides=settings, report=False, verbose=False)
    assert run.evaluation.metrics["log_loss"].is_defined


def test_the_page_of_a_run_shows_labels(bars_run, bars_npz, tmp_path):
    page = foveola.report(bars_run.path, out=tmp_path / "page.html", verbose=False).read_text()
    for text in ("Mean average precision over 3 labels", "Metrics per label", "threshold", "subset accuracy"):
        assert text in page
    for text in ("<h3>Confusion matrix", "ROC curves", "Calibration and rejection", "Most confused pairs"):
        assert text not in page


def test_a_page_without_test_images_can_be_written(bars_npz, tiny, tmp_path):
    data = foveola.load(bars_npz)
    settings = {"epochs": 1, "test": 0.0}
    alone = Dataset("alone", data.train)
    run = foveola.train(alone, tiny, out=tmp_path / "run", overrides=settings, verbose=False)
    assert (run.path / "report.html").is_file()


def test_a_matrix_of_labels_and_notebooks(bars_run, make_bars):
    images = make_bars(20, 2)
    matrix = images.labels.astype(int)
    loaded = foveola.load(images.images, matrix, class_names=NAMES)
    assert loaded.train.fingerprint == ImageSet(images.images, images.labels, NAMES).fingerprint
    assert foveola.load(images.images, matrix).class_names == ("0", "1", "2")
    shown = bars_run._repr_html_()
    assert all(name in shown for name in NAMES)
    assert "Confusion matrix" not in shown
    with pytest.raises(UserError, match="has no auc_macro_ovr, but mean_average_precision, macro_f1"):
        _ = bars_run.auc
