"""Pretrained weights on this machine, and downloads from a local server that answers as the Hugging Face hub does."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from foveola.datasets import download, weights
from foveola.datasets.weights import find_weights, locate_weights
from foveola.errors import DownloadError, ModelError, OutputError, UserError
from foveola.models.pretrained import ENTRIES, Pretrained
from foveola.recipe import parse_recipe

PUBLISHED = save({"dense.weight": torch.arange(12.0).reshape(3, 4), "dense.bias": torch.zeros(3)})
SHA256 = hashlib.sha256(PUBLISHED).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LAYERS = [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]


class Hub(BaseHTTPRequestHandler):
    """Answers HEAD as the hub does, with a redirect to where the bytes lie; behaves as the server's list says."""

    def do_HEAD(self):
        behaviour = self.behave("HEAD")
        if isinstance(behaviour, int):
            self.send_error(behaviour)
            return
        if behaviour == "renamed" and "/old/" in self.path:
            self.send_response(307)
            self.send_header("Location", self.path.replace("/old/", "/new/"))
            self.end_headers()
            return
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/bytes")
        if behaviour != "no checksum":
            self.send_header("X-Linked-ETag", '"' + (SHA256 if behaviour != "other" else "0" * 64) + '"')
        sizes = {"too large": 2**40, "longer": len(PUBLISHED) - 100}
        self.send_header("X-Linked-Size", str(sizes.get(behaviour, len(PUBLISHED))))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def do_GET(self):
        behaviour = self.behave("GET")
        if self.path != "/bytes":
            self.send_response(302)
            self.send_header("Location", "/bytes")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PUBLISHED)))
        self.end_headers()
        self.wfile.write(PUBLISHED[:20] if behaviour == "cut off" else PUBLISHED)

    def behave(self, method):
        self.server.requested.append((method, self.path))
        behaviour = self.server.behaviours[0]
        if self.path == "/bytes" or isinstance(behaviour, int):  # the end of an attempt
            self.server.behaviours = self.server.behaviours[1:] or [behaviour]
        return behaviour

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """The server as the hub, a cache that is empty, and a function that says how the server behaves."""
    monkeypatch.setitem(
        ENTRIES, "small", Pretrained("small", "small", "old/small", "MIT", "", "", ("dense",), 2, "signed")
    )
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("FOVEOLA_DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(download, "TIMEOUT", (5.0, 5.0))
    monkeypatch.setattr(weights, "RETRY_SECONDS", 0.0)

    def behave(*behaviours):
        server.behaviours, server.requested = list(behaviours), []
        return server.requested

    behave("good")
    return behave


@pytest.fixture
def recipe(hub):
    return parse_recipe({"name": "small", "layers": LAYERS, "pretrained": "small"})


@pytest.fixture
def cached(tmp_path):
    return tmp_path / "cache" / "backbones" / "small" / "model.safetensors"


def test_weights_are_downloaded_once_verified_and_pinned_to_a_commit(hub, recipe, cached):
    requested, calls = hub("good"), []
    found = find_weights(recipe, progress=lambda *call: calls.append(call))
    assert found.path == cached
    assert cached.read_bytes() == PUBLISHED
    assert found.tensors["dense.weight"].tolist() == torch.arange(12.0).reshape(3, 4).tolist()
    assert (found.origin.sha256, found.origin.licence, found.origin.verified) == (SHA256, "MIT", True)
    assert requested == [
        ("HEAD", "/old/small/resolve/main/model.safetensors"),
        ("GET", f"/old/small/resolve/{COMMIT}/model.safetensors"),
        ("GET", "/bytes"),
    ]
    assert calls[-1] == (len(PUBLISHED), len(PUBLISHED), "model.safetensors")
    again = find_weights(recipe)
    assert (again.path, again.origin) == (found.path, found.origin)
    assert len(requested) == 3
    assert sorted(file.name for file in cached.parent.iterdir()) == ["SHA256SUMS", "model.safetensors"]


def test_a_repository_that_was_renamed_is_followed(hub, recipe, cached):
    requested = hub("renamed")
    find_weights(recipe)
    assert requested[1] == ("HEAD", "/new/small/resolve/main/model.safetensors")
    assert cached.read_bytes() == PUBLISHED


@pytest.mark.parametrize("behaviour", [503, 429, "cut off"])
def test_a_passing_failure_is_tried_again(hub, recipe, cached, behaviour):
    hub(behaviour, "good")
    find_weights(recipe)
    assert cached.read_bytes() == PUBLISHED


@pytest.mark.parametrize(
    ("behaviour", "reason", "attempts"),
    [
        (404, "HTTP 404", 1),
        (503, "HTTP 503", 3),
        ("cut off", "the connection was interrupted", 3),
        ("no checksum", "the server names no SHA-256", 1),
        ("other", "the checksum differs from the published one", 1),
        ("too large", "the file has 1,099,511,627,776 bytes, of at most 268,435,456", 1),
        ("longer", "the file is larger than", 1),
    ],
)
def test_a_failure_says_where_to_put_the_file_and_leaves_nothing_behind(
    hub, recipe, cached, behaviour, reason, attempts
):
    requested = hub(behaviour)
    with pytest.raises(DownloadError) as failure:
        find_weights(recipe)
    message = str(failure.value)
    assert "/old/small/resolve/main/model.safetensors" in message
    assert reason in message
    assert str(cached) in message
    assert "--weights FILE" in message
    assert "--set pretrained=none" in message
    assert sum(method == "HEAD" for method, _ in requested) == attempts
    assert not cached.parent.exists() or list(cached.parent.iterdir()) == []


def test_without_a_network_the_same_is_said_and_nothing_is_asked(hub, recipe, cached, monkeypatch):
    requested = hub("good")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE forbids it.\nTo provide them by hand"):
        find_weights(recipe)
    assert requested == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match="cannot be reached"):
        find_weights(recipe)


