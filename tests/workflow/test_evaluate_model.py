"""A model evaluated on its own data, on other data, and on data that does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets.splits import select_split
from foveola.documents import SeenImages
from foveola.errors import DataError, ModelError
from foveola.images import Dataset, ImageSet


@pytest.fixture
def evaluate(toy_run):
    def run(data, **options):
        return foveola.evaluate(toy_run, data, verbose=False, **options)

    return run


def test_the_runs_own_data_gives_the_same_test_split(evaluate, toy, toy_npz, toy_run):
    written = foveola.Run.open(toy_run).evaluation
    assert evaluate(toy) == evaluate(toy_npz) == written
    assert foveola.evaluate(toy_run / "model.safetensors", toy, verbose=False) == written
    assert foveola.evaluate(foveola.open(toy_run), toy, verbose=False) == written


def test_a_test_split_of_the_data_is_used(toy, tiny, tmp_path):
    rest, test = toy.train.split(0.3, 5)
    data = Dataset("toy", rest, test=test)
    run = foveola.train(data, tiny, out=tmp_path / "run", verbose=False, seed=3)
    assert run.evaluation.n == len(test)
    assert foveola.evaluate(run.path, data, verbose=False) == run.evaluation


@pytest.mark.parametrize(
    ("split", "n", "held_out"), [("train", 39, False), ("validation", 9, False), ("all", 60, False)]
)
def test_other_splits_of_the_runs_own_data(evaluate, toy, split, n, held_out):
    document = evaluate(toy, split=split)
    assert (document.split, document.n, document.held_out) == (split, n, held_out)


def test_other_data_without_a_test_split_is_evaluated_as_a_whole(evaluate, toy):
    document = evaluate(Dataset("other", mirrored(toy.train)))
    assert (document.split, document.n, document.held_out) == ("all", 60, True)
    assert document.seen == SeenImages()


def test_the_test_split_of_other_data_is_used(evaluate, toy):
    test = mirrored(toy.train.take(range(0, 60, 4)))
    document = evaluate(Dataset("other", toy.train, test=test))
    assert (document.split, document.n, document.held_out) == ("test", 15, True)


def mirrored(images):
    """Other images than these, of the same classes."""
    return replace(images, images=np.ascontiguousarray(images.images[:, ::-1]))


@pytest.mark.parametrize(
    "change",
    [
        lambda train: train.take(range(1, 60)),
        lambda train: train.take(np.random.default_rng(0).permutation(60)),
        lambda train: train.take([*range(60), 0, 1]),
        lambda train: replace(train, labels=(train.labels + 1) % 3),
        lambda train: replace(train, class_names=("right", "left", "middle")),
    ],
    ids=["shrunk", "shuffled", "grown", "other labels", "other order of classes"],
)
def test_images_that_were_learnt_are_left_out_of_changed_data(evaluate, toy, toy_run, change):
    own = {image.tobytes() for image in select_split(toy, foveola.open(toy_run).metadata, "test").images.images}
    changed = Dataset("changed", change(toy.train))
    unseen = sum(image.tobytes() in own for image in changed.train.images)
    document = evaluate(changed)
    assert (document.split, document.n, document.held_out) == ("unseen", unseen, True)
    assert document.seen == SeenImages(left_out=len(changed.train) - unseen)
    whole = evaluate(changed, split="all")
    assert (whole.n, whole.held_out) == (len(changed.train), False)
    assert whole.seen.training + whole.seen.validation == document.seen.left_out
    assert (whole.without_copies.n, whole.without_copies.accuracy) == (unseen, document.accuracy)


def test_data_that_was_learnt_altogether_is_measured_and_named(evaluate, toy, toy_run, foveola_command, tmp_path):
    learnt = select_split(toy, foveola.open(toy_run).metadata, "train").images
    document = evaluate(Dataset("learnt", learnt))
    assert (document.split, document.n, document.held_out) == ("all", 39, False)
    assert (document.seen, document.without_copies) == (SeenImages(training=39), None)
    np.savez(tmp_path / "learnt.npz", x_train=learnt.images, y_train=learnt.labels, class_names=learnt.class_names)
    code, out, _ = foveola_command("evaluate", toy_run, tmp_path / "learnt.npz")
    assert code == 0
    assert "39 images (all), learnt from: not a held-out figure" in out


def test_learnt_images_in_another_format_are_left_out(toy, toy_run, tmp_path):
    for number, (image, label) in enumerate(zip(toy.train.images, toy.train.labels, strict=True)):
        folder = tmp_path / "toy" / toy.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(folder / f"renamed{number % 7}-{number}.bmp")
    document = foveola.evaluate(toy_run, tmp_path / "toy", verbose=False)
    assert (document.split, document.n, document.held_out) == ("unseen", 12, True)


def test_a_test_split_that_was_learnt_is_measured_with_and_without(evaluate, toy, toy_run):
    learnt = select_split(toy, foveola.open(toy_run).metadata, "train").images.take(range(0, 39, 4))
    other = mirrored(toy.train.take(range(30)))
    mixed = ImageSet(
        *(np.concatenate([getattr(part, name) for part in (learnt, other)]) for name in ("images", "labels")),
        toy.class_names,
    )
    document = evaluate(Dataset("other", mirrored(toy.train), test=mixed))
    assert (document.split, document.n, document.held_out) == ("test", 40, False)
    assert (document.seen.training, document.without_copies.n) == (10, 30)


def test_an_export_does_not_know_what_was_learnt(toy, toy_run, tmp_path, foveola_command):
    path = tmp_path / "model.onnx"
    assert foveola_command("export", toy_run, "--out", path).code == 0
    own = foveola.evaluate(path, toy, verbose=False)
    assert (own.split, own.n, own.held_out, own.seen) == ("test", 12, True, SeenImages())
    other = foveola.evaluate(path, Dataset("other", toy.train.take(range(1, 60))), verbose=False)
    assert (other.split, other.n, other.held_out, other.seen) == ("all", 59, False, None)
    np.savez(
        tmp_path / "other.npz", x_train=toy.train.images[1:], y_train=toy.train.labels[1:], class_names=toy.class_names
    )
    out = foveola_command("evaluate", path, tmp_path / "other.npz").out
    assert "59 images (all); the model does not know whether it has learnt from them" in out


def test_images_that_an_initial_model_has_learnt_from_are_no_held_out_images(toy, tiny, toy_run, tmp_path):
    second = Dataset("second", mirrored(toy.train))
    run = foveola.train(second, tiny, init=toy_run, out=tmp_path / "run", verbose=False)
    assert run.evaluation.held_out
    document = foveola.evaluate(run.path, toy, verbose=False)
    assert (document.n, document.seen.left_out) == (60 - 39, 39)
    assert foveola.evaluate(run.path, second, verbose=False) == run.evaluation


def test_classes_are_matched_by_name(evaluate, toy):
    names = ("right", "left", "middle")
    labels = np.array([names.index(toy.class_names[label]) for label in toy.train.labels])
    shuffled = Dataset("shuffled", ImageSet(toy.train.images, labels, names))
    renamed = Dataset("renamed", ImageSet(toy.train.images, toy.train.labels, names))
    document = evaluate(shuffled, split="all")
    assert [row.name for row in document.per_class] == list(toy.class_names)
    assert document.confusion == evaluate(toy, split="all").confusion
    assert document.accuracy.value > evaluate(renamed, split="all").accuracy.value


def test_data_with_only_some_of_the_classes_is_evaluated(evaluate, toy):
    two = Dataset("two", ImageSet(toy.train.images[:40], toy.train.labels[:40], ("left", "middle")))
    document = evaluate(two, split="all")
    assert [row.support for row in document.per_class] == [20, 20, 0]


def test_data_of_a_single_class_are_evaluated(evaluate, toy):
    left = Dataset("left", ImageSet(toy.train.images[:20], toy.train.labels[:20], toy.class_names))
    document = evaluate(left, split="all")
    (occurring,) = {toy.class_names[label] for label in toy.train.labels[:20]}
    assert [row.support for row in document.per_class if row.name == occurring] == [20]
    assert 0 <= document.accuracy.value <= 1
    assert not document.metrics["auc_macro_ovr"].is_defined


def test_a_class_name_without_images_need_not_be_known(evaluate, toy):
    names = ("nobody", *toy.class_names)
    more = Dataset("more", ImageSet(toy.train.images, toy.train.labels + 1, names))
    document = evaluate(more, split="all")
    assert document.confusion == evaluate(toy, split="all").confusion


def test_unknown_classes_are_refused_by_name(evaluate, toy):
    other = replace(toy, train=ImageSet(toy.train.images, toy.train.labels, ("left", "middle", "above")))
    with pytest.raises(DataError, match="does not know: above"):
        evaluate(other)


def test_images_of_another_size_are_resized(toy_run, toy, tmp_path):
    large = toy.train.images.repeat(3, axis=1).repeat(3, axis=2)
    np.savez(tmp_path / "large.npz", x_train=large, y_train=toy.train.labels, class_names=np.array(toy.class_names))
    copy = Dataset("copy", toy.train.take(range(59, -1, -1)))
    small = foveola.evaluate(toy_run, copy, split="all", verbose=False)
    document = foveola.evaluate(toy_run, tmp_path / "large.npz", split="all", verbose=False)
    assert document.n == small.n == 60
    assert document.accuracy.value == pytest.approx(small.accuracy.value, abs=0.1)


def test_a_predictor_without_metadata_is_refused(toy):
    class WithoutMetadata:
        class_names = toy.class_names

        def predict_logits(self, images):
            return np.zeros((len(images), 3), np.float32)

    with pytest.raises(ModelError, match=r"WithoutMetadata .* foveola\.open"):
        foveola.evaluate(WithoutMetadata(), toy, verbose=False)


def test_a_missing_split_is_refused(evaluate, toy):
    with pytest.raises(DataError, match="no validation split"):
        evaluate(Dataset("other", toy.train.take(range(59))), split="validation")


def test_calibration_before_the_temperature_is_measured_too(toy_run, toy):
    model = foveola.open(toy_run)

    def with_temperature(temperature):
        model.metadata = model.metadata.model_copy(update={"temperature": temperature})
        return foveola.evaluate(model, toy, split="all", verbose=False)

    raw, calibrated = with_temperature(1.0), with_temperature(2.5)
    for name in ("ece", "log_loss"):
        assert getattr(raw, f"{name}_uncalibrated") == raw.metrics[name]
        before = raw.metrics[name].value
        assert getattr(calibrated, f"{name}_uncalibrated").value == pytest.approx(before, rel=1e-5)
        assert calibrated.metrics[name].value != pytest.approx(before, rel=1e-2)


# Fixes, by the rules of `predict`


def write_folder(folder: Path, images: ImageSet, change=lambda pixels: pixels, mode: str = "L") -> Path:
    """An image folder, each image enlarged to 20×20 and changed."""
    for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / images.class_names[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(pixels[:, :, 0])).resize((20, 20)).convert(mode).save(path)
    return folder


def test_grey_saved_in_colour_is_grey(toy_run, toy, tmp_path):
    grey = write_folder(tmp_path / "grey", mirrored(toy.train))
    saved = write_folder(tmp_path / "rgb", mirrored(toy.train), mode="RGB")
    one, two = (foveola.evaluate(toy_run, folder, verbose=False) for folder in (grey, saved))
    assert one.confusion == two.confusion
    assert one.metrics["log_loss"].value == pytest.approx(two.metrics["log_loss"].value, abs=1e-3)


def test_colour_is_refused_unless_converted(toy_run, toy, tmp_path):
    folder = write_folder(tmp_path / "rgb", mirrored(toy.train))
    red = next((folder / toy.class_names[0]).iterdir())
    Image.new("RGB", (20, 20), (200, 0, 0)).save(red)
    with pytest.raises(DataError, match=r"1 of 60 images of rgb are in colour .*--grey"):
        foveola.evaluate(toy_run, folder, verbose=False)
    assert foveola.evaluate(toy_run, folder, grey=True, verbose=False).n == 60


def test_fixes_are_those_of_predict(toy_run, toy, tmp_path):
    folder = write_folder(tmp_path / "dark", mirrored(toy.train), lambda pixels: 255 - pixels)
    asked = {"fix": ["auto"], "verbose": False}
    document = foveola.evaluate(toy_run, folder, **asked)
    predictions = foveola.predict(toy_run, [folder], **asked)
    right = [prediction.class_name == Path(prediction.image).parent.name for prediction in predictions]
    assert document.accuracy.value == pytest.approx(np.mean(right))
    assert document.accuracy.value > foveola.evaluate(toy_run, folder, verbose=False).accuracy.value


def test_arrays_are_fixed_too(toy_run, toy):
    dark = Dataset("dark", replace(mirrored(toy.train), images=255 - mirrored(toy.train).images))
    fixed = foveola.evaluate(toy_run, dark, fix=["invert"], verbose=False)
    assert fixed.confusion == foveola.evaluate(toy_run, Dataset("light", mirrored(toy.train)), verbose=False).confusion


def test_fixes_do_not_turn_learnt_images_into_held_out_ones(toy_run, toy):
    document = foveola.evaluate(toy_run, toy, split="all", fix=["invert"], verbose=False)
    assert document.seen == foveola.evaluate(toy_run, toy, split="all", verbose=False).seen
    assert not document.held_out


def test_learnt_images_are_known_again_in_their_own_shape_by_a_letterboxed_model(toy, tiny, tmp_path):
    wide = replace(toy.train, images=toy.train.images.repeat(3, axis=2))  # 8×24
    arrays = tmp_path / "wide.npz"
    np.savez(arrays, x_train=wide.images, y_train=wide.labels, class_names=np.array(wide.class_names))
    run = foveola.train(
        arrays, tiny, out=tmp_path / "run", overrides={"image_size": 12, "resize": "letterbox"}, verbose=False
    )
    data = foveola.load(arrays)
    assert data.image_shape == (8, 24, 1)
    document = foveola.evaluate(run.path, data, split="all", verbose=False)
    assert not document.held_out
    assert document.seen.training == run.status.data.train
    assert document.seen.validation == run.status.data.validation
