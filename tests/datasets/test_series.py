"""File names that look like series, and those that only seem to."""

import re
import uuid

import numpy as np
import pytest

from foveola.datasets.series import series_pattern

SERIES = {
    "object and frame": "{:05d}_{:05d}.png",
    "video and frame": "video{}_{:04d}.jpg",
    "word before the counter": "obj{}__frame{}.JPG",
    "no separator": "patient{}slice{}.png",
    "Windows copies": "scan-{} ({}).png",
    "points": "cam.{}.{:03d}.jpeg",
    "suffix": "s{}-{:03d}_crop.png",
    "rotated copies": "sample{}_rot{}.bmp",
    "cells of a slide": "C{}P61ThinF_IMG_20150918_144104_cell_{}.png",
    "non-ASCII": "écran{}-bild{}.png",
}


@pytest.mark.parametrize("form", SERIES.values(), ids=SERIES.keys())
@pytest.mark.parametrize("known_classes", [True, False])
def test_series_are_found_and_grouped_by_their_object(form, known_classes):
    ids = [(thing, frame) for thing in range(10) for frame in range(12)]
    labels = [thing % 2 for thing, _ in ids] if known_classes else None
    paths = [form.format(*pair) for pair in ids]
    pattern = series_pattern(paths, labels)
    assert pattern is not None and re.compile(pattern).groups == 1
    groups = [re.search(pattern, path)[1] for path in paths]
    assert [groups.index(group) // 12 for group in groups] == [thing for thing, _ in ids]


def test_first_copy_without_a_number_belongs_to_its_series():
    paths = [f"scan-{n}{copy}.png" for n in range(20) for copy in ("", " (2)", " (3)")]
    pattern = series_pattern(paths)
    assert {re.search(pattern, path)[1] for path in paths} == {f"scan-{n}" for n in range(20)}


def test_augmented_copies_and_views_are_series():
    copies = [f"holiday_jpg.rf.{uuid.UUID(int=n).hex}.jpg" for n in range(3)]
    copies += [f"street_jpg.rf.{uuid.UUID(int=n).hex}.jpg" for n in range(3)]
    assert re.search(series_pattern(copies), copies[0])[1] == "holiday_jpg"
    eyes = [f"{patient}_{side}.jpeg" for patient in range(30) for side in ("left", "right")]
    pattern = series_pattern(eyes, [patient % 3 for patient in range(30) for _ in "lr"])
    assert [re.search(pattern, eye)[1] for eye in eyes[:4]] == ["0", "0", "1", "1"]


def names(form, count=200):
    return [form.format(number) for number in range(count)]


RANDOM = np.random.default_rng(0)
NO_SERIES = {
    "plain": names("im{}.png"),
    "numbers": names("{}.png"),
    "padded, one prefix": names("img_{:04d}.jpg"),
    "camera": names("IMG_{}.JPG"),
    "Kaggle": names("cat.{}.jpg") + names("dog.{}.jpg"),
    "prefix of the class": [name for word in ("glass", "metal", "paper") for name in names(f"{word}_{{}}.jpg")],
    "number of the class": [name for digit in range(10) for name in names(f"{digit}_{{:05d}}.png")],
    "UUID": [f"{uuid.UUID(int=int.from_bytes(RANDOM.bytes(16)), version=4)}.png" for _ in range(500)],
    "hash": [f"{RANDOM.bytes(8).hex()}.png" for _ in range(500)],
    "prefix and hash": [f"img_{RANDOM.bytes(4).hex()}.png" for _ in range(500)],
    "number and index": [f"{number}_{1000 + number}.png" for number in range(300)],
    "camera's time": [f"IMG_20150918_{14 + n // 60:02d}{n % 60:02d}{n * 7 % 60:02d}.jpg" for n in range(200)],
    "dates": [f"2020-{1 + n // 28:02d}-{1 + n % 28:02d}.png" for n in range(300)],
    "age, sex and time": [f"{n % 90}_{n % 2}_0_20170116{n:09d}.jpg" for n in range(900)],
    "few copies": names("photo{}.png") + [f"photo{n} (1).png" for n in range(10)],
    "none": [],
}


@pytest.mark.parametrize("paths", NO_SERIES.values(), ids=NO_SERIES.keys())
def test_other_names_are_no_series(paths):
    assert series_pattern(paths) is None


@pytest.mark.parametrize("form", ["{}_{:05d}.png", "class{}-{}.png", "n0208{}_{}.JPEG", "{:02d}_frame{}.png"])
def test_a_single_series_a_class_is_the_class_itself(form):
    paths = [form.format(label, number) for label in range(10) for number in range(12)]
    assert series_pattern(paths, [label for label in range(10) for _ in range(12)]) is None


def test_number_and_class_are_no_views():
    paths = [f"{number:03d}_{name}.png" for name in ("cat", "dog") for number in range(50)]
    assert series_pattern(paths, [0] * 50 + [1] * 50) is None


@pytest.mark.parametrize("name", ["trashnet-150", "sign-language-digits"])
def test_real_folders_without_series(real_data, name):
    folders = [folder for folder in sorted((real_data / "folders" / name).iterdir()) if folder.is_dir()]
    pairs = [(file.name, label) for label, folder in enumerate(folders) for file in folder.iterdir()]
    paths, labels = map(list, zip(*pairs, strict=True))
    assert series_pattern(paths, labels) is series_pattern(paths) is None
