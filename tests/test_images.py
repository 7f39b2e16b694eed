"""ImageSet and Dataset: validation, splits, fingerprints."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from foveola.errors import DataError
from foveola.images import Dataset, ImageSet


def random_images(counts=(6, 9, 5), shape=(4, 3, 1), seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    images = generator.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return ImageSet(images, labels, tuple(f"class {index}" for index in range(len(counts))))


def test_size_shape_and_class_counts():
    images = random_images()
    assert len(images) == 20
    assert images.image_shape == (4, 3, 1)
    assert images.class_counts.tolist() == [6, 9, 5]
    assert images.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 4, 4, 1), 0.5 + np.arange(2)[:, None, None, None]), r"images.round\(\)"),
        ([[1]], "list"),
        (np.zeros((2, 4, 4), np.uint8), r"2×4×4\..*with transparency"),
        (np.zeros((2, 4, 4, 2), np.uint8), r"2×4×4×2.*\[..., :1\]"),
        (np.zeros((2, 4, 4, 4), np.uint8), r"2×4×4×4.*\[..., :3\]"),
        (np.zeros((0, 4, 4, 1), np.uint8), "no images"),
        (np.zeros((2, 0, 4, 1), np.uint8), "no images"),
    ],
)
def test_invalid_images_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        ImageSet(images, np.array([0, 1]), ("a", "b"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], "whole numbers or names of classes; these hold 0.5"),
        ([[0, 1], [1, 0]], r"argmax\(axis=1\)"),
        (["a", "c"], "Labels 'c' are not among the class names"),
        ([0, 1, 1], "2 images but 3 labels"),
        ([0], "2 images but 1 labels"),
        ([0, 2], "from 0 to 2"),
        ([-1, 0], "from -1 to 0"),
    ],
)
def test_invalid_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        ImageSet(np.zeros((2, 4, 4, 1), np.uint8), np.array(labels), ("a", "b"))


@pytest.mark.parametrize(
    "labels", [np.array(["a", "b"]), np.array([b"a", b"b"]), np.array([0.0, 1.0]), np.array([[0], [1]]), [False, True]]
)
def test_labels_in_other_forms_are_taken(labels):
    images = ImageSet(np.zeros((2, 4, 4, 1), np.uint8), labels, ("a", "b"))
    assert (images.labels.tolist(), images.labels.dtype) == ([0, 1], np.int64)


def test_floats_from_0_to_1_are_scaled():
    images = ImageSet(np.array([0.0, 0.2, 0.5, 1.0]).reshape(2, 2, 1, 1), np.array([0, 1]), ("a", "b"))
    assert images.images.ravel().tolist() == [0, 51, 128, 255]


def test_class_names_that_are_not_utf_8_are_escaped():
    names = ("caf\udce9", "b\ud800")
    images = ImageSet(np.zeros((2, 4, 4, 1), np.uint8), np.array(names), names)
    assert (images.class_names, images.labels.tolist()) == ((r"caf\xe9", r"b\ud800"), [0, 1])


def test_class_names_must_be_unique():
    with pytest.raises(DataError, match="a, a"):
        ImageSet(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), ("a", "a"))


def test_take_keeps_the_order_given():
    images = random_images()
    taken = images.take([3, 0, 3])
    np.testing.assert_array_equal(taken.images, images.images[[3, 0, 3]])
    np.testing.assert_array_equal(taken.labels, images.labels[[3, 0, 3]])


def test_split_is_stratified():
    rest, held_out = random_images((6, 9, 5)).split(0.33, seed=1)
    assert held_out.class_counts.tolist() == [2, 3, 2]
    assert rest.class_counts.tolist() == [4, 6, 3]


def test_split_leaves_every_class_in_both_parts():
    rest, held_out = random_images((2, 100)).split(0.01, seed=0)
    assert held_out.class_counts.tolist() == [1, 1]
    rest, held_out = random_images((2, 100)).split(0.99, seed=0)
    assert rest.class_counts.tolist() == [1, 1]


def test_split_matches_the_numbers_of_the_kmnist_tutorial():
    labels = np.tile(np.arange(10), 6000)
    images = ImageSet(np.zeros((60_000, 1, 1, 1), np.uint8), labels, tuple("0123456789"))
    rest, held_out = images.split(0.2, seed=0)
    assert (len(rest), len(held_out)) == (48_000, 12_000)
    assert held_out.class_counts.tolist() == [1200] * 10


def test_split_parts_are_disjoint_complete_and_in_order():
    numbers = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    images = ImageSet(numbers, np.arange(200) % 4, tuple("abcd"))
    rest, held_out = (part.images.ravel().tolist() for part in images.split(0.25, seed=3))
    assert sorted(rest + held_out) == list(range(200))
    assert rest == sorted(rest)
    assert held_out == sorted(held_out)


def test_split_depends_only_on_the_seed():
    images = random_images((50, 50))
    first, again, other = (images.split(0.2, seed)[1].fingerprint for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_split_ignores_classes_without_images():
    images = ImageSet(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 0, 2, 2]), ("a", "b", "c"))
    assert images.split(0.5, 0)[1].class_counts.tolist() == [1, 0, 1]


def test_split_refuses_a_class_with_one_image():
    with pytest.raises(DataError, match="'class 1' has a single image"):
        random_images((5, 1)).split(0.2, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, float("nan")])
def test_split_refuses_a_fraction_outside_0_and_1(fraction):
    with pytest.raises(DataError, match="between 0 and 1"):
        random_images().split(fraction, 0)


def test_fingerprint_depends_on_pixels_labels_class_names_and_shape():
    images = random_images()
    assert images.fingerprint == random_images().fingerprint
    pixels = images.images.copy()
    pixels[0, 0, 0, 0] ^= 1
    labels = images.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    others = [
        ImageSet(pixels, images.labels, images.class_names),
        ImageSet(images.images, labels, images.class_names),
        ImageSet(images.images, images.labels, ("x", *images.class_names[1:])),
        ImageSet(images.images.reshape(20, 3, 4, 1), images.labels, images.class_names),
    ]
    assert len({images.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_fingerprint_is_independent_of_the_memory_layout():
    images = random_images()
    fortran_order = np.asfortranarray(images.images)
    assert ImageSet(fortran_order, images.labels, images.class_names).fingerprint == images.fingerprint
    assert ImageSet(images.images, images.labels.astype(np.uint8), images.class_names).fingerprint == images.fingerprint


def test_dataset_refuses_splits_that_do_not_match():
    train = random_images()
    with pytest.raises(DataError, match="different classes"):
        Dataset("x", train, test=replace(train, class_names=("a", "b", "c")))
    with pytest.raises(DataError, match="4×3×1 and 3×4×1"):
        Dataset("x", train, validation=random_images(shape=(3, 4, 1)))


def test_nothing_is_trained_on_empty_classes_or_a_single_class():
    pixels = np.zeros((4, 1, 1, 1), np.uint8)
    with pytest.raises(DataError, match="no training image of 'b'"):
        Dataset("x", ImageSet(pixels, np.array([0, 0, 2, 2]), ("a", "b", "c"))).check_trainable()
    with pytest.raises(DataError, match="images of 1 class"):
        Dataset("x", ImageSet(pixels, np.zeros(4, int), ("a",))).check_trainable()


def test_dataset_fingerprint_depends_on_every_split():
    train, other = random_images(), random_images(seed=1)
    fingerprints = {
        Dataset("x", train, *splits).fingerprint for splits in [(), (other,), (None, other), (other, other)]
    }
    assert len(fingerprints) == 4
    assert Dataset("x", train).fingerprint == Dataset("y", train).fingerprint


# Weights


def weighted_images():
    images = random_images()
    return replace(images, weights=np.arange(20) / 4)


def test_weights_go_with_their_images():
    images = weighted_images()
    assert images.weights.dtype == np.float64
    assert images.take([3, 0, 2]).weights.tolist() == [0.75, 0.0, 0.5]
    assert images.take([0]).weights.tolist() == [0.0]  # to be looked at
    rest, held_out = images.split(0.3, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest.weights, held_out.weights])), np.arange(20) / 4)


def fingerprint_before_there_were_weights(images):
    content = repr((images.images.shape, images.class_names)).encode() + images.images.tobytes()
    return hashlib.sha256(content + images.labels.astype("<i8").tobytes()).hexdigest()


def test_only_weights_that_are_there_change_the_fingerprint():
    plain, weighted = random_images(), weighted_images()
    assert plain.fingerprint == fingerprint_before_there_were_weights(plain)
    ones = replace(plain, weights=np.ones(20, np.float32))
    assert ones.fingerprint not in (plain.fingerprint, weighted.fingerprint)
    assert ones.fingerprint == replace(plain, weights=np.ones(20, np.int64)).fingerprint


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(19), r"20 in all, not float64 of shape 19"),
        (np.ones((20, 1)), r"one number an image, 20 in all"),
        (np.array(["1"] * 20), r"not <U1"),
        (np.r_[np.ones(18), -1, np.nan], r"that of image 18 is -1\.0.*\(2 in all\)"),
        (np.r_[np.ones(19), np.inf], r"that of image 19 is inf"),
        (np.zeros(20), r"All weights are 0"),
    ],
)
def test_other_weights_are_refused(weights, message):
    with pytest.raises(DataError, match=message):
        replace(random_images(), weights=weights)
