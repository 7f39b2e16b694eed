"""What may happen to a training, through all of `train` and `resume`: nothing is lost, and nothing else is changed."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import foveola
from foveola.errors import DataError, ModelError, NonFiniteLoss, OutputError
from foveola.reports import plots
from foveola.training import checkpoint

# Enough for a few checkpoints of 150 kB: weights, two moments of Adam, best weights
RECIPE = {"epochs": 3, "batch_size": 16, "augment.shift": 1, "keep": "best", "validation": 0.2, "precision": "float32"}


@pytest.fixture(autouse=True)
def a_checkpoint_after_every_step_and_no_plots(monkeypatch):
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)
    monkeypatch.setattr(plots, "plot_run", lambda *arguments, **settings: None)


def train(data, out, **settings):
    settings = {"report": False, "verbose": False, "checkpoint_every": 1e-9, "seed": 1} | settings
    return foveola.train(data, "mlp", out=out, overrides=RECIPE | settings.pop("overrides", {}), **settings)


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing has happened to."""
    return files(foveola.train(
        toy, "mlp", out=tmp_path_factory.mktemp("run") / "whole", overrides=RECIPE, seed=1, report=False, verbose=False
    ).path)  # fmt: skip


def files(path: Path) -> dict[str, bytes]:
    """The files that must be equal byte for byte."""
    return {name: (path / name).read_bytes() for name in ("model.safetensors", "evaluation.json", "recipe.toml")}


class Stop(Exception):
    """Stands for whatever goes wrong in a callback."""


class Crashing(foveola.Callback):
    """Raises after a step, and keeps a state of its own."""

    def __init__(self, step=None):
        self.step, self.seen = step, []

    def on_step_end(self, fit):
        self.seen.append(fit.step)
        if fit.step == self.step:
            raise Stop

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


@pytest.fixture
def interrupted(toy, tmp_path) -> Path:
    """A training on toy data that was interrupted after four steps by an error in a callback."""
    with pytest.raises(Stop):
        train(toy, tmp_path / "run", callbacks=[Crashing(4)])
    return tmp_path / "run"


def resume(run, toy, **settings):
    return foveola.resume(run, **{"data": toy, "callbacks": [Crashing()], "verbose": False} | settings)


def test_a_crash_in_a_callback_loses_nothing(toy, interrupted, uninterrupted):
    assert foveola.Run.open(interrupted).status.status == "failed"
    again = Crashing()
    run = resume(interrupted, toy, callbacks=[again])
    assert files(run.path) == uninterrupted
    assert again.seen[:3] == [1, 2, 3]
    assert again.seen[-1] == run.status.steps == len(again.seen)
    assert not (interrupted / "checkpoint").exists()


def test_a_last_layer_fitted_first_and_unfreezing_are_gone_on_with(toy, tmp_path):
    recipe = {"head_views": 2, "unfreeze": 0.6, "first_layer_rate": 0.1, "augment.shift": 1}
    expected = train(toy, tmp_path / "whole", overrides=recipe)
    with pytest.raises(Stop):
        train(toy, tmp_path / "run", overrides=recipe, callbacks=[Crashing(3)])
    run = resume(tmp_path / "run", toy)
    assert files(run.path) == files(expected.path)
    assert [row["epoch"] for row in run.history] == [row["epoch"] for row in expected.history]
    assert run.history[0]["epoch"] == 0


def test_a_callback_that_is_missing_or_another_is_refused(toy, interrupted, uninterrupted):
    with pytest.raises(foveola.UserError, match=r"given its callbacks.*callbacks=…"):
        resume(interrupted, toy, callbacks=())
    with pytest.raises(foveola.UserError, match="had the callbacks"):
        resume(interrupted, toy, callbacks=[foveola.Callback()])
    assert files(resume(interrupted, toy).path) == uninterrupted


