"""The comparison of an export with its model finds every disagreement that matters."""

import numpy as np
import pytest

from foveola.errors import ExportError
from foveola.export.parity import BATCH_SIZES, IMAGES, compare

# The numbers 0 to 199 as images of 2×2
PICTURES = np.arange(200, dtype=np.uint8).repeat(4).reshape(200, 2, 2, 1)


class Table:
    """A predictor whose logits are a function of the image's number and of the size of the batch."""

    class_names = ("a", "b", "c")

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


def test_agreement_is_measured():
    export = Table(lambda number, size: np.add(plain(number, size), [0, 5e-4 if number == 17 else 1e-5, 0]))
    parity = compare(Table(plain), export, PICTURES)
    assert parity.largest_difference == pytest.approx(5e-4, rel=0.01)
    assert (parity.images, parity.batch_sizes) == (IMAGES, BATCH_SIZES)
    assert IMAGES >= 1000
    assert {1, 2, 7, 64} <= export.sizes


@pytest.mark.parametrize("count", [1, 3, 200])
def test_few_images_are_all_used(count):
    export = Table(plain)
    compare(Table(plain), export, PICTURES[:count])
    assert export.seen == set(range(count))


def test_of_many_images_some_of_all_places_are_used():
    many = PICTURES.repeat(20, axis=0)
    export = Table(plain)
    compare(Table(plain), export, many)
    assert export.seen == set(range(200))


def test_a_difference_names_the_worst_image_and_both_logits():
    off = {40: 0.002, 41: 0.25, 42: 0.01}
    export = Table(lambda number, size: np.add(plain(number, size), [0, 0, off.get(number, 0)]))
    with pytest.raises(ExportError) as refused:
        compare(Table(plain), export, PICTURES)
    for part in ("image 41:", "[4.1000, -1.5000, 24.1429]", "[4.1000, -1.5000, 24.3929]"):
        assert part in str(refused.value)


@pytest.mark.parametrize("size", [*BATCH_SIZES, 1000 % 7, 1000 % 64])
def test_a_difference_in_batches_of_one_size_is_found(size):
    export = Table(lambda number, batch: np.add(plain(number, batch), 0.01 if batch == size else 0))
    with pytest.raises(ExportError):
        compare(Table(plain), export, PICTURES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [False, True])
def test_what_is_not_finite_never_agrees(value, both):
    def strange(number, size):
        return [value, 0, 0] if number == 5 else plain(number, size)

    with pytest.raises(ExportError, match="image 5:"):
        compare(Table(strange if both else plain), Table(strange), PICTURES)


def nearly_tied(lead):
    return lambda number, size: [1 + lead, 1, 0] if number == 8 else plain(number, size)


def test_ties_may_fall_either_way():
    compare(Table(nearly_tied(0.0008)), Table(nearly_tied(-0.0001)), PICTURES)


def test_the_most_probable_class_is_the_same_beyond_ties():
    def other(number, size):
        return [1.0006, 1.0009, 0] if number == 8 else plain(number, size)

    with pytest.raises(ExportError, match="image 8:"):
        compare(Table(nearly_tied(0.0015)), Table(other), PICTURES)
