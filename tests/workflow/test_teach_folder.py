"""`foveola teach` as a process: it starts, keeps what it has acknowledged when it is killed, and ends."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveola
import foveola.teaching.server
from foveola.errors import UserError
from foveola.workflow.teach import teach

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM between processes")


@contextmanager
def teaching(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The command as a process group, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "foveola", "teach", folder, "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        url = re.fullmatch(r"Open (http://\S+) to teach \S+ \(Ctrl\+C to stop\)\n", line)
        if url is None:
            pytest.fail(line + process.stderr.read())
        yield process, url[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(url: str, body: bytes | None = None, kind: str = "application/json") -> dict:
    request = urllib.request.Request(url, body, {"Content-Type": kind} if body else {})  # noqa: S310  # http
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return json.load(response)


def test_what_is_acknowledged_survives_a_kill_and_the_command_ends_when_told(tmp_path):
    folder, pixels = tmp_path / "pictures", np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    with teaching(folder) as (process, url):
        ask(f"{url}/project/classes", b'{"name": "cup"}')
        added = ask(f"{url}/project/pictures?class=cup", buffer.getvalue(), "image/png")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert np.array_equal(foveola.load(folder).train.images, pixels[None])
    with teaching(folder) as (process, url):
        assert ask(f"{url}/project")["classes"] == [{"name": "cup", "count": 1}]
        assert ask(f"{url}/project/pictures?class=cup")["pictures"][0]["id"] == added["id"]
        assert ask(f"{url}/project/pictures?class=cup", buffer.getvalue(), "image/png").keys() == {"copy"}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_folder_that_cannot_be_taught_is_one_message(tmp_path):
    (tmp_path / "file.csv").write_text("image,label\n")
    command = [sys.executable, "-m", "foveola", "teach", tmp_path, "--port", "0", "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"foveola: {tmp_path} holds file.csv, so that its labels may be in a table.")
    assert len(done.stderr.splitlines()) == 1


def test_without_torch_it_is_said_before_images_are_collected(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(foveola.teaching.server, "teach", lambda *_, **__: None)
    teach(tmp_path, port=0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    teach(tmp_path, port=0)
    assert "training needs torch" in (said := capsys.readouterr().err)
    assert "pip install 'foveola[train]'" in said


def test_settings_and_threads_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="cannot be set up so"):
        teach(tmp_path, port=70_000)
    errors = []

    def outside():
        with pytest.raises(UserError, match="main thread") as error:
            teach(tmp_path, port=0)
        errors.append(error)

    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    assert len(errors) == 1
