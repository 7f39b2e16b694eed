"""Groups that stay together: from folders, from file names, and from arrays."""

import numpy as np
import pytest
from PIL import Image

from foveola.datasets import load
from foveola.datasets.reload import image_paths
from foveola.errors import DataError


def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6), value, np.uint8)).save(path)


def test_a_folder_below_the_class_names_the_group_in_every_split_and_class(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            for patient in ("p2", "p10"):
                for number in range(3):
                    write(tmp_path / split / name / patient / f"{number}.png", label)
    data = load(tmp_path, groups="folder")
    assert data.class_names == ("a", "b")
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert data.train.groups.tolist() == data.test.groups.tolist() == [0, 0, 0, 1, 1, 1] * 2  # p10, p2
    assert [path.split("/")[-2] for path in image_paths(tmp_path, data)["train"]] == (["p10"] * 3 + ["p2"] * 3) * 2


def test_deeper_folders_belong_to_the_first_one_below_the_class(tmp_path):
    for path in ("a/x/1.png", "a/x/left/1.png", "a/y/1.png", "b/x/deep/er/1.png", "b/z/1.png"):
        write(tmp_path / path)
    assert load(tmp_path, groups="folder").train.groups.tolist() == [0, 0, 1, 0, 2]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(.+)_\d+", "car7 car7 car8 car8 car7 car90"),
        (r"^car(\d)", "7 7 8 8 7 9"),
        (r"_0*(\d)\.", "1 2 1 2 3 1"),
    ],
)
def test_a_pattern_reads_the_group_from_the_file_name(tmp_path, pattern, expected):
    for path in ("a/car7_001", "a/car7_002", "a/car8_001", "a/car8_002", "b/car7_003", "b/car90_001"):
        write(tmp_path / f"{path}.png")
    groups = load(tmp_path, groups=pattern).train.groups
    names = np.array(expected.split())
    assert groups.dtype == np.int64
    assert np.array_equal(np.equal.outer(groups, groups), names[:, None] == names)


def test_a_pattern_sees_the_path_from_the_class_folder(tmp_path):
    for path in ("a/x/1.png", "a/y/1.png", "b/x/2.png", "b/y/2.png"):
        write(tmp_path / path)
    assert load(tmp_path, groups=r"(\w)/\d").train.groups.tolist() == [0, 1, 0, 1]


def test_groups_survive_resizing_and_skipped_files(tmp_path):
    for path in ("a/x_1.png", "a/x_2.png", "b/x_3.png", "b/y_1.png"):
        write(tmp_path / path)
    (tmp_path / "a" / "x_1.png").write_bytes(b"broken")
    data = load(tmp_path, groups=r"(\w)_", image_size=9, channels=3, skip_bad=1)
    assert (data.train.groups.tolist(), data.image_shape) == ([0, 0, 1], (9, 9, 3))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is not a regular expression"),
        ("*", "is not a regular expression"),
        ("", "has 0 capturing groups"),
        (r"\d+", "has 0 capturing groups"),
        (r"(\w)_(\d)", "has 2 capturing groups"),
        (r"(z+)_", r"does not match x_1.png .*x_1.png"),
        (r"(z*)", r"captures nothing in x_1.png"),
        ("folder", r"x_1.png is not in a folder below its class"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(tmp_path, pattern, message):
    for name in "ab":
        write(tmp_path / name / "x_1.png")
    with pytest.raises(DataError, match=message):
        load(tmp_path, groups=pattern)


def test_nested_folders_without_groups_name_the_way(tmp_path):
    for path in ("a/p1/1.png", "a/p2/1.png", "b/p3/1.png"):
        write(tmp_path / path)
    with pytest.raises(DataError, match="--groups folder"):
        load(tmp_path)


def arrays(count=4):
    return {"x_train": np.zeros((count, 5, 5), np.uint8), "y_train": np.arange(count) % 2}


@pytest.mark.parametrize("keys", [("groups_train", "groups_test"), ("train_groups", "test_groups")])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["ann", "bob", "ann", "cid"], ["cid", "dan"]),
        ([7, 900, 7, -3], [-3, 5]),
        ([b"a", b"bb", b"a", b"c"], [b"c", b"d"]),
    ],
)
def test_arrays_of_groups_are_read_from_npz(tmp_path, keys, train, test):
    path, (first, second) = tmp_path / "data.npz", keys
    testing = {"x_test": np.zeros((2, 5, 5), np.uint8), "y_test": np.arange(2)}
    np.savez(path, **arrays(), **testing, **{first: np.array(train), second: np.array(test)})
    data = load(path)
    numbers = data.train.groups.tolist()
    assert numbers[0] == numbers[2] and len(set(numbers)) == 3
    assert data.test.groups[0] == numbers[3] and data.test.groups[1] not in numbers


def test_groups_of_npz_must_be_one_an_image(tmp_path):
    np.savez(tmp_path / "short.npz", **arrays(), groups_train=np.arange(3))
    with pytest.raises(DataError, match="one integer an image, 4 in all"):
        load(tmp_path / "short.npz")
    np.savez(tmp_path / "flat.npz", **arrays(), groups_train=np.zeros((4, 2)))
    with pytest.raises(DataError, match="one whole number or string per image"):
        load(tmp_path / "flat.npz")


def test_a_pattern_needs_file_names(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    for source in (tmp_path / "data.npz", "digits"):
        with pytest.raises(DataError, match=r"reads the groups from file names.*groups_train"):
            load(source, groups="(.+)_")
