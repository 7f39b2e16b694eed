"""Workers know of each other, and a replacement that dies again is not started in a hurry."""

import os
import subprocess
import sys

from foveola.serving.workers import Workers


def test_replacements_that_die_before_they_are_ready_wait_longer_and_longer(tmp_path):
    workers = Workers(tmp_path, 2)
    assert [workers.start(), workers.start()] == [0, 0]  # the first ones
    workers.ready()
    workers.ready()
    assert [workers.start() for _ in range(9)] == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    workers.ready()
    assert workers.start() == 0


def test_first_workers_that_die_at_their_start_wait_as_well(tmp_path):
    workers = Workers(tmp_path, 1)
    assert [workers.start() for _ in range(4)] == [0, 1, 2, 4]


def test_only_processes_that_exist_are_ready(tmp_path):
    workers = Workers(tmp_path, 3)
    assert workers.count_ready() == 0
    workers.ready()
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / f"{int(done.stdout)}.ready").touch()
    assert workers.count_ready() == 1
    assert (tmp_path / f"{os.getpid()}.ready").exists()
