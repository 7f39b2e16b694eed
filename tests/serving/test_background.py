"""A server in the background: a process of its own, which ends with `stop` or with the process that started it."""

import json
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

import foveola
from foveola.errors import ModelError, UserError
from foveola.serving.settings import Settings
from foveola.workflow.export import export


@pytest.fixture(scope="module")
def exported(toy_run, toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "toy.onnx"
    return export(toy_run, data=toy, out=out, verbose=False).path


def test_a_server_answers_until_it_is_stopped(exported, toy):
    with foveola.serve(exported, port=0, api_key="opensesame", background=True) as server:
        assert repr(server) == f"BackgroundServer({server.url})"
        request = urllib.request.Request(f"{server.url}/model", headers={"X-API-Key": "opensesame"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310  # of our own server
            assert json.load(response)["class_names"] == list(toy.class_names)
    assert server._process.poll() is not None
    assert repr(server).endswith(", stopped)")
    server.stop()


def test_it_ends_with_the_process_that_started_it(exported):
    """Even if that process cannot end it any more."""
    code = (
        "import os, sys, foveola\n"
        "server = foveola.serve(sys.argv[1], port=0, background=True)\n"
        "print(server._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, exported], capture_output=True, text=True, timeout=120)
    ended = threading.Event()
    number = int(done.stdout)
    for _ in range(600):
        if not is_running(number):
            break
        ended.wait(0.1)
    assert not is_running(number)


def is_running(number):
    """Whether a process exists, and is not merely waiting for its parent to notice its end."""
    try:
        return Path(f"/proc/{number}/stat").read_text("utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_wrong_is_raised_here(exported, tmp_path):
    used = r"^Cannot listen on port \d+ of 127\.0\.0\.1: another program is using it\. Choose another with --port"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=used):
        foveola.serve(exported, port=taken.getsockname()[1], background=True)


@pytest.mark.parametrize(("options", "message"), [({"port": 70000}, "port: "), ({"api_key": ""}, "api_key: ")])
def test_wrong_settings_are_refused(exported, options, message):
    with pytest.raises(UserError, match=f"The server cannot be set up so: {message}"):
        foveola.serve(exported, **options)


def test_only_runs_and_exports_are_served(toy_run):
    with pytest.raises(ModelError, match="neither a run directory nor an exported"):
        foveola.serve(toy_run / "model.safetensors")
    with pytest.raises(ModelError, match=r"There is no run or exported model \S+none\. Give the folder"):
        foveola.serve(toy_run / "none")


def test_a_thread_is_told_to_use_the_background(exported):
    raised = []

    def start():
        try:
            foveola.serve(exported)
        except UserError as error:
            raised.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "background=True" in raised[0]


def test_a_run_is_served_with_its_name_and_signals_are_given_back(toy_run, monkeypatch, capsys):
    import signal

    received = []

    def server(path, settings, announce):
        received.append((path, settings))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        announce("http://127.0.0.1:8000")

    monkeypatch.setattr("foveola.serving.server.serve", server)
    monkeypatch.setattr("foveola.workflow.serve.find_export", lambda run, verbose: run / "exports" / "model.onnx")
    before = signal.getsignal(signal.SIGINT)
    assert foveola.serve(foveola.Run.open(toy_run)) is None
    assert signal.getsignal(signal.SIGINT) is before
    assert received == [(toy_run / "exports" / "model.onnx", Settings(name="toy", log_requests=False))]
    assert "Serving toy at http://127.0.0.1:8000" in capsys.readouterr().err
    foveola.serve(toy_run, host="0.0.0.0", verbose=True)  # noqa: S104  # nothing is bound
    assert "anyone who can reach 0.0.0.0" in capsys.readouterr().err