def test_data_that_has_changed_is_refused_and_restored_data_is_taken(toy_npz, tmp_path, monkeypatch):
    data = Path(shutil.copy(toy_npz, tmp_path / "toy.npz"))
    expected = files(train(data, tmp_path / "whole").path)
    monkeypatch.setattr(checkpoint.Checkpoint, "after_training", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        train(data, tmp_path / "run")
    monkeypatch.undo()
    with np.load(data) as file:
        arrays = dict(file)
    np.savez(data, **arrays | {"x_train": arrays["x_train"] ^ 1})
    with pytest.raises(DataError, match=r"has changed since the training began.*Restore the data"):
        foveola.resume(tmp_path / "run", verbose=False)
    np.savez(data, **arrays)
    assert files(foveola.resume(tmp_path / "run", verbose=False).path) == expected


def test_a_finished_run_is_left_as_it_is(toy, tmp_path, capsys):
    run = train(toy, tmp_path / "run")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}
    assert foveola.resume(run.path).path == run.path
    assert "is finished already" in capsys.readouterr().err
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()
    }


def test_another_number_of_threads_is_said_not_to_be_exact(toy, interrupted, capsys):
    import torch

    threads = torch.get_num_threads()
    try:
        run = resume(interrupted, toy, threads=threads + 1, verbose=True)
    finally:
        torch.set_num_threads(threads)
    assert f"not exact: threads {threads + 1} instead of {threads}" in capsys.readouterr().err.replace("\n", " ")
    assert run.status.status == "done"


def test_a_training_that_still_runs_is_not_resumed_and_not_replaced(toy, tmp_path, uninterrupted):
    class Meddling(Crashing):
        def on_step_end(self, fit):
            for meddle in (
                lambda: foveola.resume(tmp_path / "run", verbose=False),
                lambda: train(toy, tmp_path / "run"),
                lambda: train(toy, tmp_path / "run", force=True),
            ):
                with pytest.raises((ModelError, OutputError), match=r"Another training is writing to .*run"):
                    meddle()

    assert files(train(toy, tmp_path / "run", callbacks=[Meddling()]).path) == uninterrupted


