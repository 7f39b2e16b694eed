"""A project over the server's routes, with real trainings: train, predict, correct, train again, export, report."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from foveola.exports import web_runtime

pytestmark = pytest.mark.slow


def picture(name, seed):
    """A colour image of 32×32 with a square (cup) or a bar (glass) somewhere, as a PNG file."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (32, 32, 3), dtype=np.uint8)
    y, x = random.integers(2, 12, 2)
    pixels[y : y + (16 if name == "cup" else 4), x : x + 16] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def teaching(folder):
    """A server in a process group of its own, with the project `things` in a folder, and its client."""
    command = [sys.executable, "-m", "foveola", "teach", "things", "--port", "0", "--json", "--no-browser"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            lines = iter(process.stdout.readline, "}\n")
            document = json.loads("".join(lines) + "}")
            with httpx.Client(base_url=document["url"], timeout=300) as client:
                yield process, client
        finally:
            if process.poll() is None:
                process.terminate()
                assert process.wait(60) == 0


@pytest.fixture
def client(tmp_path):
    with teaching(tmp_path) as (_, client):
        yield client


def add(client, name, seed, **parameters):
    headers = {"Content-Type": "image/png"}
    response = client.post(
        "/project/pictures", params={"class": name, **parameters}, content=picture(name, seed), headers=headers
    )
    assert response.status_code == 201, response.text
    return response.json()


def finished(client, path, meanwhile=lambda: None, **body):
    """The job that a request starts, once it has ended; what it has said meanwhile."""
    assert client.post(path, json=body).status_code == 202
    meanwhile()
    messages = []
    while (job := client.get("/project").json()["job"])["state"] == "running":
        messages.append(job["message"])
        time.sleep(0.05)
    return job, messages


def test_a_classifier_is_taught_tried_corrected_and_taken_away(client, tmp_path):
    for name in ("cup", "glass"):
        assert client.post("/project/classes", json={"name": name}).status_code == 200
    for seed in range(10):
        for name in ("cup", "glass"):
            add(client, name, 1000 + 2 * seed + (name == "cup"))
            add(client, name, 2000 + 2 * seed + (name == "cup"), recording=f"{name} {seed // 3}")
    job, messages = finished(client, "/project/train", seconds=10)
    assert job["state"] == "done", job
    reading = "Reading the images, and measuring how fast this machine is"
    assert {reading, "Training", "Saving the model"} <= set(messages)
    assert job["history"]
    first = client.get("/project").json()
    assert first["model"]["run"] == "things-1"
    assert 0 < first["summary"]["accuracy"]["n"] < 20
    assert "nor on others of the same recording" in first["summary"]["sentences"][0]

    body, headers = picture("cup", 5000), {"Content-Type": "image/png"}
    (prediction,) = client.post("/predict", content=body, headers=headers).json()["predictions"]
    assert prediction["class"] in ("cup", "glass")
    assert client.post("/look", content=body, headers=headers).status_code == 200

    add(client, "cup", 5000)
    # An image that comes while the others are read is for the next training
    job, _ = finished(client, "/project/train", lambda: add(client, "glass", 5001), seconds=10)
    assert job["state"] == "done", job
    second = client.get("/project").json()
    assert (second["model"]["run"], second["pictures"]) == ("things-2", 42)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["things-1", "things-2"]

    # Afterwards the project changes: report and exports are still about the pictures of the training
    add(client, "glass", 6000)
    client.post("/project/classes", json={"name": "bowl"})
    while (report := client.get("/project/report")).status_code == 503:
        time.sleep(1)
    assert report.status_code == 200, report.text
    assert "things" in report.text
    job, _ = finished(client, "/project/export", format="onnx")
    assert client.get("/project/download").content == (tmp_path / "runs/things-2/exports/model.onnx").read_bytes()
    assert job["result"]["path"].endswith("things-2/exports/model.onnx")
    if web_runtime_is_here():
        job, _ = finished(client, "/project/export", format="web")
        assert job["state"] == "done", job
        assert (tmp_path / "runs/things-2/exports/web/index.html").is_file()

    client.post("/project/classes/delete", json={"name": "bowl"})
    job, messages = finished(client, "/project/audit")
    assert job["state"] == "done", job
    assert "Checking the images" in messages
    assert set(job["result"]) == {"sentence", "suspects", "copies"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_a_training_that_was_killed_goes_on_after_the_next_start(tmp_path):
    with teaching(tmp_path) as (process, client):
        for name in ("cup", "glass"):
            client.post("/project/classes", json={"name": name})
            for seed in range(12):
                add(client, name, 2 * seed + (name == "cup"))
        assert client.post("/project/train", json={"seconds": 20}).status_code == 202
        while client.get("/project").json()["job"]["message"] != "Training":
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    state = tmp_path / "runs" / "things-1" / "checkpoint" / "state.safetensors"
    waiting = time.monotonic() + 60  # for the training to notice, and to save where it is
    while not state.is_file() and time.monotonic() < waiting:
        time.sleep(0.1)
    assert state.is_file()
    with teaching(tmp_path) as (_, client):
        assert client.get("/project").json()["unfinished"] == "things-1"
        job, _ = finished(client, "/project/train", resume=True)
        assert job["state"] == "done", job
        document = client.get("/project").json()
        assert (document["model"]["run"], document["unfinished"]) == ("things-1", None)
    assert not state.exists()


def web_runtime_is_here():
    """Whether the files that a web export needs are on this machine: without them, it needs a network."""
    from foveola.progress import no_progress

    try:
        web_runtime.fetch_runtime(no_progress)
    except Exception:
        return False
    return True
