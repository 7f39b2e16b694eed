"""Arrays as people have them: what is taken, and whether the cures in messages cure."""

import re

import numpy as np
import pytest

from foveola.arrays import shape_cure, to_labels, to_pixels
from foveola.errors import DataError
from foveola.images import check_images

PICTURES = np.random.default_rng(0).integers(0, 256, (100, 28, 28, 3), dtype=np.uint8)
GREY = PICTURES[..., :1]


def cured(array):
    """What the first expression of the message makes of the array."""
    with pytest.raises(DataError) as refusal:
        check_images(array)
    expression = re.search(r"(images(\[|\.(?=reshape|transpose)).*?)(?=\.$|\. |; |, or, )", str(refusal.value))[1]
    images = eval(expression, {"images": array})  # noqa: S307
    check_images(images)
    return images


@pytest.mark.parametrize(
    ("array", "images"),
    [
        (PICTURES.transpose(0, 3, 1, 2), PICTURES),
        (GREY.transpose(0, 3, 1, 2), GREY),
        (PICTURES.transpose(1, 2, 3, 0), PICTURES),
        (PICTURES.transpose(3, 1, 2, 0), PICTURES),
        (GREY[..., 0], GREY),
        (np.concatenate([PICTURES, GREY], axis=3), PICTURES),
        (np.concatenate([GREY, GREY], axis=3), GREY),
        (GREY.reshape(100, 784), GREY),
        (GREY.reshape(100, 784, 1), GREY),
        (PICTURES.reshape(100, -1), PICTURES),
        (np.concatenate([np.zeros((100, 1), np.uint8), GREY.reshape(100, 784)], axis=1), GREY),
        (PICTURES[0], PICTURES[:1]),
        (GREY[0], GREY[:1]),
        (GREY[0, ..., 0], GREY[:1]),
        (GREY[0, :20, :, 0], GREY[:1, :20]),
        (PICTURES[0].transpose(2, 0, 1), PICTURES[:1]),
        (np.concatenate([PICTURES[0], GREY[0]], axis=2), PICTURES[:1]),
    ],
)
def test_the_cure_of_a_shape_gives_the_images(array, images):
    np.testing.assert_array_equal(cured(array), images)


def test_rows_that_may_be_one_image_have_both_cures():
    assert "images[None, ..., None]" in shape_cure((720, 1024))
    assert "images.reshape(-1, 32, 32, 1)" in shape_cure((720, 1024))
    assert "reshape" not in shape_cure((1080, 1920)) + shape_cure((28, 28)) + shape_cure((64, 64))
    assert "None" not in shape_cure((60_000, 784)) + shape_cure((1, 784))


@pytest.mark.parametrize("shape", [(), (5,), (2, 2, 2, 2, 2), (0, 4), (0, 0, 0), (2, 4, 4, 5)])
def test_every_shape_has_a_sentence(shape):
    assert shape_cure(shape).endswith(".")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0.0, 0.5], [0.999, 1]]), [[0, 128], [255, 255]]),
        (np.array([[0.0, 255.0]], np.float16), [[0, 255]]),
        (np.array([[0, 200]], np.int64), [[0, 200]]),
        (np.array([[False, True]]), [[0, 255]]),
        (np.float64(0.2), 51),
    ],
)
def test_values_whose_meaning_is_plain_are_taken(array, expected):
    pixels = to_pixels(np.asarray(array))
    assert (pixels.dtype, pixels.tolist()) == (np.uint8, expected)


@pytest.mark.parametrize(
    ("array", "pixels"),
    [
        (np.array([-1.0, 0, 1]), [0, 128, 255]),
        (np.array([0, 2048, 4095]), [0, 128, 255]),
        (np.array([0, 32768, 65535], np.uint16), [0, 128, 255]),
        (np.array([0.4, 254.6]), [0, 255]),
    ],
)
def test_the_cure_of_values_gives_pixels(array, pixels):
    with pytest.raises(DataError) as refusal:
        to_pixels(array)
    expression = re.search(r"(?:save|rounded:) (.*)\.$", str(refusal.value))[1]
    assert eval(expression, {"images": array}).tolist() == pixels  # noqa: S307


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(3), r"one-hot, 3×3.*argmax\(axis=1\)"),
        (np.array([[1, 1, 0], [0, 0, 0]]), r"several labels an image.*all in one form"),
        (np.array([[1, 0, 0], [0, 0, 0]]), "with 0 to 1 ones a row"),
        (np.array([[0.2, 0.8]]), "probabilities"),
        (np.array([[3, 4]]), "shape 1×2"),
        (np.array(["a", None], object), "not object"),
        (np.array([1 + 2j]), "not complex128"),
        (np.array([1e300]), "these hold 1e"),
        (np.array([np.inf]), "these hold inf"),
    ],
)
def test_labels_that_are_no_classes_are_named(array, message):
    with pytest.raises(DataError, match=message):
        to_labels(array)
