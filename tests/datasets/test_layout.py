"""Layout of image folders: what is taken for a split, a class, an image, or junk."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from foveola.datasets import load
from foveola.datasets.layout import find, split_of
from foveola.datasets.reload import image_paths
from foveola.errors import DataError
from foveola.inputs.find import is_junk


def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6), value, np.uint8)).save(path)


def classes(root, names="ab", count=2):
    for label, name in enumerate(names):
        for number in range(count):
            write(root / name / f"{number}.png", label)


# ---- splits ---------------------------------------------------------------------------------------------------------

SPLITS = {
    "train": "train Train TRAINING train_set trainset seg_train train-images imgs_train train2017 TrainingData train1",
    "validation": "val valid validation Val VALID dev dev_set val2017 validation-images validate",
    "test": "test test1 Test testing TEST_SET seg_test test-images testset eval evaluation holdout hold_out test_data",
}
NO_SPLITS = "cat testtube test_tube trainer latest contest protest valley value rain deviant images set 1 trainval"


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for split, names in SPLITS.items() for name in names.split()]
)
def test_names_of_splits(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("name", NO_SPLITS.split())
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("training", None, "testing"),
        ("train_set", "dev_set", "test_set"),
        ("Train", "Valid", "Test"),
        ("train-images", "val-images", "test-images"),
        ("TRAIN", None, "eval"),
    ],
)
def test_splits_by_other_names_are_taken(tmp_path, train, validation, test):
    for name in filter(None, (train, validation, test)):
        classes(tmp_path / name, count=3 if name == train else 1)
    data = load(tmp_path)
    assert (len(data.train), data.class_names, len(data.test)) == (6, ("a", "b"), 2)
    assert (data.validation is None) == (validation is None)


@pytest.mark.parametrize("inner", ["dataset/{}", "{}/{}", "archive/data/{}/{}"])
def test_single_folders_around_the_data_are_passed_through(tmp_path, inner):
    for split, count in (("seg_train", 3), ("seg_test", 1)):
        classes(tmp_path / inner.format(split, split), count=count)
    data = load(tmp_path)
    assert (data.class_names, len(data.train), len(data.test)) == (("a", "b"), 6, 2)
    assert len(image_paths(tmp_path, data)["test"]) == 2


def test_a_single_folder_around_classes_is_passed_through(tmp_path):
    classes(tmp_path / "kinds" / "of" / "dogs")
    (tmp_path / "README.md").write_text("dogs")
    (tmp_path / "kinds" / ".DS_Store").write_text("x")
    assert load(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test1"),
        ("training", "testing"),
        ("val", "holdout"),
        ("Train_1", "Test_1", "dev"),
        ("train", "test", "docs"),
    ],
)
def test_images_directly_in_splits_are_refused(tmp_path, folders):
    for folder in folders:
        for number in range(4):
            name = f"{number}.png" if "test" in folder else f"{('cat', 'dog')[number % 2]}.{number}.png"
            write(tmp_path / folder / name)
    with pytest.raises(DataError, match=r"by their names splits, not classes.*begin with cat, dog.*/cat/"):
        load(tmp_path)


@pytest.mark.parametrize("layout", ["train/{}", "train/train/{}", "root/train/{}"])
def test_images_without_classes_name_where_labels_may_be(tmp_path, layout):
    for number in range(4):
        write(tmp_path / layout.format(f"{number}.png"))
    with pytest.raises(DataError, match=r"file names or a table say the class.*/<class>/<image>"):
        load(tmp_path)


def test_one_class_folder_instead_of_all_is_refused_with_the_folder_above(tmp_path):
    for number in range(4):
        write(tmp_path / "pets" / "cat" / f"IMG_{number}.png")
        write(tmp_path / "pets" / "dog" / f"IMG_{number}.png")
    with pytest.raises(DataError, match=r"If cat is itself a class, as dog beside it, give .*: \S+pets\."):
        load(tmp_path / "pets" / "cat")
    (tmp_path / "pets" / "dog").rename(tmp_path / "pets" / "test")
    with pytest.raises(DataError, match=r"<class>/<image>\. Unpack archives first\.$"):
        load(tmp_path / "pets" / "cat")


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(
        DataError, match=r"mine has no class folders: it is empty\. Put the images .*: mine/<class>/<image>\."
    ):
        load(tmp_path / "mine")


def test_a_test_split_without_labels_is_refused_with_the_way(tmp_path):
    classes(tmp_path / "train")
    write(tmp_path / "test" / "1.png")
    with pytest.raises(DataError, match=r"test has no class folders.*foveola predict"):
        load(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path):
    for name in ("train", "val", "valid"):
        classes(tmp_path / name)
    with pytest.raises(DataError, match=r"val and .*valid are both validation splits"):
        load(tmp_path)


def test_without_a_training_split_the_name_is_asked_for(tmp_path):
    for name in ("val", "test"):
        classes(tmp_path / name)
    with pytest.raises(DataError, match="no training split"):
        load(tmp_path)


# ---- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["license", "LICENCE", "README", "readme.old", "copying"])
def test_folders_with_images_are_classes_whatever_their_name(tmp_path, name):
    classes(tmp_path, ["passport", name, "id_card"])
    write(tmp_path / "passport" / f"{name.partition('.')[0]}.png")
    (tmp_path / "passport" / "LICENSE").write_text("MIT")
    (tmp_path / "README.md").write_text("cards")
    data = load(tmp_path)
    assert sorted(data.class_names) == sorted(["passport", name, "id_card"])
    assert data.train.class_counts.sum() == 7


def test_a_folder_may_be_called_like_an_image(tmp_path):
    classes(tmp_path, ["logo.png", "other.jpg"])
    assert load(tmp_path).class_names == ("logo.png", "other.jpg")


@pytest.mark.parametrize("names", [("valid", "invalid"), ("train", "tram"), ("test", "control"), ("raw", "cooked")])
def test_classes_may_have_names_like_splits(tmp_path, names):
    classes(tmp_path, names)
    assert set(load(tmp_path).class_names) == set(names)


def test_a_folder_of_licence_texts_is_no_class(tmp_path):
    classes(tmp_path)
    (tmp_path / "LICENSE").mkdir()
    (tmp_path / "LICENSE" / "MIT.txt").write_text("MIT")
    assert load(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize("place", [".", "train"])
def test_images_beside_the_classes_are_not_dropped_without_a_word(tmp_path, place):
    classes(tmp_path / "train")
    write(tmp_path / place / "stray.png")
    if place == ".":
        classes(tmp_path / "test")
    with pytest.raises(DataError, match=r"stray.png lies beside the class folders.*\n.*--skip-bad 1"):
        load(tmp_path)
    data = load(tmp_path, skip_bad=1)
    assert (len(data.train), data.skipped) == (4, (str(tmp_path / place / "stray.png"),))


def test_unicode_forms_of_a_name_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    classes(tmp_path / "train", [decomposed, "b"])
    classes(tmp_path / "test", [composed, "b"], 1)
    assert load(tmp_path).class_names == ("b", composed)
    classes(tmp_path / "train", [composed, "b"], 3)
    data = load(tmp_path)
    assert data.train.class_counts.tolist() == [3, 5]
    assert len(image_paths(tmp_path, data)["train"]) == 8


def test_names_that_are_not_utf_8_are_escaped(tmp_path):
    classes(tmp_path, "ab")
    (tmp_path / "a").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / os.fsdecode(b"\xff.png"))
    data = load(tmp_path)
    assert data.class_names == ("b", r"caf\xe9")
    assert data.train.class_counts.tolist() == [2, 2]


def test_arrays_in_a_folder_are_named(tmp_path):
    (tmp_path / "digits.NPZ").write_bytes(b"x")
    with pytest.raises(DataError, match=r"To load the arrays, give .*digits\.NPZ"):
        load(tmp_path)


# ---- junk -----------------------------------------------------------------------------------------------------------

JUNK = (
    "@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle",
    "@Recycle", ".Trash-1000", "#snapshot", ".@__thumb", "__pycache__", "@Recently-Snapshot",
)  # fmt: skip


@pytest.mark.parametrize("name", JUNK)
def test_junk_folders_are_ignored_at_every_level(tmp_path, name):
    for split in ("train", "test"):
        classes(tmp_path / split)
    for place in (".", "train", "train/a", "test/b"):
        write(tmp_path / place / name / "x.png")
        (tmp_path / place / name / "y.jpg").write_bytes(b"1")
    data = load(tmp_path)
    assert (len(data.train), len(data.test), data.skipped) == (4, 4, ())


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "desktop.ini", "ehthumbs.db", "._0.png", "Icon\r"])
def test_junk_files_are_ignored_at_every_level(tmp_path, name):
    classes(tmp_path)
    for place in (".", "a"):
        (tmp_path / place / name).write_bytes(b"1")
    assert len(load(tmp_path).train) == 4
    assert is_junk(name)


def test_junk_below_groups_is_ignored(tmp_path):
    for name in "ab":
        write(tmp_path / name / "p1" / "0.png")
        write(tmp_path / name / "p1" / "@eaDir" / "0.png")
    assert len(load(tmp_path, groups="folder").train) == 2


def test_links_that_lead_nowhere_or_round_do_no_harm(tmp_path):
    classes(tmp_path)
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    with pytest.raises(DataError, match="round"):
        load(tmp_path)
    for name in "abcde":
        write(tmp_path / "round-in-groups" / "x" / "p" / f"{name}.png")
        write(tmp_path / "round-in-groups" / "y" / "p" / f"{name}.png")
        (tmp_path / "round-in-groups" / "x" / "p" / name).symlink_to(tmp_path / "round-in-groups" / "x")
    assert len(load(tmp_path / "round-in-groups", groups="folder").train) == 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_fifos_are_refused_without_being_opened(tmp_path):
    classes(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png is not a file"):
        load(tmp_path)
    assert len(load(tmp_path, skip_bad=1).train) == 4


@pytest.mark.parametrize("empty", [["a", "b"], ["a"]])
def test_skipping_is_not_offered_where_nothing_would_be_left(tmp_path, empty):
    classes(tmp_path)
    for name in empty:
        for file in (tmp_path / name).iterdir():
            file.write_bytes(b"1")
    with pytest.raises(DataError) as refusal:
        load(tmp_path)
    assert "--skip-bad" not in str(refusal.value)
    with pytest.raises(DataError, match="no image of 'a'"):
        load(tmp_path, skip_bad=4)


def test_the_layout_is_found_by_names_only(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"not read")
    assert list(find(tmp_path).splits["train"]) == ["a"]
