"""Parity: every difference between an export and its model that matters is found."""

import numpy as np
import pytest

from foveola.errors import ExportError
from foveola.exports.parity import BATCH_SIZES, IMAGES, _count_images, check_parity
from foveola.models.metadata import ModelMetadata
from foveola.recipe import load_recipe

# The numbers 0 to 199 as images of 2×2
NUMBERED_IMAGES = np.arange(200, dtype=np.uint8).repeat(4).reshape(200, 2, 2, 1)


class FakePredictor:
    """A predictor whose logits are a function of the image's number and of the batch size."""

    class_names = ("a", "b", "c")

    metadata = ModelMetadata(class_names=("a", "b"), image_shape=(1, 1, 1))

    def __init__(self, logits_of):
        self.logits_of = logits_of
        self.seen, self.sizes = set(), set()

    def predict_logits(self, images):
        numbers = images[:, 0, 0, 0].astype(int)
        self.seen |= set(numbers)
        self.sizes.add(len(images))
        return np.array([self.logits_of(number, len(images)) for number in numbers], np.float32)


def plain(number, size):
    return [number / 10, -1.5, 30 - number / 7]


def test_the_largest_difference_is_measured():
    export = FakePredictor(lambda number, size: np.add(plain(number, size), [0, 5e-4 if number == 17 else 1e-5, 0]))
    parity = check_parity(FakePredictor(plain), export, NUMBERED_IMAGES)
    assert parity.largest_difference == pytest.approx(5e-4, rel=0.01)
    assert (parity.images, parity.batch_sizes) == (IMAGES, BATCH_SIZES)
    assert IMAGES >= 1000
    assert {1, 2, 7, 64} <= export.sizes


@pytest.mark.parametrize("count", [1, 3, 200])
def test_all_of_few_images_are_used(count):
    export = FakePredictor(plain)
    check_parity(FakePredictor(plain), export, NUMBERED_IMAGES[:count])
    assert export.seen == set(range(count))


def test_many_images_are_sampled_evenly():
    many = NUMBERED_IMAGES.repeat(20, axis=0)
    export = FakePredictor(plain)
    check_parity(FakePredictor(plain), export, many)
    assert export.seen == set(range(200))


def test_the_message_names_the_worst_image_and_both_logits():
    off = {40: 0.002, 41: 0.25, 42: 0.01}
    export = FakePredictor(lambda number, size: np.add(plain(number, size), [0, 0, off.get(number, 0)]))
    with pytest.raises(ExportError) as refused:
        check_parity(FakePredictor(plain), export, NUMBERED_IMAGES)
    for fragment in ("image 41:", "[4.1000, -1.5000, 24.1429]", "[4.1000, -1.5000, 24.3929]"):
        assert fragment in str(refused.value)


@pytest.mark.parametrize("size", [*BATCH_SIZES, 1000 % 7, 1000 % 64])
def test_a_difference_at_one_batch_size_is_found(size):
    export = FakePredictor(lambda number, batch: np.add(plain(number, batch), 0.01 if batch == size else 0))
    with pytest.raises(ExportError):
        check_parity(FakePredictor(plain), export, NUMBERED_IMAGES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [False, True])
def test_logits_that_are_not_finite_never_agree(value, both):
    def not_finite(number, size):
        return [value, 0, 0] if number == 5 else plain(number, size)

    with pytest.raises(ExportError, match="image 5:"):
        check_parity(FakePredictor(not_finite if both else plain), FakePredictor(not_finite), NUMBERED_IMAGES)


def nearly_tied(lead):
    return lambda number, size: [1 + lead, 1, 0] if number == 8 else plain(number, size)


def test_the_predicted_class_may_differ_in_a_tie():
    check_parity(FakePredictor(nearly_tied(0.0008)), FakePredictor(nearly_tied(-0.0001)), NUMBERED_IMAGES)


def test_the_predicted_class_may_not_differ_beyond_a_tie():
    def other(number, size):
        return [1.0006, 1.0009, 0] if number == 8 else plain(number, size)

    with pytest.raises(ExportError, match="image 8:"):
        check_parity(FakePredictor(nearly_tied(0.0015)), FakePredictor(other), NUMBERED_IMAGES)


def test_large_networks_are_compared_on_fewer_images():
    def count(recipe, side):
        layers = load_recipe(recipe).layers
        metadata = ModelMetadata(class_names=("a", "b"), image_shape=(side, side, 3), layers=layers)
        return _count_images(FakePredictor(plain), metadata)

    assert count("fast", 28) == IMAGES
    assert max(BATCH_SIZES) < count("efficientnet-lite0", 224) < 200
    assert count("resnet18", 224) == max(BATCH_SIZES)


@pytest.mark.parametrize(("multiply_adds", "expected"), [(0, IMAGES), (10**6, IMAGES), (10**12, max(BATCH_SIZES))])
def test_the_graph_of_an_own_network_says_what_it_computes(multiply_adds, expected):
    export = FakePredictor(plain)
    export.multiply_adds = multiply_adds
    assert _count_images(export, ModelMetadata(class_names=("a", "b"), image_shape=(8, 8, 1))) == expected
