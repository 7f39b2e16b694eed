"""Web export: a complete folder that opens only unaltered, with a runtime from a registry on this machine."""

import base64
import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from foveola.errors import DownloadError, ModelError, OutputError
from foveola.exports import onnx, web, web_runtime
from foveola.exports.model_document import Limits, model_document

STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]
MEMBERS = {"package/package.json": b"{}", **{name: name.encode() * 1000 for name in web_runtime._MEMBERS}}


def package(members):
    """An npm package and its integrity value."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    content = buffer.getvalue()
    return content, "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a registry that does not respond."""
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:1/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def place_package(cache, monkeypatch):
    """Put a package with these members into the cache by hand."""

    def place(members):
        content, integrity = package(members)
        monkeypatch.setattr(web_runtime, "INTEGRITY", integrity)
        cache.mkdir()
        (cache / web_runtime.ARCHIVE).write_bytes(content)

    return place


@pytest.fixture
def registry(cache, monkeypatch, tmp_path):
    """A registry on this machine; `publish(members)` returns the list of requests it receives."""
    servers = []

    def publish(members):
        content, integrity = package(members)
        monkeypatch.setattr(web_runtime, "INTEGRITY", integrity)
        folder = tmp_path / "registry" / "npm" / "onnxruntime-web" / "-"
        folder.mkdir(parents=True)
        (folder / web_runtime.ARCHIVE).write_bytes(content)
        requests = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                requests.append(self.path)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "registry"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/npm/")
        return requests

    yield publish
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


# The runtime


def test_the_runtime_is_downloaded_once_and_read_from_the_cache(registry, cache):
    requests = registry(MEMBERS)
    first = web_runtime.runtime_files()
    assert set(first) == {"ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm", "LICENSE"}
    assert first["ort-wasm-simd-threaded.wasm"] == MEMBERS["package/dist/ort-wasm-simd-threaded.wasm"]
    assert b"MIT License" in first["LICENSE"]
    assert web_runtime.runtime_files() == first
    assert requests == [f"/npm/onnxruntime-web/-/{web_runtime.ARCHIVE}"]
    assert [path.name for path in cache.iterdir()] == [web_runtime.ARCHIVE]


def test_the_download_reports_progress(registry):
    registry(MEMBERS)
    calls = []
    web_runtime.runtime_files(lambda *call: calls.append(call))
    assert {what for _, _, what in calls} == {web_runtime.ARCHIVE}
    done, total, _ = calls[-1]
    assert done == total > 0


def test_a_package_in_the_cache_needs_no_network(place_package):
    place_package(MEMBERS)
    assert web_runtime.runtime_files()["ort.wasm.bundle.min.js"] == MEMBERS["package/dist/ort.wasm.bundle.min.mjs"]


def test_without_a_network_the_message_says_how_to_place_the_package(cache):
    with pytest.raises(DownloadError) as failure:
        web_runtime.runtime_files()
    assert f"npm pack onnxruntime-web@{web_runtime.VERSION}" in str(failure.value)
    assert f"put {web_runtime.ARCHIVE} (33 MB) into {cache}" in str(failure.value)


def test_a_package_with_a_wrong_checksum_is_neither_kept_nor_read(registry, cache, monkeypatch):
    registry(MEMBERS)
    monkeypatch.setattr(web_runtime, "INTEGRITY", package({})[1])
    with pytest.raises(DownloadError, match="npm pack"):
        web_runtime.runtime_files()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({name: MEMBERS[name] for name in list(MEMBERS)[:-1]}, "lacks ort-wasm-simd-threaded.wasm"),
        ({**MEMBERS, "package/dist/ort-wasm-simd-threaded.wasm": bytes(2**20 + 1)}, "at most 1,048,576 bytes"),
    ],
)
def test_a_package_with_unexpected_members_is_refused(place_package, members, message, monkeypatch):
    monkeypatch.setattr(web_runtime, "_MAX_MEMBER_BYTES", 2**20)
    place_package(members)
    with pytest.raises(DownloadError, match=message):
        web_runtime.runtime_files()


def test_a_cache_that_cannot_be_written_is_refused(cache, tmp_path):
    cache.write_text("a file")
    with pytest.raises(OutputError, match="FOVEOLA_CACHE"):
        web_runtime.runtime_files()


