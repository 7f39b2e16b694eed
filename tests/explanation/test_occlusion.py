"""Occlusion of any model agrees with a plain loop."""

from dataclasses import dataclass

import numpy as np
import pytest

import foveola
from foveola.errors import DataError
from foveola.explanation.occlusion import occlusion
from foveola.models.metadata import ModelMetadata
from foveola.tasks import softmax
from foveola.workflow.export import export

CLASSES = np.array([2, 0, 1])


@dataclass
class Linear:
    """A predictor whose logits are pixels, 0 to 1, times weights, H×W×C×3."""

    weights: np.ndarray
    class_names = ("a", "b", "c")
    metadata = ModelMetadata(class_names=("a", "b", "c"), image_shape=(8, 10, 1))

    def predict_logits(self, images):
        return np.tensordot(images / 255, self.weights, 3).astype(np.float32)


@pytest.fixture
def linear():
    """A linear model with random weights, for images of this size."""

    def make(height=8, width=10):
        return Linear(np.random.default_rng(1).normal(size=(height, width, 1, 3)))

    return make


@pytest.mark.parametrize(("polarity", "colour"), [("light on dark", 0), ("dark on light", 255), ("mixed", None)])
def test_a_pixel_has_the_mean_drop_over_the_squares_that_cover_it(linear, images, polarity, colour):
    model, given = linear(), images(2)
    colour = given.mean(axis=(1, 2)).round().astype(np.uint8)[:, :, None] if colour is None else [colour] * 2
    result = occlusion(model, polarity, given, CLASSES[:2], size=3, stride=2)
    assert (result.shape, result.dtype) == ((2, 8, 10), np.float32)
    for image, label, fill, map_ in zip(given, CLASSES, colour, result, strict=False):
        drops = [[[] for _ in range(10)] for _ in range(8)]
        for top in (0, 2, 4, 5):
            for left in (0, 2, 4, 6, 7):
                covered = image.copy()
                covered[top : top + 3, left : left + 3] = fill
                before, after = softmax(model.predict_logits(np.stack([image, covered])))[:, label]
                for row, column in np.ndindex(3, 3):
                    drops[top + row][left + column].append(before - after)
        np.testing.assert_allclose(map_, [[np.mean(cell) for cell in row] for row in drops], atol=1e-6)


def test_the_only_decisive_pixel_is_found(images):
    weights = np.zeros((8, 10, 1, 3))
    weights[3, 7, 0, 1] = 20
    given = images(1)
    given[0, 3, 7] = 255
    (result,) = occlusion(Linear(weights), "light on dark", given, np.array([1]), size=1)
    assert np.flatnonzero(np.abs(result) > 1e-6).tolist() == [3 * 10 + 7]
    assert result[3, 7] > 0.5


def test_batches_of_squares_give_the_same_maps(linear, images, monkeypatch):
    model = linear()
    expected = occlusion(model, "mixed", images(), CLASSES, size=2, stride=1)
    monkeypatch.setattr("foveola.explanation.occlusion.BATCH", 7)
    result = occlusion(model, "mixed", images(), CLASSES, size=2, stride=1)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_by_default_the_square_is_a_seventh_of_the_image(linear, images):
    model, given = linear(28, 28), images(1, 28, 28)
    default = occlusion(model, "mixed", given, CLASSES[:1])
    np.testing.assert_array_equal(default, occlusion(model, "mixed", given, CLASSES[:1], size=4, stride=2))


def test_a_run_and_its_export_give_the_same_maps(toy_run, toy, tmp_path):
    report = export(toy_run, data=toy, out=tmp_path / "model.onnx", verbose=False)
    given, classes = toy.train.images[[0, 25, 50]], np.array([0, 1, 2])
    run, exported = (
        occlusion(model, model.metadata.polarity, given, classes)
        for model in (foveola.open(toy_run), foveola.open(report.path))
    )
    assert np.abs(run).max() > 0.01
    np.testing.assert_allclose(exported, run, atol=1e-5)


@pytest.mark.parametrize("classes", [[0, 1, 3], [-1, 0, 0], [0, 1]])
def test_classes_must_be_one_valid_index_for_each_image(linear, images, classes):
    with pytest.raises(DataError, match="each of the 3 images a class, as a number from 0 to 2"):
        occlusion(linear(), "mixed", images(), np.array(classes))


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (3, 0), (3, 4)])
def test_squares_must_cover_the_image(linear, images, size, stride):
    with pytest.raises(DataError, match="do not cover the image"):
        occlusion(linear(), "mixed", images(), CLASSES, size=size, stride=stride)
