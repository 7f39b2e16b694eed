"""Serving a run or an export: which file is served, and the command as a process."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

import foveola
from foveola.errors import MissingExtra, ModelError, OutputError
from foveola.exports import onnx
from foveola.serving.settings import Settings
from foveola.workflow import serve as workflow
from foveola.workflow.export import export
from foveola.workflow.serve import check_collect, find_export, name_of, serve

FOVEOLA = Path(sys.executable).with_name("foveola")


@pytest.fixture
def run(toy_run, tmp_path) -> Path:
    """A copy of the run without exports."""
    copied = shutil.copytree(toy_run, tmp_path / "toy run")
    shutil.rmtree(copied / "exports", ignore_errors=True)
    return copied


@pytest.fixture
def served(monkeypatch) -> list[Path]:
    """The paths that the server would be started with."""
    paths = []
    monkeypatch.setattr("foveola.serving.server.serve", lambda path, settings, announce: paths.append(path))
    return paths


def without_torch(module: str, extra: str) -> None:
    raise MissingExtra(f"This needs {module}. Install it with: pip install 'foveola[{extra}]'")


def test_a_run_is_exported_first(run, served, capsys):
    serve(run, Settings(), announce=print)
    assert served == [run / "exports" / "model.onnx"]
    assert onnx.open(served[0]).source == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert "no export" in capsys.readouterr().err


def test_a_current_export_is_used_as_it_is_and_needs_no_torch(run, served, monkeypatch, capsys):
    export(run, verbose=False)
    before = (run / "exports" / "model.onnx").stat().st_mtime_ns
    monkeypatch.setattr(workflow, "require", without_torch)
    serve(run, Settings(), announce=print)
    assert served == [run / "exports" / "model.onnx"]
    assert served[0].stat().st_mtime_ns == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fault", ["of another model", "damaged"])
def test_an_export_that_is_not_current_is_made_again(run, toy_npz, tiny, tmp_path, fault):
    path = run / "exports" / "model.onnx"
    if fault == "of another model":
        other = foveola.train(toy_npz, tiny, seed=1, out=tmp_path / "other", verbose=False)
        export(other.path, verbose=False)
        shutil.copytree(other.path / "exports", path.parent)
    else:
        export(run, verbose=False)
        path.write_bytes(path.read_bytes()[:100])
    assert find_export(run, verbose=False) == path
    assert onnx.open(path).source == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def test_without_torch_a_run_without_an_export_is_refused(run, monkeypatch):
    monkeypatch.setattr(workflow, "require", without_torch)
    with pytest.raises(MissingExtra, match=r"no export.*foveola export .*toy run.*pip install"):
        find_export(run)


@pytest.mark.parametrize("model", ["nothing", "nothing.onnx", "folder", "text.onnx", "model.safetensors"])
def test_a_path_that_is_not_a_model_is_refused_before_listening(model, tmp_path, run):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.onnx").write_text("not a model")
    shutil.copy(run / "model.safetensors", tmp_path)
    with pytest.raises(ModelError, match=re.escape(model)):
        serve(tmp_path / model, Settings(port=0), announce=lambda url: pytest.fail("the server listens"))


def test_the_folder_for_collected_images_is_created(tmp_path):
    check_collect(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    check_collect(tmp_path / "new" / "folder")


def test_a_folder_for_collected_images_that_cannot_be_written_is_refused(tmp_path, served, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OutputError, match=r"file.* --collect"):
            serve(tmp_path / "model.onnx", Settings(collect=folder), announce=print)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="cannot be written: permission denied"):
        check_collect(tmp_path / "folder")
    assert served == []


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/mnist-fast", "mnist-fast"),
        ("runs/mnist-fast/exports/model.onnx", "mnist-fast"),
        ("digits.v2.onnx", "digits.v2"),
        ("meine Läufe", "meine-L-ufe"),
        ("手書き", "model"),
    ],
)
def test_the_name_in_urls(tmp_path, model, name):
    path = tmp_path / model
    if path.suffix == ".onnx":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    else:
        path.mkdir(parents=True)
    assert name_of(path) == name
    Settings(name=name)


# The command


@contextmanager
def command(*arguments: object) -> Iterator[tuple[subprocess.Popen, str]]:
    """`foveola serve` as a process, and its URL."""
    process = subprocess.Popen(
        [FOVEOLA, "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stderr.readline()
        url = re.fullmatch(r"Serving (\S+) at (http://\S+) \(Ctrl\+C to stop\)\n", line)
        if url is None:
            process.kill()
            pytest.fail(line + process.stderr.read())
        yield process, url[2]
    finally:
        process.kill()
        process.communicate()


def fetch(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "image/png"} if body else {})  # noqa: S310  # http
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return response.read()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM between processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_until_it_is_stopped(run, toy, workers):
    export(run, verbose=False)
    image_file = io.BytesIO()
    Image.fromarray(toy.train.images[0, :, :, 0]).save(image_file, "PNG")
    expected = foveola.open(run / "exports" / "model.onnx").predict_logits(toy.train.images[:1]).argmax()
    with command(run / "exports" / "model.onnx", "--workers", workers) as (process, url):
        for _ in range(10):
            (prediction,) = json.loads(fetch(f"{url}/predict", image_file.getvalue()))["predictions"]
            assert prediction["class"] == toy.class_names[expected]
        requests = re.search(
            r'^foveola_requests_total\{.*route="/predict".*\} (\S+)$', fetch(f"{url}/metrics").decode(), re.M
        )
        assert float(requests[1]) == 10  # over all workers
        if sys.platform == "linux":
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["status"] for line in lines] == [200] * 11


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_quiet_still_prints_the_url(run):
    export(run, verbose=False)
    with command(run, "--quiet") as (process, url):
        assert fetch(f"{url}/v2/health/ready") is not None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
