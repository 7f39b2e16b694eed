"""The run directory: its files, when it may be written, and which damaged or older ones are read."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

import foveola
from foveola.documents import RunStatus
from foveola.errors import ModelError
from foveola.files import write_atomically
from foveola.recipe import Recipe, load_recipe
from foveola.runs import Run

FILES = {
    "run.json", "recipe.toml", "history.csv", "model.safetensors", "evaluation.json",
    "curves.png", "samples.png", "mistakes.png", "confusion.png", "report.html", "SHA256SUMS",
}  # fmt: skip


# What evaluation.json did not have before documents had a format number
NEWER_KEYS = {"format", "balanced_accuracy", "macro_f1"}


@pytest.fixture
def status(toy_run) -> RunStatus:
    return Run.open(toy_run).status


@pytest.fixture
def older_run(toy_run, tmp_path) -> Path:
    """A copy of a run without the keys that older versions did not write."""
    path = shutil.copytree(toy_run, tmp_path / "older", ignore=shutil.ignore_patterns("SHA256SUMS"))
    for name in ("run.json", "evaluation.json"):
        document = json.loads((path / name).read_text("utf-8"))
        for key in NEWER_KEYS:
            document.pop(key, None)
        for row in document.get("per_class", ()):
            del row["recall_low"], row["recall_high"]
        (path / name).write_text(json.dumps(document), encoding="utf-8")
    return path


def test_a_run_named_without_its_folder_is_found_in_runs(toy_run, tmp_path, monkeypatch):
    shutil.copytree(toy_run, tmp_path / "runs" / "toy")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    meant = re.escape(str(Path("runs", "toy")))
    with pytest.raises(ModelError, match=rf"^There is no run or model file toy\. Did you mean {meant}\?$"):
        foveola.open("toy")
    with pytest.raises(ModelError, match=rf"^There is no run toy\. Did you mean {meant}\?$"):
        Run.open("toy")
    with pytest.raises(ModelError, match=r"^There is no run toi\. Give the folder that `foveola train` wrote\.$"):
        Run.open("toi")
    with pytest.raises(ModelError, match=r"^data is not a run: it has no run\.json\."):
        Run.open("data")


def test_files(toy_run):
    assert {path.name for path in toy_run.iterdir()} == FILES
    for image in toy_run.glob("*.png"):
        assert image.read_bytes().startswith(b"\x89PNG")


def test_run_json(toy_run, toy, tiny):
    status = json.loads((toy_run / "run.json").read_text("utf-8"))
    assert status["format"] == 1
    assert {"status", "recipe", "data", "model", "seconds", "epochs", "seed", "versions"} <= status.keys()
    assert status["status"] == "done"
    assert Recipe.model_validate(status["recipe"]) == load_recipe(tiny, {"resize": "stretch"})
    data = status["data"]
    assert (data["name"], data["classes"]) == ("toy", ["left", "middle", "right"])
    assert data["train"] + data["validation"] + data["test"] == len(toy.train)
    assert data["fingerprint"] == toy.fingerprint
    assert status["model"]["parameters"] == 8 * 8 * 3 + 3
    assert 0 < status["seconds"]["training"] <= status["seconds"]["total"]
    assert (status["epochs"], status["seed"]) == (2, 0)
    assert status["steps"] == 2 * 3  # 39 images in batches of 16
    assert {"python", "foveola", "numpy", "torch"} <= status["versions"].keys()


def test_evaluation_json(toy_run):
    evaluation = json.loads((toy_run / "evaluation.json").read_text("utf-8"))
    assert (evaluation["split"], evaluation["n"], evaluation["held_out"]) == ("test", 12, True)
    assert evaluation["format"] == 1
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro_ovr", "log_loss", "brier", "ece"):
        assert evaluation[metric]["low"] <= evaluation[metric]["value"] <= evaluation[metric]["high"]
    assert [row.keys() for row in evaluation["per_class"]] == [
        {"name", "precision", "recall", "recall_low", "recall_high", "f1", "support"}
    ] * 3  # fmt: skip
    confusion = evaluation["confusion"]
    assert [sum(row) for row in confusion] == [row["support"] for row in evaluation["per_class"]] == [4, 4, 4]
    assert evaluation["accuracy"]["value"] == sum(confusion[k][k] for k in range(3)) / 12


def test_history_csv(toy_run):
    lines = (toy_run / "history.csv").read_text().splitlines()
    assert lines[0].split(",")[:6] == ["epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy"]
    history = Run.open(toy_run).history
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 3), (2, 6)]
    assert history[1]["seconds"] >= history[0]["seconds"] >= 0


def test_model_file_describes_itself(toy_run, toy):
    with safe_open(toy_run / "model.safetensors", framework="numpy") as file:
        metadata = json.loads(file.metadata()["foveola"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert metadata["class_names"] == ["left", "middle", "right"]
    assert metadata["image_shape"] == [8, 8, 1]
    assert metadata["data"]["fingerprint"] == toy.fingerprint
    assert metadata["mean"] != [0.0]
    assert metadata["temperature"] > 0
    assert sorted((name, array.shape) for name, array in weights.items()) == [
        ("dense_1.bias", (3,)),
        ("dense_1.weight", (3, 64)),
    ]


def test_recipe_is_read_back(toy_run, tiny):
    assert Run.open(toy_run).recipe == load_recipe(tiny, {"resize": "stretch"})


@pytest.mark.parametrize("content", ["", "{", "[1]", "\ud800".encode("utf-8", "surrogatepass")])
def test_damaged_run_json(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=r"run\.json"):
        Run.open(tmp_path)


def test_unfinished_run_has_no_evaluation(tmp_path, status):
    run = Run(tmp_path)
    run.write_status(status)
    with pytest.raises(ModelError, match=r"evaluation\.json cannot be read"):
        _ = run.evaluation


def test_a_training_that_is_not_finished_is_no_run(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ModelError, match=r"not finished.*foveola train --resume"):
        Run.open(tmp_path)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "run.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_from_before_format_numbers_opens_reports_and_compares(older_run, toy_run, toy):
    older, run = Run.open(older_run), Run.open(toy_run)
    assert older.status == run.status
    assert older.evaluation.accuracy == run.evaluation.accuracy
    assert older.evaluation.metrics.keys() == run.evaluation.metrics.keys() - NEWER_KEYS
    assert older.evaluation.per_class == run.evaluation.per_class  # their recall and support give the intervals
    page = foveola.report(older_run, data=toy, verbose=False)
    assert " of 12 test images are classified correctly" in page.read_text("utf-8")
    comparison = foveola.compare(older_run, toy_run, data=toy, verbose=False)
    assert comparison.pairs[0].disagreements == 0
    assert all(math.isfinite(estimate.value) for estimate in comparison.pairs[0].differences.values())


@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_a_run_of_a_newer_format_is_refused(older_run, toy, name):
    document = json.loads((older_run / name).read_text("utf-8"))
    (older_run / name).write_text(json.dumps(document | {"format": 2}))
    with pytest.raises(ModelError, match=rf"{name} has format 2.* up to 1\. Update Foveola"):
        foveola.report(older_run, data=toy, verbose=False)


def test_public_run_is_this_one():
    assert foveola.Run is Run


METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_f1": "macro_f1",
    "auc": "auc_macro_ovr",
    "log_loss": "log_loss",
    "brier": "brier",
    "ece": "ece",
}


@pytest.mark.parametrize(("name", "key"), METRICS.items())
def test_a_run_has_its_metrics(toy_run, name, key):
    run = Run.open(toy_run)
    assert getattr(run, name) == run.evaluation.metrics[key]


def test_every_metric_is_an_attribute_of_a_run(toy_run):
    assert sorted(METRICS.values()) == sorted(Run.open(toy_run).evaluation.metrics)


def test_a_run_without_metrics_says_why(toy_run, older_run, tmp_path):
    run = Run(shutil.copytree(toy_run, tmp_path / "unmeasured"))
    run.evaluation_path.unlink()
    with pytest.raises(ModelError, match=r"trained without test images.*foveola.evaluate\(run, data\)"):
        _ = run.accuracy
    with pytest.raises(ModelError, match="before there was the metric macro_f1"):
        _ = Run.open(older_run).macro_f1
    status = run.status.model_copy(update={"status": "diverged"})
    run.write_status(status)
    with pytest.raises(ModelError, match="its status is diverged"):
        _ = Run.open(run.path).log_loss


def test_a_run_has_its_model_and_is_a_path(toy_run, toy):
    run = Run.open(toy_run)
    assert (os.fspath(run), Path(run)) == (str(toy_run), toy_run)
    assert run.model is run.model
    logits = foveola.open(toy_run).predict_logits(toy.train.images)
    assert (run.model.predict_logits(toy.train.images) == logits).all()


def test_a_model_is_not_a_run(toy_run):
    model = Run.open(toy_run).model
    for function in (foveola.export, foveola.report, foveola.resume):
        with pytest.raises(ModelError, match=r"whole run is needed, .* type Classifier"):
            function(model, verbose=False)
    with pytest.raises(ModelError, match=r"whole run is needed"):
        foveola.compare(model, model)


def test_what_is_not_a_path_is_refused_by_its_type(toy_run, toy):
    model = Run.open(toy_run).model
    for call in (
        lambda: foveola.open(None),
        lambda: foveola.open(model),
        lambda: foveola.serve(model, port=0, background=True),
        lambda: foveola.train(toy, "mlp", init=model),
        lambda: foveola.train(toy, "mlp", teacher=model),
        lambda: foveola.train(toy, "mlp", out=3),
    ):
        with pytest.raises(foveola.UserError, match=r"is of the type (NoneType|Classifier|int)\. Give the path"):
            call()
    with pytest.raises(foveola.UserError, match="named by paths here"):
        foveola.convolve(toy.train.images[0], out="page.html")


def test_a_run_is_taken_wherever_its_path_is(toy_run, toy, toy_npz, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.open(shutil.copytree(toy_run, tmp_path / "run"))
    quiet = {"verbose": False}
    (image,) = [tmp_path / "image.png"]
    Image.fromarray(toy.train.images[0, :, :, 0]).save(image)
    assert foveola.evaluate(run, toy_npz, **quiet).accuracy == run.accuracy
    assert foveola.predict(run, [image], **quiet)[0].class_name == run.model.predict(image)[0]
    assert foveola.summary(run).parameters == run.status.model.parameters
    assert foveola.export(run, **quiet).path == run.path / "exports" / "model.onnx"
    assert foveola.report(run, **quiet) == run.path / "report.html"
    assert foveola.resume(run, **quiet) == run
    explained = foveola.explain(run, [image], out=tmp_path / "explained", **quiet)
    assert Path(explained["page"]).is_file()
    small = {"out": tmp_path / "second", "report": False, "overrides": {"epochs": 1}}
    second = foveola.train(toy_npz, tiny, init=run, **small, **quiet)
    assert second.status.init == str(run.path)
    assert foveola.compare(run, second, **quiet).n == run.evaluation.n
