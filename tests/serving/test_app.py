"""What the API says of the model, of itself and of its load; the page's files."""

import asyncio
import os
import subprocess
import sys

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from foveola.errors import ModelError, OutputError
from foveola.serving.app import create_app
from foveola.serving.refusals import Busy
from foveola.serving.settings import Settings
from foveola.serving.threads import ThreadPool

INFER = {"inputs": [{"name": "images", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64}]}


def samples(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_the_model_is_described(client, model):
    described = client.get("/model").json()
    metadata = model.metadata
    assert described["class_names"] == list(metadata.class_names)
    assert described["image_shape"] == list(metadata.image_shape)
    assert described["statistics"] == metadata.statistics.model_dump()
    assert described["data"] == {"name": "toy", "fingerprint": metadata.data.fingerprint, "licence": None}
    assert [(layer["name"], tuple(layer["shape"])) for layer in described["layers"]] == [
        (layer.name, layer.shape) for layer in model.layers
    ]
    assert set(described["fixes"]) == {"grey", "invert", "contrast", "crop", "center"}
    assert described["limits"] == {"body_bytes": 16 * 2**20, "pixels": 16_000_000}
    assert (described["reject"], described["collect"], described["name"]) == (None, False, "model")


def test_without_statistics_only_some_fixes_are_offered(model, serve, encoded, images):
    class Plain:
        metadata = model.metadata.model_copy(update={"statistics": None, "data": None})
        layers, class_names, predict_logits = model.layers, model.class_names, model.predict_logits

    client = serve(Plain())
    described = client.get("/model").json()
    assert set(described["fixes"]) == {"grey", "invert"}
    assert described["data"] is None
    assert "Use only grey and invert" in client.post("/predict?fix=crop", content=encoded(images[0])).json()["error"]


def test_addresses_and_methods_that_there_are_not(client):
    for path in ("/nothing", "/model/", "/docs", "/redoc", "/page/", "/v2/", "/v2/models", "/predict/x"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    answer = client.get("/predict")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert client.delete("/model").status_code == 405


# The page


def test_the_page_and_its_files(client):
    page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!DOCTYPE html>")
    script = client.get("/page/backend.js")
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "uses the server's REST API" in script.text
    assert client.get("/page/server.js").status_code == 404
    assert client.get("/page/style.css").headers["Content-Type"] == "text/css; charset=utf-8"
    assert client.head("/").headers["Content-Length"] == page.headers["Content-Length"]


def test_an_unchanged_file_is_not_sent_again(client):
    first = client.get("/page/style.css")
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get("/page/style.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/style.css", headers={"If-None-Match": '"other"'}).status_code == 200


# What is measured


def test_requests_batches_and_findings_are_counted(serve, images, encoded):
    client = serve()
    client.post("/predict", content=encoded(images[0]))
    client.post("/predict", content=encoded(255 - images[0]))
    client.post("/predict", content=b"")
    client.get("/nothing/at/all")
    found = samples(client)
    assert found["foveola_requests_total", "/predict", "200", "POST"] == 2
    assert found["foveola_requests_total", "/predict", "422", "POST"] == 1
    assert found["foveola_requests_total", "404", "GET", "none"] == 1
    assert found["foveola_request_seconds_count", "/predict"] == 3
    assert found["foveola_batch_images_sum",] == 2
    assert found["foveola_findings_total", "polarity"] == 1
    assert found["foveola_queue_images",] == 0
    assert not any("at" in name for labels in found for name in labels[1:] if name.startswith("/nothing"))


def test_two_apps_count_for_themselves(serve):
    one, two = serve(), serve()
    one.get("/model")
    assert ("foveola_requests_total", "/model", "200", "GET") in samples(one)
    assert ("foveola_requests_total", "/model", "200", "GET") not in samples(two)


def test_workers_count_together(tmp_path):
    code = (
        "from foveola.serving.metrics import Metrics\n"
        "metrics = Metrics()\n"
        "metrics.request('/predict', 'POST', 200, 0.1)\n"
        "metrics.queued(3)\n"
        "print(metrics.response().body.decode())"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for count in (1, 2, 3):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert f'foveola_requests_total{{method="POST",route="/predict",status="200"}} {count}.0' in done.stdout


# Under load and at fault


def test_a_full_thread_pool_rejects_further_work():
    async def run():
        pool = ThreadPool("waiting", 1, 1)
        started, go_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def work(number):
            loop.call_soon_threadsafe(started.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
            return number

        first, second = (asyncio.create_task(pool.run(work, number)) for number in (1, 2))
        await started.wait()
        with pytest.raises(Busy, match="wait for waiting"):
            await pool.run(work, 3)
        go_on.set()
        assert await asyncio.gather(first, second) == [1, 2]
        assert await pool.run(work, 4) == 4
        pool.close()

    asyncio.run(run())


class Faulty:
    """A model of which something is broken."""

    def __init__(self, model, error):
        self.metadata, self.layers, self.class_names = model.metadata, model.layers, model.class_names
        self.error = error

    def predict_logits(self, images):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("secret"), ModelError("secret"), MemoryError()])
def test_a_broken_model_is_no_fault_of_the_client(model, serve, encoded, images, error):
    client = serve(Faulty(model, error))
    content = encoded(images[0])
    for answer in (
        client.post("/predict", content=content),
        client.post("/look", content=content),
        client.post("/v2/models/model/infer", json=INFER),
    ):
        assert answer.status_code == 500
        assert "secret" not in answer.text
    assert client.get("/v2/health/live").status_code == 200


def test_a_full_queue_says_when_to_come_back(model, serve, encoded, images, monkeypatch):
    client = serve(Faulty(model, Busy("256 images wait already.")))
    for answer in (
        client.post("/predict", content=encoded(images[0])),
        client.post("/v2/models/model/infer", json=INFER),
    ):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "256 images wait" in answer.json()["error"]


def test_an_answer_does_not_depend_on_its_neighbours(client, model, images):
    together = np.array(client.post("/predict?findings=false", json=images.tolist()).json()["predictions"])
    alone = [client.post("/predict?findings=false", json=[image.tolist()]).json()["predictions"][0] for image in images]
    assert alone == list(together)


def test_importing_the_app_brings_nothing_that_trains():
    heavy = {"torch", "sklearn", "scipy", "matplotlib", "onnx"}
    code = f"import sys, foveola.serving.app\nprint(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_app_cannot_be_made_where_nothing_can_be_collected(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        create_app(model, Settings(collect=tmp_path / "file"))
