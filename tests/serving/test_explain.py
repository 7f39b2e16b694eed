"""POST /look: the model's own maps, and occlusion, for the picture that was sent."""

import numpy as np
import pytest

from foveola.explanation.occlusion import occlusion
from foveola.serving.refusals import Busy
from foveola.serving.threads import ThreadPool


def unscaled(document, values):
    return document["low"] + values / 255 * (document["high"] - document["low"])


def test_maps_and_saliency_are_the_models_own(client, model, images, encoded, decoded):
    found = client.post("/look?class=middle", content=encoded(images[0])).json()
    assert found["class"] == "middle"
    np.testing.assert_array_equal(decoded(found["seen"]), images[0])
    expected = model.feature_maps(images[:1])
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in model.layers]
    for layer in found["layers"]:
        maps = expected[layer["name"]][0]
        assert layer["shape"] == list(maps.shape)
        step = (layer["high"] - layer["low"]) / 255
        np.testing.assert_allclose(unscaled(layer, decoded(layer)), maps, atol=0.51 * step + 1e-5)
    drops = occlusion(model, model.metadata.polarity, images[:1], np.array([1]))[0]
    step = (found["saliency"]["high"] - found["saliency"]["low"]) / 255
    np.testing.assert_allclose(unscaled(found["saliency"], decoded(found["saliency"])), drops, atol=0.51 * step + 1e-5)


def test_by_default_the_predicted_class_is_explained(client, images, encoded):
    assert client.post("/look", content=encoded(images[25])).json()["class"] == "middle"


def test_fixes_come_first(client, images, encoded, decoded):
    found = client.post("/look?fix=auto", content=encoded(255 - images[0])).json()
    assert found["class"] == "left"
    np.testing.assert_array_equal(decoded(found["seen"]), images[0])


def test_a_layer_that_gives_nothing_is_all_zeros(client, encoded, decoded):
    found = client.post("/look", content=encoded(np.zeros((8, 8, 1), np.uint8))).json()
    for layer in [*found["layers"], found["saliency"]]:
        if layer["low"] == layer["high"]:
            assert not decoded(layer).any()
    assert found["saliency"]["low"] == found["saliency"]["high"]  # covering black with black changes nothing


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?class=midle", "Unknown class 'midle'. Did you mean 'middle'?"),
        ("?klass=middle", "Unknown parameter 'klass'. Did you mean 'class'?"),
        ("?fix=nothing", "Unknown fix 'nothing'"),
    ],
)
def test_wrong_questions(client, images, encoded, query, reason):
    answer = client.post(f"/look{query}", content=encoded(images[0]))
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_only_one_image_file_is_looked_at(client, images):
    answer = client.post("/look", json=images[0].tolist())
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]


def test_a_full_queue_rejects_further_requests(serve, images, encoded, monkeypatch):
    async def run(self, work, *arguments):
        raise Busy("Too many requests wait for looking already.")

    monkeypatch.setattr(ThreadPool, "run", run)
    answer = serve().post("/look", content=encoded(images[0]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "wait for looking" in answer.json()["error"]
