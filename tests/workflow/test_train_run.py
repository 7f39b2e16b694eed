"""Training: from data to a run directory."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets.splits import divide, select_split
from foveola.errors import DataError, ModelError, NonFiniteLoss, UserError
from foveola.evaluation.rejection import choose_threshold, evaluate_rejection
from foveola.images import Dataset
from foveola.inputs.checks import compute_statistics
from foveola.models.model_file import read_metadata
from foveola.runs import Run
from foveola.training import loop
from foveola.training.callbacks import Callback


@pytest.fixture
def train(toy, tiny, tmp_path):
    """Train on the toy data, quietly, into a new folder."""

    def run(data=toy, recipe=tiny, **options):
        return foveola.train(data, recipe, **{"out": tmp_path / "run", "report": False, "verbose": False, **options})

    return run


def test_training_fits_the_data(train):
    run = train(overrides={"epochs": 60})
    assert run.evaluation.accuracy.value == 1.0
    assert run.status.status == "done"


def test_the_report_is_written_at_the_end(train):
    run = train(report=True)
    assert " of 12 test images are classified correctly" in (run.path / "report.html").read_text("utf-8")


def test_a_failing_report_does_not_fail_the_training(train, monkeypatch, capsys):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("foveola.workflow.report.write_page", fail)
    assert train(report=True, verbose=True).status.status == "done"
    assert "the report could not be written: out of memory" in capsys.readouterr().err


def test_every_format_of_the_same_data_gives_the_same_model(train, toy, toy_npz, tmp_path):
    for number, (image, label) in enumerate(zip(toy.train.images, toy.train.labels, strict=True)):
        folder = tmp_path / "toy" / toy.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(folder / f"{number:03}.png")
    runs = [train(data, out=tmp_path / str(i)) for i, data in enumerate((toy, toy_npz, tmp_path / "toy"))]
    models = [run.model_path.read_bytes() for run in runs]
    assert models[0] == models[1] == models[2]


def test_idx_files(train, toy, tmp_path):
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, images in (("train", toy.train), ("t10k", toy.train.take(range(0, 60, 3)))):
        shape = b"".join(side.to_bytes(4, "big") for side in (len(images), 8, 8))
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + images.images.tobytes())
        labels = images.labels.astype(np.uint8).tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + shape[:4] + labels)
    run = train(folder)
    assert run.evaluation.n == run.status.data.test == 20
    assert run.status.data.classes == ["0", "1", "2"]


def test_fit_never_receives_a_test_image(train, toy, monkeypatch):
    received = []
    fit = loop.fit

    def spy(classifier, training, validation, recipe, **options):
        received.extend((training, validation))
        everything = [value for value in options.values() if isinstance(value, foveola.ImageSet | Dataset)]
        assert everything == []
        return fit(classifier, training, validation, recipe, **options)

    monkeypatch.setattr(loop, "fit", spy)
    run = train()
    test = divide(toy, validation=0.2, test=0.2, seed=0)[0].test
    assert len(test) == run.evaluation.n
    held_out = {image.tobytes() for image in test.images}
    trained_on = {image.tobytes() for images in received for image in images.images}
    assert len(held_out) + len(trained_on) == len(toy.train)
    assert held_out.isdisjoint(trained_on)


def test_the_test_split_is_predicted_once_after_training(train, toy, monkeypatch):
    test = {image.tobytes() for image in divide(toy, validation=0.2, test=0.2, seed=0)[0].test.images}
    reads_test = []
    predict_logits = foveola.Classifier.predict_logits

    def spy(self, images):
        reads_test.append(bool(test & {image.tobytes() for image in images}))
        return predict_logits(self, images)

    monkeypatch.setattr(foveola.Classifier, "predict_logits", spy)
    # Without the report, which explains test images after everything has been chosen and measured
    train()
    assert reads_test[-1]
    assert sum(reads_test) == 1


def test_runs_with_different_seeds_are_measured_on_the_same_images(toy):
    one, two = (divide(toy, validation=0.2, test=0.2, seed=seed)[0] for seed in (0, 1))
    assert one.test.fingerprint == two.test.fingerprint
    assert one.validation.fingerprint != two.validation.fingerprint


def test_splits_of_the_data_are_used(train, toy):
    rest, test = toy.train.split(0.25, 3)
    rest, validation = rest.split(0.2, 3)
    data = Dataset("toy", rest, validation, test)
    status = train(data).status
    assert [status.data.train, status.data.validation, status.data.test] == [len(rest), len(validation), len(test)]


@pytest.mark.parametrize("fractions", [{"validation": 0}, {"test": 0}, {"validation": 0, "test": 0}])
def test_without_validation_or_test_images(train, fractions):
    run = train(overrides=fractions)
    assert run.status.status == "done"
    assert (run.path / "evaluation.json").exists() == ("test" not in fractions)
    assert all(getattr(run.status.data, split) == 0 for split in fractions)


def test_a_fresh_process_gives_the_same_logits_bit_for_bit(train, toy, tmp_path):
    kept = []

    class Keep(Callback):
        def on_fit_end(self, fit):
            kept.append(fit.classifier)

    train(callbacks=[Keep()])
    before = kept.pop().predict_logits(toy.train.images)
    np.save(tmp_path / "images.npy", toy.train.images)
    code = (
        "import sys, numpy, foveola; path = sys.argv[1]; model = foveola.open(path + '/run');"
        "numpy.save(path + '/logits.npy', model.predict_logits(numpy.load(path + '/images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=120)
    after = np.load(tmp_path / "logits.npy")
    assert after.dtype == np.float32
    assert before.tobytes() == after.tobytes()


def test_init_copies_weights_and_freeze_keeps_them(train, tmp_path):
    from safetensors.numpy import load_file

    layers = [{"type": "Flatten"}, {"type": "Dense", "units": 5}, {"type": "Dense", "units": "classes"}]
    first = train(out=tmp_path / "first", overrides={"layers": layers})
    frozen = train(
        out=tmp_path / "frozen", overrides={"layers": layers}, init=first.path, freeze=True, seed=1
    )  # fmt: skip
    free = train(out=tmp_path / "free", overrides={"layers": layers}, init=first.model_path, seed=1)
    old, kept, moved = (load_file(run.model_path) for run in (first, frozen, free))
    np.testing.assert_array_equal(old["dense_1.weight"], kept["dense_1.weight"])
    assert np.any(old["dense_1.weight"] != moved["dense_1.weight"])
    assert np.any(old["dense_2.weight"] != kept["dense_2.weight"])


def test_a_refused_init_leaves_no_folder(train, tmp_path):
    with pytest.raises(ModelError, match="There is no run or model file"):
        train(init=tmp_path / "none")
    with pytest.raises(UserError, match="--freeze"):
        train(freeze=True)
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_the_run(train):
    first = train()
    (first.path / "note.txt").write_text("mine")
    second = train(force=True, overrides={"epochs": 3})
    assert second.status.epochs == 3
    assert (first.path / "note.txt").read_text() == "mine"


def test_refused_data_keeps_the_old_run_even_with_force(train, toy):
    run = train()
    before = run.model_path.read_bytes()
    labels = np.array([0] * 20 + [1])
    single = Dataset("single", foveola.ImageSet(toy.train.images[:21], labels, ("left", "middle")))
    with pytest.raises(DataError, match="single image"):
        train(single, force=True)
    assert run.model_path.read_bytes() == before


def test_a_network_of_the_users_own(train, toy):
    import torch
    from torch import nn

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))

    run = train(network=network())
    assert run.status.model.parameters == 4 * 9 + 4 + 144 * 3 + 3
    model = foveola.open(run.path, network=network())
    assert foveola.evaluate(model, toy, verbose=False) == run.evaluation
    without_code = foveola.evaluate(foveola.open(run.path), toy, verbose=False)
    assert without_code.confusion == run.evaluation.confusion


def test_callbacks_of_the_users_own_stop_and_add_metrics(train):
    class StopAt(Callback):
        def __init__(self, epoch):
            self.epoch = epoch

        def on_epoch_end(self, fit):
            fit.metrics["twice"] = 2.0 * fit.epoch
            fit.stop = fit.epoch == self.epoch

    run = train(callbacks=[StopAt(3)], overrides={"epochs": 50})
    assert run.status.epochs == 3
    assert [row["twice"] for row in run.history] == [2.0, 4.0, 6.0]


def test_early_stopping_keeps_the_best_weights(train, toy):
    class Worsen(Callback):
        """Negate the weights in the eleventh epoch, and keep them so."""

        def on_epoch_start(self, fit):
            weight = fit.classifier.network[-1].weight.data
            if fit.epoch == 11:
                self.negated = -weight
            if fit.epoch >= 11:
                weight.copy_(self.negated)

    settings = {"epochs": 50, "keep": "best", "monitor": "val_loss", "patience": 2, "epoch_auc": True}
    run = train(callbacks=[Worsen()], overrides=settings)
    status, history = run.status, run.history
    best = min(history, key=lambda row: row["val_loss"])["epoch"]
    assert status.chosen_epoch == best <= 10
    assert status.epochs == best + 2
    assert all(0 <= row["val_auc"] <= 1 for row in history)
    evaluation = foveola.evaluate(run.path, toy, split="validation", verbose=False)
    assert evaluation.accuracy.value == pytest.approx(history[int(best) - 1]["val_accuracy"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (NonFiniteLoss("simulated"), "diverged"),
        (OSError(28, "No space left on device"), "failed"),
        (ValueError("a bug of the user's"), "failed"),
    ],
)
def test_however_training_ends_the_run_is_readable(train, toy, tmp_path, error, status):
    class Fail(Callback):
        def on_epoch_end(self, fit):
            if fit.epoch == 2:
                raise error

    with pytest.raises(type(error)):
        train(callbacks=[Fail()], overrides={"epochs": 5})
    run = Run.open(tmp_path / "run")
    assert run.status.status == status
    assert (run.status.epochs, run.status.steps) == (1, 3)
    assert foveola.open(run.model_path).predict_logits(toy.train.images).shape == (60, 3)
    if status == "interrupted":
        assert foveola.open(run.path).class_names == toy.class_names
    else:
        with pytest.raises(ModelError, match=f"has {status}.*not opened as a model"):
            foveola.open(run.path)


def test_a_diverged_training_keeps_finite_weights(train, tmp_path):
    from safetensors.numpy import load_file

    with pytest.raises(NonFiniteLoss, match=r"epoch \d+, step \d+"):
        train(overrides={"optimizer": "sgd", "learning_rate": 1e38})
    run = Run.open(tmp_path / "run")
    assert run.status.status == "diverged"
    assert all(np.isfinite(array).all() for array in load_file(run.model_path).values())


def test_reported_lines(train, capsys, tmp_path):
    train(verbose=True, overrides={"epoch_auc": True})
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == ("toy: 39 training, 9 validation, 12 test (held out); 3 classes")
    assert lines[1:6] == [
        "classes: left, middle, right",
        "images: 8×8 pixels, grey",
        "splits: test and validation images drawn at random, every class in proportion",
        "copies: none, not even near ones, among 60 images",
        f"tiny: 195 parameters; writing to {tmp_path / 'run'}",
    ]
    assert [line.split(" · ")[0] for line in lines[6:]] == ["epoch 1/2", "epoch 2/2"]
    assert all("AUC 0." in line or "AUC 1." in line for line in lines[6:])


def test_data_of_another_name_goes_into_another_folder(toy, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bars-tiny").mkdir(parents=True)
    run = foveola.train(replace(toy, name="bars"), tiny, verbose=False)
    assert run.path == Path("runs/bars-tiny-2")


def test_without_reject_no_prediction_is_uncertain(train):
    run = train()
    assert run.status.reject is None
    assert run.evaluation.rejection is None
    assert read_metadata(run.model_path).reject is None


@pytest.mark.parametrize("settings", [{"reject_mode": "average"}, {"reject": 0.5}, {"reject": 0.01}])
def test_the_threshold_is_chosen_on_the_validation_images(train, toy, settings):
    run = train(overrides={"reject": 0.1, "epochs": 3} | settings)
    model, splits = foveola.open(run.path), divide(toy, validation=0.2, test=0.2, seed=0)[0]
    held_out = foveola.Predictions(
        model.predict_logits(splits.validation.images), splits.validation.labels, toy.class_names, held_out=True
    )
    confidence = None if "reject_mode" in settings else 0.9
    expected = choose_threshold(held_out, settings.get("reject", 0.1), confidence)
    found = run.status.reject
    assert found == expected.model_copy(update={"threshold": found.threshold})
    assert found.threshold == (None if expected.threshold is None else pytest.approx(expected.threshold, rel=1e-6))
    assert read_metadata(run.model_path).reject == found
    test = foveola.Predictions(model.predict_logits(splits.test.images), splits.test.labels, toy.class_names, True)
    assert run.evaluation.rejection == evaluate_rejection(test, found)


def test_every_prediction_is_uncertain_if_no_threshold_keeps_the_error(train, toy, tmp_path):
    rest, validation = toy.train.split(0.3, 0)
    wrong = replace(validation, labels=(validation.labels + 1) % 3)
    run = train(Dataset("toy", rest, validation=wrong), overrides={"reject": 0.0, "epochs": 30})
    assert (run.status.reject.target_error, run.status.reject.threshold) == (0.0, None)
    assert run.status.reject.shortfall.images == len(validation)
    assert run.evaluation.rejection.coverage.value == 0.0
    Image.fromarray(toy.train.images[0, :, :, 0]).save(tmp_path / "a.png")
    (prediction,) = foveola.predict(run.path, [tmp_path / "a.png"])
    assert prediction.uncertain


def test_the_model_holds_statistics_of_its_training_images(train, toy):
    training = divide(toy, validation=0.2, test=0.2, seed=0)[0].train
    assert read_metadata(train().model_path).statistics == compute_statistics(training.images)


def test_copies_stay_on_one_side_and_are_said(train, toy, capsys):
    """Random labels and every image three times: what a copy would tell is not measured as accuracy."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    copies = foveola.ImageSet(np.tile(images, (3, 1, 1, 1)), np.tile(random.integers(2, size=100), 3), ("a", "b"))
    run = train(Dataset("copies", copies), overrides={"epochs": 60}, verbose=True)
    assert (
        "copies: 300 images, 100 of them different: copies and near copies stay on one side" in capsys.readouterr().err
    )
    assert (run.status.data.together, run.status.data.different) == ("near copies", 100)
    assert run.status.data.leaks.test == 0
    assert run.evaluation.accuracy.value < 0.5 + 3 * (0.25 / 20) ** 0.5