def test_a_diverging_training_keeps_the_old_run(toy, tmp_path):
    run = train(toy, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(NonFiniteLoss):
        train(toy, run.path, force=True, overrides={"optimizer": "sgd", "learning_rate": 1e30})
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert run.status.status == "done"


def test_files_of_others_stay_through_interruption_resume_and_force(toy, interrupted):
    notes = [interrupted / "notes.txt", interrupted / "mine" / "deep.txt"]
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.write_text("two years of work")
    resume(interrupted, toy)
    train(toy, interrupted, force=True)
    assert [path.read_text() for path in notes] == ["two years of work"] * 2


# Disks


class Disk:
    """A disk on which a step of the save fails: opening, writing, flushing, renaming the file, flushing the folder.

    `log` has the steps of every save of the watched file, in order.
    """

    STEPS = ("open", "write", "fsync", "replace", "open folder", "fsync folder")

    def __init__(self, monkeypatch, watched: str) -> None:
        self.watched, self.log = watched, []
        self.fail_at: tuple[str, int] | None = None
        self.original = {"fsync": os.fsync, "replace": os.replace, "open": os.open, "io": io.open}
        monkeypatch.setattr(io, "open", self._open)
        for name in ("fsync", "replace", "open"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name if name != 'open' else 'os_open'}"))

    def _step(self, name: str) -> None:
        self.log.append(name)
        if self.fail_at is not None and self.fail_at[0] == name:
            raise OSError(self.fail_at[1], os.strerror(self.fail_at[1]))

    def _is_watched(self, path) -> bool:
        return self.watched in Path(path).name and Path(path).name.endswith(".tmp")

    def _open(self, file, mode="r", *arguments, **settings):
        if isinstance(file, int) or "w" not in mode or not self._is_watched(file):
            return self.original["io"](file, mode, *arguments, **settings)
        self._step("open")
        opened = self.original["io"](file, mode, *arguments, **settings)
        disk = self

        class File(type(opened)):
            def write(self, data):
                try:
                    disk._step("write")
                except OSError:
                    super().write(data[: len(data) // 2])
                    raise
                return super().write(data)

        opened.close()
        return File(io.FileIO(file, "w"))

    def _os_open(self, path, flags, *arguments, **settings):
        if isinstance(path, Path) and path.name == "checkpoint":
            self._step("open folder")
        return self.original["open"](path, flags, *arguments, **settings)

    def _fsync(self, descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self._is_watched(path):
            self._step("fsync")
        elif path.name == "checkpoint":
            self._step("fsync folder")
        return self.original["fsync"](descriptor)

    def _replace(self, source, target):
        if self._is_watched(source):
            self._step("replace")
        return self.original["replace"](source, target)


linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are found in /proc")


@linux
def test_a_save_is_written_flushed_renamed_and_the_folder_flushed(toy, tmp_path, monkeypatch):
    disk = Disk(monkeypatch, "state.safetensors")
    train(toy, tmp_path / "run")
    first = disk.log.index("open")  # before it, the request was saved, too
    assert disk.log[first : first + 6] == ["open", "write", "fsync", "replace", "open folder", "fsync folder"]
    assert disk.log.count("replace") >= 6


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_calls_of_a_save(tmp_path):
    trace, target = tmp_path / "trace", tmp_path / "folder" / "state"
    target.parent.mkdir()
    code = (
        "import sys, pathlib; from foveola.files import write_atomically as w; w(pathlib.Path(sys.argv[1]), b'whole')"
    )
    calls = "trace=openat,write,fsync,rename,renameat,renameat2"
    done = subprocess.run(
        ["strace", "-y", "-o", str(trace), "-e", calls, sys.executable, "-c", code, str(target)], capture_output=True
    )
    if b"ptrace" in done.stderr.lower() and done.returncode:
        pytest.skip("processes cannot be traced here")
    assert done.returncode == 0, done.stderr
    seen = [line for line in trace.read_text().splitlines() if str(target.parent) in line]
    assert [line.partition("(")[0] for line in seen] == ["openat", "write", "fsync", "rename", "openat", "fsync"]
    assert "O_WRONLY" in seen[0] and ".tmp" in seen[0]
    assert all(".tmp" in line for line in seen[1:4])
    assert f"fsync({seen[5].partition('(')[2].partition('<')[0]}<{target.parent}>)" in seen[5]


@linux
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", Disk.STEPS)
def test_a_save_that_fails_at_a_step_leaves_a_whole_checkpoint(toy, tmp_path, monkeypatch, uninterrupted, step, error):
    with monkeypatch.context() as patch:
        disk = Disk(patch, "state.safetensors")

        class FailLater(Crashing):
            def on_step_end(self, fit):
                disk.fail_at = (step, error) if fit.step == 4 else None

        with pytest.raises(OutputError, match=r"state\.safetensors cannot be written: .*foveola train --resume"):
            train(toy, tmp_path / "run", callbacks=[FailLater()])
        assert disk.log[-1] == step
    state = tmp_path / "run" / "checkpoint" / "state.safetensors"
    checkpoint._read(state)  # raises if it is not whole
    assert [path.name for path in state.parent.glob(".*.tmp")] == []
    assert files(resume(tmp_path / "run", toy, callbacks=[FailLater()]).path) == uninterrupted


@pytest.fixture
def mounted(tmp_path):
    """Function that mounts a file system in memory, with options; skipped where that is not allowed."""
    places = []

    def mount(options: str, remount: bool = False) -> Path:
        place = tmp_path / "volume"
        place.mkdir(exist_ok=True)
        what = f"remount,{options}" if remount else options
        if (
            shutil.which("mount") is None
            or subprocess.run(["mount", "-t", "tmpfs", "-o", what, "tmpfs", str(place)], capture_output=True).returncode
        ):
            pytest.skip("file systems cannot be mounted here")
        places.append(place)
        return place

    yield mount
    for place in dict.fromkeys(places):
        subprocess.run(["umount", str(place)], check=True)


def test_a_mount_point_is_a_runs_folder(toy, mounted, uninterrupted):
    volume = mounted("size=8m")
    with pytest.raises(Stop):
        train(toy, volume, callbacks=[Crashing(4)])
    assert files(resume(volume, toy).path) == uninterrupted
    assert files(train(toy, volume, force=True).path) == uninterrupted
    assert not (volume / "checkpoint").exists()


def test_a_full_disk_keeps_the_last_checkpoint_and_room_lets_it_go_on(toy, mounted, uninterrupted):
    with pytest.raises(OutputError, match=r"No space left on device.*Make room"):
        # Holds a checkpoint of 2.4 MB and not the next one beside it
        train(toy, mounted("size=4m") / "run", callbacks=[Crashing()])
    volume = mounted("size=32m", remount=True)
    assert files(resume(volume / "run", toy).path) == uninterrupted


def test_a_read_only_file_system_is_refused_before_the_data_is_read(mounted, tmp_path):
    volume = mounted("ro")
    with pytest.raises(OutputError, match="may write"):
        train(tmp_path / "no data", volume / "run")