def test_the_data_folder_comes_before_the_cache(hub, recipe, cached, monkeypatch, tmp_path):
    requested = hub("good")
    placed = tmp_path / "data" / "backbones" / "small" / "model.safetensors"
    monkeypatch.setenv("FOVEOLA_DATA", str(tmp_path / "data"))
    assert locate_weights("small") is None
    for path in (cached, placed):
        path.parent.mkdir(parents=True)
        path.write_bytes(PUBLISHED)
        found = find_weights(recipe)
        assert found.path == locate_weights("small") == path
        assert (found.origin.licence, found.origin.verified) == ("MIT", False)
    assert requested == []


def test_a_damaged_file_in_the_cache_is_refused(hub, recipe, cached):
    find_weights(recipe)
    cached.write_bytes(PUBLISHED[:-1] + b"!")
    with pytest.raises(ModelError, match=r"model\.safetensors is not the file that SHA256SUMS names"):
        find_weights(recipe)


def test_a_cache_that_cannot_be_written_is_named(hub, recipe, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match=r"weights small cannot be stored in .*FOVEOLA_CACHE"):
        find_weights(recipe)


def test_a_file_takes_the_place_of_the_published_one(hub, recipe, tmp_path):
    requested = hub("good")
    (tmp_path / "mine.safetensors").write_bytes(PUBLISHED)
    found = find_weights(recipe, tmp_path / "mine.safetensors")
    assert (found.origin.name, found.origin.source, found.origin.sha256) == ("small", None, SHA256)
    assert requested == []


def test_a_recipe_with_random_weights_needs_none_and_takes_no_file(hub, tmp_path):
    random = parse_recipe({"name": "random", "layers": LAYERS})
    assert find_weights(random) is None
    with pytest.raises(UserError, match=r"the recipe random begins with random ones.*--recipe resnet18.*use --init"):
        find_weights(random, tmp_path / "mine.safetensors")
