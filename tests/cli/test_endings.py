"""Exit codes and messages of commands that fail or are interrupted."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import foveola
from foveola import cli
from foveola.errors import DownloadError

FOVEOLA = Path(sys.executable).with_name("foveola")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DownloadError("No source answered."), 1, "foveola: No source answered.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "run"), 1, "No space left on device: 'run'"),
        (PermissionError(errno.EACCES, "Permission denied", "run"), 1, "Permission denied: 'run'"),
        (MemoryError(), 1, "--set image_size="),
        (KeyboardInterrupt(), 130, "foveola: Interrupted.\n"),
    ],
)
def test_failures_that_are_not_the_users_fault(foveola_command, monkeypatch, error, code, message):
    def fail():
        raise error

    monkeypatch.setattr("foveola.workflow.environment.describe_environment", fail)
    outcome = foveola_command("info")
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr("foveola.workflow.environment.describe_environment", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


def test_a_diverged_training_ends_with_1_and_leaves_finite_weights(foveola_command, arguments):
    from safetensors.numpy import load_file

    code, out, err = foveola_command(
        "train", *arguments["train"], "--set", "optimizer=sgd", "--set", "learning_rate=1e38", "--json"
    )
    assert (code, out) == (1, "")
    assert "not finite" in err
    assert "--set learning_rate=" in err
    assert foveola.Run.open(Path("run")).status.status == "diverged"
    assert all(np.isfinite(weights).all() for weights in load_file("run/model.safetensors").values())


def test_a_closed_pipe_gives_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([FOVEOLA, "recipes"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_training_with_a_checkpoint(toy_npz, tiny, foveola_command, name, code):
    number = getattr(signal, name)
    with subprocess.Popen(
        [FOVEOLA, "train", toy_npz, "--recipe", tiny, "--epochs", "1000000", "--out", "run"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as process:  # fmt: skip
        try:
            while process.poll() is None and not process.stderr.readline().startswith("epoch"):
                pass
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (code, "")
    assert "foveola train --resume run" in err
    assert err.splitlines()[-1].startswith("foveola: Interrupted." if code == 130 else f"foveola: Ended by {name}")
    assert "Traceback" not in err
    status = foveola.Run.open(Path("run")).status
    assert status.status == "interrupted"
    assert status.epochs >= 1
    assert Path("run/checkpoint/state.safetensors").exists()
    assert foveola_command("evaluate", "run", toy_npz).code == 0


def test_the_package_is_run_as_a_module_too():
    command = [sys.executable, "-m", "foveola", "recipes", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Unknown recipe 'nonsense'" in done.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "passive"}, None),
    ],
)
def test_threads_give_up_waiting_sooner_unless_the_environment_says_how(environment, expected):
    code = "import os; from foveola import cli; cli.main(['recipes']); print(os.environ.get('GOMP_SPINCOUNT'))"
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=unset | environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == str(expected)
