"""Jobs: processes with progress, one at a time, that end when they are stopped or the server ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from foveola.errors import DataError
from foveola.teaching.jobs import MAX_EPOCHS, JobRunning, Jobs


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a Python module that a job can run; its name."""
    (tmp_path / "modules").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), *sys.path]))

    def write(code, name="work"):
        (tmp_path / "modules" / f"{name}.py").write_text(textwrap.dedent(code))
        return name

    return write


@pytest.fixture
def jobs():
    jobs = Jobs()
    yield jobs
    jobs.close()


def run(jobs, name, *arguments, kind="training"):
    """The finished job that has run a module."""
    jobs.start(kind, lambda progress: progress.run(name, *arguments))
    assert jobs.wait(60)
    return jobs.job


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.01)


def is_running(pid):
    """Whether a process runs, other than as a zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_progress_of_a_training_becomes_the_jobs_document(jobs, module):
    name = module("""
        import sys
        print("a table, which is ignored")
        print("images: 20 of 40", file=sys.stderr, flush=True)
        print('{"event": "start", "steps": 10, "epochs": 2}')
        print("features: 30 of 60", file=sys.stderr, flush=True)
        print('{"event": "step", "step": 4}')
        print('{"event": "epoch", "epoch": 1, "loss": 0.5, "accuracy": null, "val_accuracy": 0.25, "seconds": 1.0}')
        print('{"event": "end"}')
        print('{"event": "none of these"}')
        print('{broken')
    """)
    changes = []
    jobs.on_change = lambda: changes.append((jobs.job.message, jobs.job.done, jobs.job.total))
    job = run(jobs, name)
    assert (job.kind, job.state, job.error) == ("training", "done", None)
    (epoch,) = job.history
    assert (epoch.epoch, epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy) == (1, 0.5, None, None, 0.25)
    assert ("Training", 4, 10) in changes
    assert ("Testing with images that it was not trained on", None, None) in changes


def test_a_long_history_is_thinned_evenly(jobs, module):
    name = module("""
        for epoch in range(1, 1001):
            print('{"event": "epoch", "epoch": %d, "loss": 1.0}' % epoch)
    """)
    epochs = [row.epoch for row in run(jobs, name).history]
    assert len(epochs) <= MAX_EPOCHS
    assert epochs == list(range(8, 1001, 8))


def test_a_commands_message_is_the_error(jobs, module):
    name = module("""
        import sys
        print("reading", file=sys.stderr)
        print("foveola: 2 files cannot be used:\\na.png\\nb.png\\nRemove them.", file=sys.stderr)
        sys.exit(2)
    """)
    job = run(jobs, name)
    assert job.state == "failed"
    assert job.error == "2 files cannot be used:\na.png\nb.png\nRemove them."


@pytest.mark.parametrize(
    ("code", "words"),
    [("import sys; sys.exit(3)", "code 3"), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory")],
    ids=["without a message", "killed"],
)
def test_a_command_that_says_nothing_has_an_error_in_plain_words(jobs, module, code, words, caplog):
    assert words in run(jobs, module(code)).error


def test_errors_of_the_work_itself_are_told(jobs, caplog):
    def refuse(progress):
        raise DataError("There is one image. Add more.")

    def fail(progress):
        raise ZeroDivisionError

    for work, error in ((refuse, "There is one image. Add more."), (fail, "The server failed")):
        jobs.start("export", work)
        assert jobs.wait(60)
        assert jobs.job.state == "failed"
        assert jobs.job.error.startswith(error)
    assert "ZeroDivisionError" in caplog.text


def test_a_second_job_waits_its_turn(jobs, module):
    name = module("import time; time.sleep(600)")
    jobs.start("training", lambda progress: progress.run(name))
    with pytest.raises(JobRunning, match="A training is running"):
        jobs.start("audit", lambda progress: None)
    jobs.stop()
    assert jobs.wait(60)
    jobs.start("audit", lambda progress: {"suspects": []})
    assert jobs.wait(60)
    assert jobs.job.result == {"suspects": []}


def test_a_stopped_job_ends_with_the_processes_that_it_has_started(jobs, module, tmp_path):
    module("import pathlib, os, sys, time; pathlib.Path(sys.argv[1], 'inner').write_text(str(os.getpid())); "
           "time.sleep(600)", "inner")  # fmt: skip
    name = module("""
        import pathlib, os, subprocess, sys
        pathlib.Path(sys.argv[1], "outer").write_text(str(os.getpid()))
        subprocess.run([sys.executable, "-m", "inner", sys.argv[1]])
    """)
    jobs.start("training", lambda progress: progress.run(name, str(tmp_path)))
    wait_for(lambda: all((tmp_path / one).exists() and (tmp_path / one).read_text() for one in ("outer", "inner")))
    pids = [int((tmp_path / one).read_text()) for one in ("outer", "inner")]
    assert jobs.stop().message == "Stopping"
    assert jobs.wait(60)
    assert jobs.job.state == "stopped"
    assert jobs.job.error is None
    wait_for(lambda: not any(map(is_running, pids)))


def test_after_the_end_nothing_starts(jobs, module):
    name = module("import time; time.sleep(600)")
    jobs.start("training", lambda progress: progress.run(name))
    jobs.close()
    assert jobs.job.state == "stopped"
    with pytest.raises(JobRunning, match="shutting down"):
        jobs.start("training", lambda progress: None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ends_with_the_server_however_that_ends(module, tmp_path, number):
    name = module("""
        import os, pathlib, sys, time
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(600)
    """)
    note = tmp_path / "pid"
    server = "\n".join(
        [
            "import sys, time",
            "from foveola.teaching.jobs import Jobs",
            "Jobs().start('training', lambda progress: progress.run(sys.argv[1], sys.argv[2]))",
            "time.sleep(600)",
        ]
    )
    with subprocess.Popen([sys.executable, "-c", server, name, str(note)]) as process:
        try:
            wait_for(lambda: note.exists() and note.read_text())
            pid = int(note.read_text())
            assert is_running(pid)
            process.send_signal(number)
            process.wait(60)
            wait_for(lambda: not is_running(pid))
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="needs niceness")
@pytest.mark.parametrize("more", [0, 1, 12])
def test_a_job_gives_way_to_the_server_and_one_of_a_server_that_gives_way_no_more_than_it(module, more):
    name = module("import os; print(os.nice(0))")
    own = os.nice(0)
    command = ["nice", "-n", str(more), sys.executable, "-m", "foveola.teaching.attached", name]
    # Standard input stays open until the process has ended
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.read()) == min(max(own + more, 5), 19)
