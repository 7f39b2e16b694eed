"""A model of several labels an image: predictions over HTTP, the inference protocol, the page in a browser."""

import numpy as np
import pytest

from foveola.errors import OutputError
from foveola.exports import onnx
from foveola.tasks import sigmoid
from foveola.workflow.export import export


@pytest.fixture(scope="module")
def labels_path(bars_run, tmp_path_factory):
    return export(bars_run.path, out=tmp_path_factory.mktemp("labels") / "bars.onnx", verbose=False).path


@pytest.fixture(scope="module")
def labels_model(labels_path):
    return onnx.open(labels_path, threads=1)


@pytest.fixture
def several(make_bars):
    """Images with no, one and several labels."""
    images = make_bars(60, 5)
    chosen = [np.flatnonzero(images.labels.sum(axis=1) == count)[0] for count in range(4)]
    return images.take(chosen)


def test_every_label_has_a_probability_and_those_above_their_thresholds_are_given(
    serve, labels_model, several, encoded
):
    client, metadata = serve(labels_model), labels_model.metadata
    probabilities = sigmoid(labels_model.predict_logits(several.images))
    for image, row, labels in zip(several.images, probabilities, several.labels, strict=True):
        (document,) = client.post("/predict?top=3", content=encoded(image)).json()["predictions"]
        expected = [name for name, p, t in zip(metadata.class_names, row, metadata.thresholds, strict=True) if p >= t]
        assert set(document["labels"]) == set(expected)
        assert set(expected) == {name for name, has in zip(metadata.class_names, labels, strict=True) if has}
        assert {one["class"]: one["probability"] for one in document["top"]} == pytest.approx(
            dict(zip(metadata.class_names, row, strict=True)), abs=1e-6
        )
    assert (client.get("/model").json()["task"], client.get("/model").json()["thresholds"]) == (
        "multilabel", list(metadata.thresholds),
    )  # fmt: skip


def test_the_inference_protocol_gives_probabilities_of_labels(serve, labels_model, several):
    client = serve(labels_model)
    tensor = {"name": "images", "shape": list(several.images.shape), "datatype": "UINT8"}
    body = {"inputs": [tensor | {"data": several.images.ravel().tolist()}]}
    name = client.get("/model").json()["name"]
    outputs = {one["name"]: one["data"] for one in client.post(f"/v2/models/{name}/infer", json=body).json()["outputs"]}
    logits = labels_model.predict_logits(several.images)
    assert outputs["logits"] == pytest.approx(logits.ravel().tolist(), abs=1e-5)
    assert outputs["probabilities"] == pytest.approx(sigmoid(logits).ravel().tolist(), abs=1e-6)


def test_an_explanation_is_that_of_a_label(serve, labels_model, several, encoded):
    document = serve(labels_model).post("/look?class=right", content=encoded(several.images[3])).json()
    assert document["class"] == "right"
    assert 0 < document["saliency"]["high"] <= 1


def test_models_of_one_class_an_image_give_no_labels(serve, model, images, encoded):
    (document,) = serve(model).post("/predict", content=encoded(images[0])).json()["predictions"]
    assert "labels" not in document


def test_images_are_not_collected_by_class(serve, labels_model, tmp_path):
    with pytest.raises(OutputError, match="any number of labels an image"):
        serve(labels_model, collect=tmp_path)


def test_the_page_shows_every_label_that_is_given(browser, start, labels_path, several, encoded, tmp_path):
    from selenium.webdriver.support.wait import WebDriverWait

    (tmp_path / "all.png").write_bytes(encoded(several.images[3]))
    server = start(labels_path)
    browser.get(server.address)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda _: browser.find_element("id", "bench").is_displayed())
    assert "3 labels, any number an image" in browser.find_element("id", "model").text
    browser.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "all.png"))
    wait.until(lambda _: len(browser.find_elements("css selector", "#answer b")) == 3)
    assert {one.text for one in browser.find_elements("css selector", "#answer b")} == {"left", "middle", "right"}
    assert len(browser.find_elements("css selector", "#probabilities tr.first")) == 3
