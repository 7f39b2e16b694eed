"""Downloads, from a local server that can also fail, truncate, stall and corrupt."""

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
from foveola.errors import DownloadError, OutputError
from foveola.progress import no_progress


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
    """Serves a published file at /<behaviour>/<file>, with this behaviour."""

    def do_GET(self):
        _, behaviour, name = self.path.split("/")
        self.server.requested.append((behaviour, name))
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
    server.requested, server.stop = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def entry(server, monkeypatch, tmp_path):
    """Make MNIST's entry with this server's files; each source has one of the given behaviours."""
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FOVEOLA_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", (5.0, 0.3))
    server.requested.clear()
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


def test_a_named_data_set_is_downloaded_once(entry, server, tmp_path):
    entry("good")
    data = load("mnist")
    np.testing.assert_array_equal(data.test.images[..., 0], NOISE)
    assert data.name == "mnist"
    folder = tmp_path / "cache" / "mnist"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == PUBLISHED
    assert len(server.requested) == 4
    assert load("mnist").fingerprint == data.fingerprint
    assert len(server.requested) == 4


@pytest.mark.parametrize("behaviour", ["missing", "broken", "corrupt", "truncate", "stall"])
def test_after_a_failing_source_the_next_is_tried(entry, behaviour, tmp_path):
    fetched = download.fetch(entry(behaviour, "good"), tmp_path / "here", no_progress)
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == PUBLISHED


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "HTTP 404"),
        ("broken", "HTTP 500"),
        ("corrupt", "the checksum differs from the published one"),
        ("truncate", "the connection was interrupted"),
        ("stall", "no response in time"),
    ],
)
def test_if_every_source_fails_all_are_named_and_nothing_is_left_behind(entry, behaviour, reason, tmp_path, server):
    with pytest.raises(DownloadError) as failure:
        download.fetch(entry(behaviour, "missing"), tmp_path / "here", no_progress)
    message = str(failure.value)
    assert f"127.0.0.1:{server.server_port}/{behaviour}/train-images-idx3-ubyte.gz: {reason}" in message
    assert "/missing/train-images-idx3-ubyte.gz: HTTP 404" in message
    assert all(name in message for name in PUBLISHED)
    assert str(tmp_path / "here") in message
    assert "FOVEOLA_DATA" in message
    assert list((tmp_path / "here").iterdir()) == []


def test_an_unreachable_source_is_named(entry, tmp_path):
    unreachable = replace(entry("good"), sources=("http://127.0.0.1:1/",))
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1/train-images-idx3-ubyte\.gz: cannot be reached"):
        download.fetch(unreachable, tmp_path / "here", no_progress)


def test_intact_files_are_kept_and_damaged_ones_are_downloaded_again(entry, server, tmp_path):
    intact, damaged, *_ = PUBLISHED
    (tmp_path / intact).write_bytes(PUBLISHED[intact])
    (tmp_path / damaged).write_bytes(b"half")
    download.fetch(entry("good"), tmp_path, no_progress)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == PUBLISHED
    assert sorted(name for _, name in server.requested) == sorted(set(PUBLISHED) - {intact})


def test_a_damaged_file_is_kept_if_no_source_delivers_another(entry, tmp_path):
    name = next(iter(PUBLISHED))
    (tmp_path / name).write_bytes(b"half")
    with pytest.raises(DownloadError):
        download.fetch(entry("corrupt"), tmp_path, no_progress)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_progress_counts_the_bytes_of_each_file(entry, tmp_path):
    calls = []
    download.fetch(entry("good"), tmp_path / "here", lambda *call: calls.append(call))
    for name, data in PUBLISHED.items():
        counts = [(done, total) for done, total, what in calls if what == name]
        assert counts[-1] == (len(data), len(data))
        assert counts == sorted(counts)


def test_a_folder_that_cannot_be_created_is_named(entry, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"MNIST cannot be stored in .*file.*FOVEOLA_CACHE"):
        download.fetch(entry("good"), tmp_path / "file" / "mnist", no_progress)


def test_a_full_disk_is_reported_as_such_and_not_as_a_failing_source(entry, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(OutputError, match="No space left on device"):
        download.fetch(entry("good", "good"), tmp_path / "here", no_progress)
    assert list((tmp_path / "here").iterdir()) == []
