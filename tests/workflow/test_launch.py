"""A training under torchrun: its name, its restarts, and, slowly, real processes that fail, are killed and go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import foveola
from foveola.cli import main
from foveola.runs import Run
from foveola.workflow.launch import earlier_attempt, launch_name


@pytest.fixture
def torchrun_environment(monkeypatch):
    """Function that sets what torchrun tells a process that it starts alone."""

    def set_restarts(restarts, name="job-7"):
        for key, value in {"RUN_ID": name, "RESTART_COUNT": str(restarts)}.items():
            monkeypatch.setenv(f"TORCHELASTIC_{key}", value)

    return set_restarts


def test_a_launch_has_torchruns_name_or_that_of_its_process(torchrun_environment, monkeypatch):
    torchrun_environment(0)
    assert launch_name() == "job-7"
    torchrun_environment(0, name="none")
    assert launch_name() == f"none of process {os.getppid()}"
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert launch_name() is None


class Interrupt(foveola.Callback):
    """Fails after a few steps, once."""

    def on_step_end(self, fit):
        if fit.step == 3 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            raise RuntimeError("a fault")


@pytest.mark.parametrize("named", [True, False])
def test_a_restart_by_torchrun_goes_on_with_the_same_run(
    named, toy_npz, tiny, tmp_path, torchrun_environment, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = {"callbacks": [Interrupt()], "verbose": False, "report": False, "checkpoint_every": 1e-9}
    out = tmp_path / "run" if named else None
    torchrun_environment(0)
    with pytest.raises(RuntimeError, match="a fault"):
        foveola.train(toy_npz, tiny, out=out, **arguments)
    folder = out or tmp_path / "runs" / "toy-tiny"
    assert earlier_attempt("job-7", out, tmp_path / "runs") is None  # the first start has none
    torchrun_environment(1)
    assert earlier_attempt("job-8", out, tmp_path / "runs") is None
    assert earlier_attempt("job-7", out, tmp_path / "runs") == folder
    run = foveola.train(toy_npz, tiny, out=out, **arguments)
    assert run.path.absolute() == folder
    reference = foveola.train(toy_npz, tiny, out=tmp_path / "whole", **arguments)
    assert run.model_path.read_bytes() == reference.model_path.read_bytes()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_process_a_machine_prints_a_message(rank, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert main(["train", "digits", "--recipe", "nosuch"]) == 2
    assert ("Unknown recipe" in capsys.readouterr().err) == (rank == "0")


def torchrun(*arguments, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "-m", "foveola", "train", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(toy_npz, tiny, toy_run, tmp_path):
    process = torchrun(toy_npz, "--recipe", tiny, "--out", tmp_path / "two", "--no-report")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.count("test accuracy") == errors.count("toy: ") == 1
    ours, expected = Run(tmp_path / "two").history, Run(toy_run).history
    for row, other in zip(ours, expected, strict=True):
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [("/no/such/data",), ("digits", "--budget", "9s"), ("digits", "--recipe", "nosuch")])
def test_wrong_input_is_reported_once_with_code_2(wrong, tmp_path):
    process = torchrun(*wrong, "--out", tmp_path / "run")
    errors = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert errors.count("foveola: ") == 1
    assert "exitcode  : 2" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 3])
def test_after_a_kill_the_others_stop_and_the_run_goes_on_to_the_same_bytes(restarts, tmp_path):
    settings = ("digits", "--recipe", "fast", "--set", "steps=150", "--no-report", "--checkpoint-every", "0.1s")
    reference = torchrun(*settings, "--out", tmp_path / "whole")
    assert reference.communicate(timeout=600)[0] and reference.returncode == 0
    process = torchrun(*settings, "--out", tmp_path / "run", restarts=restarts)
    while not (tmp_path / "run" / "checkpoint" / "state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[-1]), signal.SIGKILL)
    process.communicate(timeout=600)
    if not restarts:
        assert process.returncode != 0
        process = torchrun("--resume", tmp_path / "run")
        process.communicate(timeout=600)
    assert process.returncode == 0
    for name in ("model.safetensors", "evaluation.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