# The folder


@pytest.fixture
def classifier(classifier_of):
    return classifier_of(STACK, (8, 8, 1))


@pytest.fixture
def folder(classifier, place_package, tmp_path):
    place_package(MEMBERS)
    classifier.save(tmp_path / "model.safetensors")
    web.write(tmp_path / "model.safetensors", classifier, tmp_path / "web")
    return tmp_path / "web"


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_files_that_the_page_requests_are_exported(folder):
    names = names_in(folder)
    assert {"index.html", "model.onnx", "model.json", "SHA256SUMS", "page/backend.js", "runtime/LICENSE"} <= names
    assert not names & {"page/server.js", "page/index.html"}
    index = (folder / "index.html").read_text()
    linked = set(re.findall(r'(?:src|href)="([^"]+)"', index)) - {"data:,"}
    assert linked
    assert linked <= names
    for script in folder.glob("page/*.js"):
        imported = re.findall(r'^import .* from "(.+)";$', script.read_text(), re.MULTILINE)
        missing = [name for name in imported if not (script.parent / name).is_file()]
        assert not missing, f"{script.name} imports {missing}"


def test_the_policy_precedes_scripts_and_styles(folder):
    index = (folder / "index.html").read_text()
    policy = index.index("Content-Security-Policy")
    assert policy < index.index("<link")
    assert policy < index.index("<script")
    assert "unsafe-inline" not in index
    assert "'unsafe-eval'" not in index


def test_the_description_is_the_servers_model_document_with_tensor_names(folder):
    model = onnx.open(folder / "model.onnx")
    found = json.loads((folder / "model.json").read_text())
    limits = Limits(body_bytes=1, pixels=web.MAX_PIXELS)
    served = model_document(model, "model", limits, collect=False).model_dump(mode="json")
    del served["limits"]["body_bytes"]
    assert [layer.pop("tensor") for layer in found["layers"]] == [layer.tensor for layer in model.layers]
    assert found == served


def test_the_folder_opens_as_its_model(folder, classifier, images_of):
    images = images_of((8, 8, 1))
    np.testing.assert_allclose(
        web.open(folder).predict_logits(images), classifier.predict_logits(images), rtol=1e-5, atol=5e-5
    )


@pytest.mark.parametrize("name", ["index.html", "page/backend.js", "runtime/ort-wasm-simd-threaded.wasm", "model.onnx"])
@pytest.mark.parametrize("fault", ["altered", "missing"])
def test_a_folder_with_a_missing_or_altered_file_is_refused(folder, name, fault):
    if fault == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(ModelError, match=re.escape(name.rpartition("/")[2])):
        web.open(folder)


@pytest.mark.parametrize("sums", [None, "", "0" * 64 + "  ../model.safetensors\n"])
def test_a_folder_without_its_checksums_is_refused(folder, sums):
    (folder / "SHA256SUMS").unlink()
    if sums is not None:
        (folder / "SHA256SUMS").write_text(sums)
    with pytest.raises(ModelError, match="SHA256SUMS"):
        web.open(folder)


def test_additional_files_are_ignored(folder):
    (folder / "CNAME").write_text("example.org")
    assert web.open(folder).class_names == ("class 0", "class 1", "class 2")


# The command


@pytest.fixture
def run(toy_run, tmp_path):
    """A copy of the finished run, to export into."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


def test_the_command_reports_the_path_of_the_folder(run, place_package, foveola_command):
    place_package(MEMBERS)
    code, out, _ = foveola_command("export", run, "--format", "web", "--json")
    assert code == 0
    page = run / "exports" / "web"
    document = json.loads(out)
    assert document["path"] == str(page)
    assert document["size_bytes"] == sum((page / name).stat().st_size for name in names_in(page))
    assert {path.name for path in (run / "exports").iterdir()} == {"web"}


def test_without_a_network_nothing_is_written(run, cache, foveola_command):
    code, out, err = foveola_command("export", run, "--format", "web")
    assert (code, out) == (1, "")
    assert "npm pack" in err
    assert "Traceback" not in err
    assert not (run / "exports").exists()
