"""Downloads from a local server that also fails, truncates, stalls and corrupts."""

import errno
import gzip
import hashlib
import shutil
import struct
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from foveola.datasets import CATALOG, download, load
from foveola.datasets.entry import File
from foveola.datasets.reader import silent
from foveola.errors import DownloadError, OutputError


def idx_gz(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


NOISE = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
PUBLISHED = {
    f"{split}-{kind}-ubyte.gz": idx_gz(array)
    for split in ("train", "t10k")
    for kind, array in (("images-idx3", NOISE), ("labels-idx1", np.arange(20, dtype=np.uint8) % 10))
}


class Handler(BaseHTTPRequestHandler):
    """Answers /<behaviour>/<file>."""

    def do_GET(self):
        _, behaviour, name = self.path.split("/")
        self.server.asked.append((behaviour, name))
        data = PUBLISHED[name]
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "broken":
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if behaviour == "corrupt":
            data = data[:-20] + bytes(20)
        if behaviour in ("truncate", "stall"):
            data = data[: len(data) // 2]
        self.wfile.write(data)
        if behaviour == "stall":
            self.wfile.flush()
            self.server.stop.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.stop = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def entry(server, monkeypatch, tmp_path):
    """MNIST's entry as this server publishes it; which source behaves how is up to the test."""
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FOVEOLA_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", (5.0, 0.3))
    server.asked.clear()
    files = tuple(
        File(
            name,
            hashlib.md5(data, usedforsecurity=False).hexdigest(),
            hashlib.sha256(data).hexdigest() if "images" in name else None,
            hashlib.sha256(gzip.decompress(data)).hexdigest(),
        )
        for name, data in PUBLISHED.items()
    )

    def with_sources(*behaviours):
        sources = tuple(f"http://127.0.0.1:{server.server_port}/{behaviour}/" for behaviour in behaviours)
        changed = replace(CATALOG["mnist"], files=files, sources=sources)
        monkeypatch.setitem(CATALOG, "mnist", changed)
        return changed

    return with_sources


def test_a_named_data_set_is_fetched_once(entry, server, tmp_path):
    entry("good")
    data = load("mnist")
    np.testing.assert_array_equal(data.test.images[..., 0], NOISE)
    assert data.name == "mnist"
    folder = tmp_path / "cache" / "mnist"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == PUBLISHED
    assert len(server.asked) == 4
    assert load("mnist").fingerprint == data.fingerprint
    assert len(server.asked) == 4


@pytest.mark.parametrize("behaviour", ["missing", "broken", "corrupt", "truncate", "stall"])
def test_a_failing_source_gives_way_to_the_next(entry, behaviour, tmp_path):
    fetched = download.fetch(entry(behaviour, "good"), tmp_path / "here", silent)
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == PUBLISHED


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "HTTP 404"),
        ("broken", "HTTP 500"),
        ("corrupt", "the checksum differs from the published one"),
        ("truncate", "the connection broke off"),
        ("stall", "no answer in time"),
    ],
)
def test_where_every_source_fails_nothing_is_left_behind(entry, behaviour, reason, tmp_path, server):
    with pytest.raises(DownloadError) as failure:
        download.fetch(entry(behaviour, "missing"), tmp_path / "here", silent)
    message = str(failure.value)
    assert f"127.0.0.1:{server.server_port}/{behaviour}/train-images-idx3-ubyte.gz: {reason}" in message
    assert "/missing/train-images-idx3-ubyte.gz: HTTP 404" in message
    assert all(name in message for name in PUBLISHED)
    assert str(tmp_path / "here") in message
    assert "FOVEOLA_DATA" in message
    assert list((tmp_path / "here").iterdir()) == []


def test_without_a_network(entry, tmp_path):
    unreachable = replace(entry("good"), sources=("http://127.0.0.1:1/",))
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1/train-images-idx3-ubyte\.gz: cannot be reached"):
        download.fetch(unreachable, tmp_path / "here", silent)


def test_whole_files_stay_and_damaged_ones_are_fetched_again(entry, server, tmp_path):
    whole, damaged, *_ = PUBLISHED
    (tmp_path / whole).write_bytes(PUBLISHED[whole])
    (tmp_path / damaged).write_bytes(b"half")
    download.fetch(entry("good"), tmp_path, silent)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == PUBLISHED
    assert sorted(name for _, name in server.asked) == sorted(set(PUBLISHED) - {whole})


def test_a_damaged_file_survives_where_no_source_answers(entry, tmp_path):
    name = next(iter(PUBLISHED))
    (tmp_path / name).write_bytes(b"half")
    with pytest.raises(DownloadError):
        download.fetch(entry("corrupt"), tmp_path, silent)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_progress_counts_the_bytes_of_each_file(entry, tmp_path):
    calls = []
    download.fetch(entry("good"), tmp_path / "here", lambda *call: calls.append(call))
    for name, data in PUBLISHED.items():
        counts = [(done, total) for done, total, what in calls if what == name]
        assert counts[-1] == (len(data), len(data))
        assert counts == sorted(counts)


def test_a_folder_that_cannot_be_made(entry, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"MNIST cannot be stored in .*file.*FOVEOLA_CACHE"):
        download.fetch(entry("good"), tmp_path / "file" / "mnist", silent)


def test_a_full_disk_is_not_blamed_on_the_source(entry, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(OutputError, match="No space left on device"):
        download.fetch(entry("good", "good"), tmp_path / "here", silent)
    assert list((tmp_path / "here").iterdir()) == []
