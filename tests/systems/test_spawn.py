"""Processes that are spawned, not forked, as on macOS and Windows, and an event loop without what Windows' lacks."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

import foveola

SERVE = """
import asyncio, multiprocessing, sys
from pathlib import Path
from foveola.serving.server import serve
from foveola.serving.settings import Settings

def refuse(*given):
    raise NotImplementedError

sys.modules["uvloop"] = None
for name in ("add_reader", "add_signal_handler"):
    setattr(asyncio.SelectorEventLoop, name, refuse)

def main():
    multiprocessing.set_start_method("spawn", force=True)
    serve(Path(sys.argv[1]), Settings(port=0, log_requests=False), announce=lambda url: print(url, flush=True))

"""


@pytest.fixture
def served(toy_run, tmp_path):
    """Starts a script that serves an export."""
    exported = foveola.export(toy_run, "onnx", out=tmp_path / "model.onnx", verbose=False).path

    def start(code):
        (tmp_path / "script.py").write_text(code)
        command = [sys.executable, tmp_path / "script.py", exported]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_a_server_runs_in_a_spawned_process(served):
    with served(f'{SERVE}if __name__ == "__main__":\n    main()\n') as process:
        url = process.stdout.readline().strip()
        answer = urllib.request.urlopen(f"{url}/v2/health/ready", timeout=60)  # noqa: S310  # our own server
        assert json.loads(answer.read())["ready"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.slow
def test_a_script_that_guards_nothing_ends(served):
    """Each process imports the script, and would start a server of its own."""
    with served(f"{SERVE}main()\n") as process:
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (1, "")
    assert "__name__ == '__main__'" in err
