"""Placeholders: found among photographs and drawings, alone and repeated; photographs are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from foveola.audits.placeholders import find_placeholders
from foveola.datasets.duplicates import find_duplicates
from foveola.images import ImageSet

NAMES = ("ants", "bees", "wasps")


@pytest.fixture
def photographs():
    """90 colour images of 32×32 with smooth shades and the noise of a sensor, a third of them before a plain wall."""
    random = np.random.default_rng(0)
    images = np.empty((90, 32, 32, 3), np.uint8)
    for index, image in enumerate(images):
        shades = random.integers(40, 216, (2, 2, 3) if index % 3 else (1, 1, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(shades).resize((32, 32), Image.Resampling.BICUBIC)).astype(float)
        smooth[8:24, 8:24] += random.normal(0, 20, (16, 16, 3))
        image[:] = np.clip(smooth + random.normal(0, 3, smooth.shape), 0, 255)
    return images, np.arange(90) % 3


def drawn(kind, quality=75):
    """A picture of 200×150 that stands for a missing one, as JPEG, shrunk to 32×32."""
    paper = {"grey box": (200, 200, 200), "white page": (255, 255, 255), "dark box": (60, 60, 70)}[kind]
    picture = Image.new("RGB", (200, 150), paper)
    draw = ImageDraw.Draw(picture)
    draw.text((20, 50), "image not found", fill=(110, 110, 110), font_size=22)
    if kind == "white page":
        draw.rectangle((70, 90, 130, 130), outline=(110, 110, 110), width=5)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR))


def found(images, labels, probability=None):
    image_set = ImageSet(images, labels, NAMES)
    return find_placeholders(image_set, find_duplicates(images), probability)


def test_photographs_are_none(photographs):
    assert found(*photographs) == []


@pytest.mark.parametrize("kind", ["grey box", "white page", "dark box"])
def test_a_single_one_is_found_among_photographs(photographs, kind):
    images, labels = photographs
    images[40] = drawn(kind)
    (only,) = found(images, labels)
    assert (only.index, only.kind) == (40, "placeholder")
    assert "% of its pixels have one of two colours" in only.detail


@pytest.mark.parametrize("places", [(4, 8, 12), (3, 6, 9), (0, 1, 2, 5, 30, 44, 60, 71, 80, 89)])
def test_copies_are_found_with_their_number_also_within_one_class(photographs, places):
    images, labels = photographs
    for place in places:
        images[place] = drawn("grey box", quality=72 + place % 8)
    outliers = found(images, labels)
    assert {outlier.index for outlier in outliers} == set(places)
    classes = len(set(labels[list(places)]))
    expected = f"{len(places)} copies in {classes} class{'es' if classes > 1 else ''}; "
    assert all(outlier.detail.startswith(expected) for outlier in outliers)


def test_the_most_frequent_one_comes_first(photographs):
    images, labels = photographs
    images[[10, 20, 33]] = drawn("white page")
    images[50] = drawn("dark box")
    assert [outlier.index for outlier in found(images, labels)] == [10, 20, 33, 50]


def test_a_photograph_under_many_labels_is_one(photographs):
    """Four copies with three labels; two copies with two labels are a conflict, not a placeholder."""
    images, labels = photographs
    images[[7, 14, 30, 62]] = images[7]
    images[[50, 51]] = images[50]
    outliers = found(images, labels)
    assert [outlier.index for outlier in outliers] == [7, 14, 30, 62]
    assert outliers[0].detail == "4 copies in 3 classes"


def test_copies_with_one_wrong_label_are_none(photographs):
    images, labels = photographs
    images[[3, 6, 9, 10]] = images[3]
    assert labels[[3, 6, 9, 10]].tolist() == [0, 0, 0, 1]
    assert found(images, labels) == []


def test_a_repeated_photograph_is_one_if_networks_that_have_not_seen_it_do_not_believe_its_label(photographs):
    images, labels = photographs
    places = [0, 3, 6, 9, 12]
    images[places] = images[0]
    probability = np.full(90, 0.9)
    assert found(images, labels, probability) == []
    probability[places] = 0.05
    outliers = found(images, labels, probability)
    assert [outlier.index for outlier in outliers] == places
    assert outliers[0].detail == "5 copies in 1 class, unlike it to networks that have not seen them"


def test_among_drawings_the_background_tells():
    """Digits are drawn themselves: dark grounds with light strokes. A grey picture with text is none of them."""
    random = np.random.default_rng(0)
    images = np.zeros((60, 28, 28, 1), np.uint8)
    for image in images:
        top, left = random.integers(4, 12, 2)
        image[top : top + 12, left : left + 4] = random.integers(130, 256, (12, 4, 1))
    labels = np.arange(60) % 3
    assert found(images, labels) == []
    picture = Image.fromarray(drawn("grey box")).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    images[17, ..., 0] = np.asarray(picture)
    (only,) = found(images, labels)
    assert only.index == 17


def test_a_set_with_many_drawings_has_placeholders_only_among_the_copies(photographs):
    """Ten logos on plain grounds of any colour are as usual as the photographs; one of them is repeated."""
    images, labels = photographs
    random = np.random.default_rng(1)
    for place in range(20, 30):
        images[place] = random.integers(0, 256, 3)
        images[place, 8:20, 10:22] = random.integers(0, 256, 3)
    assert found(images, labels) == []
    images[[60, 70]] = images[20]
    assert [outlier.index for outlier in found(images, labels)] == [20, 60, 70]


def test_tiny_images_are_not_judged_by_their_colours():
    images = np.zeros((30, 8, 8, 1), np.uint8)
    images[:, 2:6, 2:6] = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1))
    images[5] = 120
    images[5, 3] = 40
    assert found(images, np.arange(30) % 3) == []
