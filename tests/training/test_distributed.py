"""Two processes compute what one does: this one is process 0, and distributed_cases.py the other."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import distributed_cases as cases
import numpy as np
import pytest
import torch
import torch.distributed as dist

from foveola.errors import ProcessLost, UserError
from foveola.training.distributed import ALONE, join, leads


@pytest.fixture(scope="module")
def pair():
    """Answers of process 0, its `Processes`, and what it raises once the other has ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    command = [sys.executable, str(Path(cases.__file__))]
    other = subprocess.Popen(command, env=os.environ | place | {"RANK": "1"}, stderr=subprocess.PIPE, text=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (place | {"RANK": "0"}).items():
                patch.setenv(name, value)
            processes = join(torch.device("cpu"))
        found = cases.answers(processes)
        assert leads()
        assert other.wait(60) == 0, other.stderr.read()
        with pytest.raises(ProcessLost) as lost:
            processes.sum_tensors([torch.zeros(1)])
        yield found, processes, lost.value
    finally:
        other.kill()
        other.communicate()
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", cases.TRAININGS)
def test_weights_and_metrics_equal_those_of_one_process(name, pair):
    classifier, rows = pair[0][name]
    alone, expected = cases.train(cases.TRAININGS[name], ALONE)
    # As close as the loss, which is float32
    for key, tensor in alone.network.state_dict().items():
        torch.testing.assert_close(classifier.network.state_dict()[key], tensor, rtol=0, atol=1e-6)
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-6)


def test_predictions_are_those_of_one_process_byte_for_byte(pair):
    found = pair[0]
    expected = found["classifier"].predict_logits(cases.images(700, seed=2).images)
    assert found["logits"].tobytes() == expected.tobytes()
    assert found["logits"].dtype == np.float32


def test_batch_normalisation_takes_a_part_without_images(pair):
    x = torch.from_numpy(np.random.default_rng(3).normal(7, 2, (5, 3, 2, 2)))
    for found, expected in zip(pair[0]["norm"], cases.normalize(x, slice(None), None), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_process_0_gives_and_what_all_give(pair):
    assert pair[0]["sent"] == [None, b"", b"abc"]
    assert pair[0]["texts"] == ["", "ü"]


def test_an_error_in_one_process_ends_all_with_one_message(pair):
    found = pair[0]
    assert found["no error"] == "none"
    assert found["error of 0"] == "DataError('no data')"
    assert found["error of 1"] == "UserError('In process 1 of 2: no data')"
    assert found["errors of both"] == "DataError('no data 0')"
    assert found["bug of 1"].startswith("Failure(")


def test_processes_that_were_asked_for_something_else_are_refused(pair):
    assert "process 1 of 2 has another precision than process 0: bf16 instead of float32" in pair[0]["differ"]


def test_a_signal_to_one_process_stops_all(pair):
    assert pair[0]["stop"] == [False, True, signal.SIGTERM]


def test_a_process_that_has_ended_is_named_as_the_reason(pair):
    assert "Another process of this training has ended" in str(pair[2])
    assert pair[2].exit_code == 1


def test_other_processes_leave_the_message_to_process_0(pair):
    processes = pair[1]
    with pytest.raises(UserError), processes.silent_but_one():
        raise UserError("here")
    follower = type(processes)(1, 2)
    with pytest.raises(SystemExit) as end, follower.silent_but_one():
        raise UserError("there")
    assert end.value.code == 2


def test_parts_cover_a_batch_once():
    for size in (1, 2, 3, 7):
        for images in (0, 1, 5, 128):
            rows = [range(images)[type(ALONE)(rank, size).part(images).rows] for rank in range(size)]
            assert [row for part in rows for row in part] == list(range(images))


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert join(torch.device("cpu")) is ALONE


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="more processes on this machine than GPUs"):
        join(torch.device("cuda"))
