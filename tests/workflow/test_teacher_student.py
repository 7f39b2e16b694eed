"""A training with a teacher: what it records, what it refuses, and that it goes on exactly."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.errors import ModelError, UserError
from foveola.images import Dataset, ImageSet
from foveola.models.model_file import read_metadata
from foveola.reports import plots
from foveola.training import checkpoint
from foveola.workflow import teach

SHORT = {"epochs": 2, "precision": "float32", "minimum_steps": 0, "batch_size": 16}


def train(data, out, **settings):
    overrides = SHORT | settings.pop("overrides", {})
    settings = {"report": False, "verbose": False, "seed": 1} | settings
    return foveola.train(data, "mlp", out=out, overrides=overrides, **settings)


@pytest.fixture(scope="module", autouse=True)
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_run", lambda *arguments, **settings: None)
        yield


@pytest.fixture(scope="module")
def teacher(no_plots, toy, tmp_path_factory):
    return train(toy, tmp_path_factory.mktemp("teacher") / "run", overrides={"epochs": 5})


def weights(run):
    return dict(foveola.open(run.path).network.state_dict())


def test_a_student_records_its_teacher_and_learns_something_else(toy, teacher, tmp_path, capsys):
    alone, student = train(toy, tmp_path / "alone"), train(toy, tmp_path / "s", teacher=teacher.path, verbose=True)
    recorded = student.status.teacher
    assert recorded.sha256 == hashlib.sha256(teacher.model_path.read_bytes()).hexdigest()
    assert (recorded.recipe, recorded.unseen) == ("mlp", True)
    assert alone.status.teacher is None
    assert "which has learnt from no validation or test image" in capsys.readouterr().err
    assert student.evaluation.held_out
    assert any((a != b).any() for a, b in zip(weights(alone).values(), weights(student).values(), strict=True))


def test_a_student_that_listens_to_labels_only_is_as_one_without_a_teacher(toy, teacher, tmp_path):
    alone = train(toy, tmp_path / "alone", overrides={"distill.weight": 0.0})
    student = train(toy, tmp_path / "s", overrides={"distill.weight": 0.0}, teacher=teacher.model_path)
    for a, b in zip(weights(alone).values(), weights(student).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_teacher_that_has_seen_what_is_measured_is_refused(toy, teacher, tmp_path):
    with pytest.raises(UserError, match=r"has learnt from \d of the 6 validation images.* --seed 1, as the teacher"):
        train(toy, tmp_path / "s", teacher=teacher.path, seed=2)
    splits = replace(toy, test=toy.train.take(np.arange(0, 60, 7)), train=toy.train.take(np.arange(1, 60, 7)))
    with pytest.raises(UserError, match=r"has learnt from \d of the 9 test images"):
        train(splits, tmp_path / "s", teacher=teacher.path)
    assert not (tmp_path / "s").exists()


def test_images_of_another_size_leave_it_open(toy, teacher, tmp_path, capsys):
    larger = Dataset("large", ImageSet(toy.train.images.repeat(2, 1).repeat(2, 2), toy.train.labels, toy.class_names))
    student = train(larger, tmp_path / "s", teacher=teacher.path, verbose=True)
    assert student.status.teacher.unseen is None
    assert "is not known, because its file has no hashes of images of this size" in capsys.readouterr().err


def test_a_teacher_of_another_size_gets_the_files_in_its_own(toy, tmp_path, monkeypatch):
    """Classes lie in single pixels of 16×16, which images of 8×8 blur; the teacher is asked about the sharp ones."""
    generator = np.random.default_rng(0)
    for number, image in enumerate(toy.train.images):
        folder = tmp_path / "images" / toy.class_names[number // 20]
        folder.mkdir(parents=True, exist_ok=True)
        large = np.clip(image[..., 0].repeat(2, 0).repeat(2, 1) + generator.integers(-9, 9, (16, 16)), 0, 255)
        Image.fromarray(large.astype(np.uint8)).save(folder / f"{number}.png")
    sizes = {"image_size": 16, "scaling": "unit"}
    teacher = train(tmp_path / "images", tmp_path / "teacher", overrides=sizes)
    asked = []
    original = teach.teacher_logits
    monkeypatch.setattr(teach, "teacher_logits", lambda *given: asked.append(given[1]) or original(*given))
    student = train(tmp_path / "images", tmp_path / "s", overrides={"image_size": 8}, teacher=teacher.path)
    assert student.status.teacher.unseen is True
    assert asked[0].shape == (student.status.data.train, 16, 16, 1)
    learnt = read_metadata(teacher.model_path).data.learnt
    assert learnt.seen(asked[0]).training.all()  # the same splits: the same training images
    with pytest.raises(UserError, match="has learnt from"):
        train(tmp_path / "images", tmp_path / "t", overrides={"image_size": 8}, teacher=teacher.path, seed=5)


def test_other_classes_are_refused(toy, teacher, tmp_path):
    names = ("right", "middle", "left")
    other = Dataset("other", ImageSet(toy.train.images, toy.train.labels, names))
    with pytest.raises(UserError, match=r"knows the classes 'left', 'middle', 'right', and the data has 'right'"):
        train(other, tmp_path / "s", teacher=teacher.path)


def test_a_missing_teacher_is_refused_before_data_is_read(tmp_path):
    with pytest.raises(ModelError, match="There is no run or model file"):
        train(tmp_path / "no-data", tmp_path / "s", teacher=tmp_path / "nobody")


def test_the_student_inherits_what_its_teacher_has_learnt_from(toy, teacher, tmp_path):
    """A student of some of the images, whose teacher knows more, counts all of these as learnt."""
    first = toy.train.take(np.arange(0, 60, 2))
    test = ImageSet(255 - toy.train.images[:9], toy.train.labels[:9], toy.class_names)
    splits = Dataset("half", first, validation=test, test=test)
    student = train(splits, tmp_path / "s", teacher=teacher.path)
    learnt, taught = (read_metadata(run.model_path).data.learnt for run in (student, teacher))
    assert learnt.seen(toy.train.images).training.sum() == len(
        np.union1d(np.flatnonzero(taught.seen(toy.train.images).training), np.arange(0, 60, 2))
    )


class Stop(Exception):
    """Ends a training."""


class StopAtStep3(foveola.Callback):
    def on_step_end(self, fit):
        if fit.step == 3:
            raise Stop


def test_a_training_with_a_teacher_goes_on_exactly(toy_npz, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)
    teacher = train(toy_npz, tmp_path / "teacher")
    overrides = {"augment.strength": 0.5, "distill.temperature": 2.0}
    settings = {"teacher": teacher.path, "overrides": overrides, "checkpoint_every": 1e-9}
    whole = train(toy_npz, tmp_path / "whole", callbacks=[foveola.Callback()], **settings)
    with monkeypatch.context() as patch:
        patch.setattr(foveola.Callback, "on_step_end", StopAtStep3.on_step_end)
        with pytest.raises(Stop):
            train(toy_npz, tmp_path / "s", callbacks=[foveola.Callback()], **settings)
    resumed = foveola.resume(tmp_path / "s", callbacks=[foveola.Callback()], verbose=False)
    for name in ("model.safetensors", "recipe.toml", "evaluation.json"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert resumed.status.teacher == whole.status.teacher
    assert resumed.status.data == whole.status.data


def test_the_command(toy_npz, tmp_path, foveola_command):
    teacher = train(toy_npz, tmp_path / "teacher")
    options = ("--recipe", "mlp", "--epochs", 1, "--seed", 1, "--no-report", "--set", "distill.weight=0.9")
    ended = foveola_command("train", toy_npz, *options, "--teacher", teacher.path, "--out", tmp_path / "s")
    assert ended.code == 0
    assert foveola.Run.open(tmp_path / "s").status.recipe.distill.weight == 0.9
    ended = foveola_command("train", toy_npz, *options, "--teacher", tmp_path / "none", "--out", tmp_path / "t")
    assert (ended.code, ended.err.count("\n") < 8) == (2, True)
