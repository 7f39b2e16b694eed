"""Rectangles and letterboxes: training, evaluation, prediction, export and server give every image the same shape."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import foveola
from foveola.exports import onnx
from foveola.inputs.resize import CommonShape
from foveola.serving.app import create_app
from foveola.serving.settings import Settings
from foveola.tasks import softmax
from foveola.workflow.export import export

RECIPE = """
name = "small"
validation = 0.2
batch_size = 16
epochs = 3
learning_rate = 0.01
precision = "float32"
layers = [
  { type = "Conv2D", filters = 4, activation = "relu" },
  { type = "Flatten" },
  { type = "Dense", units = "classes" },
]
"""
CASES = {
    # sizes of the pictures, settings → height, width, resize
    "common aspect": ([(100, 300)], {}, (37, 111, "stretch")),
    "mixed aspects": ([(100, 300), (300, 100), (80, 90)], {}, (64, 64, "letterbox")),
    "rectangle": ([(60, 120)], {"image_size": "16x32"}, (16, 32, "stretch")),
    "rectangle of another aspect": ([(60, 120)], {"image_size": [32, 16]}, (32, 16, "letterbox")),
    "stretched": ([(100, 300), (300, 100)], {"resize": "stretch", "image_size": 24}, (24, 24, "stretch")),
    "one column": ([(200, 3), (3, 200)], {"image_size": 20}, (20, 20, "letterbox")),
    "letterbox of square pictures": ([(20, 20)], {"resize": "letterbox"}, (20, 20, "letterbox")),
}


@pytest.fixture(scope="module", params=CASES, ids=[name.replace(" ", "-") for name in CASES])
def trained(request, tmp_path_factory):
    """(pictures, run, expected shape): photographs in colour, red or blue, trained on and written as PNG files."""
    sizes, settings, expected = CASES[request.param]
    place = tmp_path_factory.mktemp("aspects")
    random = np.random.default_rng(0)
    pictures = []
    for number in range(30):
        pixels = random.integers(0, 160, (*sizes[number % len(sizes)], 3), dtype=np.uint8)
        pixels[..., 2 * (number % 2)] += 90
        path = place / "data" / ("red", "blue")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        pictures.append((path, pixels))
    (place / "small.toml").write_text(RECIPE)
    run = foveola.train(
        place / "data", place / "small.toml", out=place / "run", overrides=settings, report=False, verbose=False
    )
    return pictures, run, expected


def test_the_run_records_shape_and_resizing_and_its_recipe_repeats_them(trained, tmp_path):
    pictures, run, (height, width, resize) = trained
    metadata = foveola.open(run.path).metadata
    assert (*metadata.image_shape, metadata.resize) == (height, width, 3, resize)
    recorded = json.loads((run.path / "run.json").read_text())["recipe"]
    assert recorded["resize"] == resize
    again = foveola.train(
        pictures[0][0].parents[1], run.path / "recipe.toml", out=tmp_path / "again", report=False, verbose=False
    )
    assert again.status.data.fingerprint == run.status.data.fingerprint
    assert again.evaluation.accuracy == run.evaluation.accuracy


def test_evaluation_reads_the_data_as_training_did(trained):
    pictures, run, _ = trained
    evaluation = foveola.evaluate(run.path, pictures[0][0].parents[1], verbose=False)
    assert evaluation.n > 0  # a changed fingerprint would be refused


def test_predictions_see_the_training_images(trained):
    pictures, run, (height, width, _) = trained
    live = foveola.open(run.path)
    shape = CommonShape(height, width, live.metadata.resize, live.metadata.fill)
    predictions = foveola.predict(run.path, [path for path, _ in pictures[:6]], top=2, verbose=False)
    seen = np.stack([shape.fit(pixels) for _, pixels in pictures[:6]])
    expected = softmax(live.predict_logits(seen))
    for prediction, row in zip(predictions, expected, strict=True):
        found = dict(prediction.top)
        assert [found[name] for name in live.class_names] == pytest.approx(row)


def test_model_and_export_take_pictures_of_any_size(trained):
    pictures, run, _ = trained
    live, exported = foveola.open(run.path), onnx.open(export(run.path, verbose=False).path, threads=1)
    for _, pixels in pictures[:3]:
        for image in (pixels, pixels[::2, :5], pixels[:7, :1], pixels[:1]):
            difference = exported.predict_logits(image[None]) - live.predict_logits(image[None])
            assert np.abs(difference).max() < 1e-3, image.shape
    with TestClient(create_app(exported, Settings()), base_url="http://localhost") as client:
        model = client.get("/model").json()
        assert (model["resize"], model["fill"]) == (live.metadata.resize, live.metadata.fill)
        assert tuple(model["image_shape"]) == live.metadata.image_shape
        path, pixels = pictures[0]
        shape = CommonShape(*live.metadata.image_shape[:2], live.metadata.resize, live.metadata.fill)
        buffer = io.BytesIO(path.read_bytes())
        (found,) = client.post("/predict?top=2&seen=true", content=buffer.getvalue()).json()["predictions"]
        expected = softmax(live.predict_logits(shape.fit(pixels)[None]))[0]
        probabilities = {each["class"]: each["probability"] for each in found["top"]}
        assert [probabilities[name] for name in live.class_names] == pytest.approx(expected, abs=1e-4)


def test_explanations_have_the_shape_of_the_network_input(trained, tmp_path):
    pictures, run, _ = trained
    foveola.explain(run.path, [pictures[0][0]], out=tmp_path / "page", verbose=False)
    assert any(tmp_path.rglob("*.html"))