def test_leaks_of_given_splits_are_counted_and_measured_without(train, toy, capsys):
    rest, test = toy.train.split(0.3, 0)
    parts = (test, rest.take(range(0, 42, 6)))
    images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    run = train(Dataset("leaked", rest, test=foveola.ImageSet(images, labels, toy.class_names)), verbose=True)
    assert "leaks: of 25 test images, " in capsys.readouterr().err
    assert json.loads((run.path / "run.json").read_text())["data"]["leaks"]["test"] == 7
    document = json.loads((run.path / "evaluation.json").read_text())
    assert document["held_out"] is False
    assert document["seen"]["training"] + document["seen"]["validation"] == 7
    assert document["without_copies"]["n"] == 18
    alone = foveola.evaluate(run.path, Dataset("alone", test), verbose=False)
    assert run.evaluation.without_copies.accuracy == alone.accuracy


def test_groups_are_given_as_numbers_or_names(train, toy):
    names = np.array([f"object {index // 4}" for index in range(60)])
    run = train(groups=names)
    assert run.status.data.groups == "array"
    parts = [
        select_split(toy, foveola.open(run.path).metadata, name).images for name in ("train", "validation", "test")
    ]
    number = {image.tobytes(): index // 4 for index, image in enumerate(toy.train.images)}
    sides = [{number[image.tobytes()] for image in part.images} for part in parts]
    assert sum(map(len, sides)) == 15
    with pytest.raises(UserError, match=r"pattern over file names, .* foveola\.load"):
        train(groups="(.+)_", out=None)
    with pytest.raises(DataError, match="60 in all"):
        train(groups=names[:50], out=None)


@pytest.fixture
def series(tmp_path):
    """Six frames of each of ten objects, OBJECT_FRAME.png."""
    random = np.random.default_rng(2)
    for thing in range(10):
        base = random.integers(0, 256, (8, 8))
        folder = tmp_path / "my series" / "ab"[thing % 2]
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(6):
            noisy = np.clip(base + random.integers(-20, 21, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{thing:05d}_{frame:05d}.png")
    return tmp_path / "my series"


def test_series_are_noticed_and_the_named_command_keeps_them_together(series, tiny, tmp_path, foveola_command):
    train = ("train", series, "--recipe", tiny, "--no-report")
    error = foveola_command(*train, "--out", tmp_path / "first").err
    command = next(line for line in error.splitlines() if line.startswith("series: ")).partition("foveola ")[2]
    words = shlex.split(command)
    assert words[:2] == ["train", str(series)]
    code, _, error = foveola_command(*words, "--recipe", tiny, "--no-report", "--out", tmp_path / "second")
    assert code == 0
    assert "groups: 10 among 60 images; each stays on one side of every split that is drawn" in error
    assert "\nseries:" not in error
    status = Run.open(tmp_path / "second").status
    assert status.data.groups == words[-1]
    assert Run.open(tmp_path / "first").status.data.series == words[-1]
    evaluated = foveola.evaluate(tmp_path / "second", series, verbose=False)
    assert (evaluated.split, evaluated.n, evaluated.held_out) == ("test", 12, True)
    assert evaluated == Run.open(tmp_path / "second").evaluation
    assert foveola_command("report", tmp_path / "second").code == 0


def test_quiet_says_nothing_of_the_data(toy_npz, tiny, tmp_path, foveola_command):
    code, out, err = foveola_command("train", toy_npz, "--recipe", tiny, "--out", tmp_path / "run", "--quiet")
    assert (code, err) == (0, "")
    assert "classes:" not in out


def test_a_model_that_guesses_or_has_memorised_is_named(toy, tmp_path, foveola_command):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8), random.integers(2, size=200)
    np.savez(tmp_path / "random.npz", x_train=images, y_train=labels)
    command = ("train", tmp_path / "random.npz", "--recipe", "mlp", "--epochs", "80", "--out", tmp_path / "run")
    out = " ".join(foveola_command(*command, "--quiet").out.split())
    assert "No better than guessing: always predicting the most frequent class reaches" in out
    assert "It has memorised its training images: 100.0 % of them" in out
    assert f"foveola train {tmp_path / 'random.npz'} --recipe" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<p class="bad"><b>No better than guessing' in page
    assert '<p class="bad"><b>It has memorised' in page
