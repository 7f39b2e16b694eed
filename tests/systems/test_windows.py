"""Commands and parts where Windows differs, with its answers to system calls (see conftest) or its branch taken."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola import cli, files
from foveola.claims import Claim
from foveola.datasets import packed
from foveola.errors import UserError
from foveola.files import in_order, move, safe_stem
from foveola.recipe import load_recipe
from foveola.serving import server
from foveola.serving.collect import is_class_folder_name
from foveola.serving.settings import Settings
from foveola.teaching import attached, changes, commands, jobs
from foveola.teaching.project import Project
from foveola.training.stopping import StopSignals
from foveola.workflow import study


@pytest.fixture
def pictures(tmp_path):
    """Two classes of twelve grey pictures each."""
    for label, name in enumerate("ab"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[2:6, 1 + 3 * label : 3 + 3 * label] = 250
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


# Files that are open


def test_the_stand_in_refuses_what_windows_refuses(windows, tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    with path.open("w") as file:
        for action in (path.unlink, lambda: path.parent.rename(tmp_path / "other"), lambda: move(path, tmp_path / "b")):
            with pytest.raises(PermissionError):
                action()
        assert file.writable()
    with path.open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        os.fsync(file.fileno())
    path.unlink()


def test_a_training_is_published_replaced_and_read(windows, toy_npz, tiny, foveola_command):
    train = ("train", toy_npz, "--recipe", tiny, "--out", "run", "--no-report", "--quiet")
    for more in ((), ("--force",)):
        outcome = foveola_command(*train, *more)
        assert (outcome.code, outcome.err) == (0, "")
        assert not Path("run/checkpoint").exists()
    assert foveola_command("evaluate", "run", toy_npz, "--quiet").code == 0
    exported = foveola_command("export", "run", "--quiet")
    assert (exported.code, exported.err) == (0, "")
    assert not list(Path("run").rglob(".*"))


def test_a_training_that_cannot_begin_leaves_nothing(windows, toy_npz, tiny, tmp_path):
    with pytest.raises(ZeroDivisionError), Claim.take(tmp_path / "deep" / "run"):
        _ = 1 / 0
    assert not (tmp_path / "deep").exists()


def test_a_training_goes_on(windows, toy_npz, tiny, tmp_path):
    class Interrupt(foveola.Callback):
        def on_epoch_end(self, fit):
            if fit.epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        foveola.train(toy_npz, tiny, out=tmp_path / "run", callbacks=[Interrupt()], verbose=False)
    assert (tmp_path / "run" / "checkpoint").is_dir()
    with Claim.resume(tmp_path / "run") as claim:
        claim.discard()
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_data_is_packed_and_replaced(windows, pictures, tmp_path):
    for _ in range(2):
        foveola.pack(pictures, tmp_path / "packed", processes=1, force=True, verbose=False)
    assert {path.name for path in (tmp_path / "packed").iterdir()} <= set(packed.FILES)
    assert len(foveola.load(tmp_path / "packed").train) == 24


def test_pages_and_pictures_are_written(windows, toy_run, pictures, foveola_command):
    assert foveola_command("explain", toy_run, pictures / "a" / "1.png", "--out", "page").code == 0
    assert foveola_command("predict", toy_run, pictures / "a", "--show", "shown").code == 0
    assert len(list(Path("shown").iterdir())) == 12


def test_a_project_changes(windows, pictures):
    project = Project(pictures)
    ids = [one.id for one in project.pictures("a")]
    project.move(ids[:2], "b")
    project.delete(ids[2:4])
    project.rename_class("a", "c")
    while project.undo() is not None:
        pass
    assert project.counts() == {"a": 12, "b": 12}
    project.close()


def test_what_is_open_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "new").touch()
    replace, refused = os.replace, [PermissionError(), PermissionError()]

    def replace_later(source, target):
        if refused:
            raise refused.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_later)
    with pytest.raises(PermissionError):
        move(tmp_path / "new", tmp_path / "file")
    monkeypatch.setattr(files, "OPEN_FILES_STAY", True)
    move(tmp_path / "new", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_is_windows_own(tmp_path, monkeypatch):
    held = set()

    def locking(descriptor, mode, count):
        assert (mode, count) == (2, 1)
        if held & {os.fstat(descriptor).st_ino}:
            raise PermissionError
        held.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(files, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    first = files.lock(tmp_path / "lock")
    assert first is not None
    assert files.lock(tmp_path / "lock") is None
    os.close(first)


# Names


def test_files_have_the_same_order_everywhere():
    paths = [PureWindowsPath(name) for name in ("b.png", "B.png", "a/2.png", "a-b/1.png", "C.png")]
    assert [path.as_posix() for path in in_order(paths)] == ["B.png", "C.png", "a/2.png", "a-b/1.png", "b.png"]
    assert sorted(paths) != in_order(paths)


@pytest.mark.parametrize("name", ["con", "NUL", "aux.png", "Com1", "lpt9.tar.gz", "CONOUT$", "prn .x", "com¹"])
def test_devices_are_no_classes(name):
    assert not is_class_folder_name(name)


@pytest.mark.parametrize("name", ["cone", "null", "com", "com10", "lpt", "auxiliary", "a.con"])
def test_names_like_those_of_devices_are(name):
    assert is_class_folder_name(name)


def test_the_beginning_of_a_files_name_is_one_everywhere():
    assert safe_stem('data/row 3 of a:b?"*.png') == "row 3 of a_b___"
    assert safe_stem(f"{'x' * 100}.png") == 60 * "x"


@pytest.mark.parametrize("path", ["C:/cup", "C:cup", "..", "cup/C:", "cup/a\\b.png", ".foveola/bin/000001/CHANGE.JSON"])
def test_an_undo_stays_in_the_project(monkeypatch, path):
    monkeypatch.setattr(changes, "PurePath", PureWindowsPath)
    assert not changes._is_inside(path)
    assert changes._is_inside("cup/picture-1.png")


def test_pictures_whose_names_differ_in_case_are_moved_side_by_side(pictures):
    (pictures / "c").mkdir()
    (pictures / "a" / "1.png").rename(pictures / "a" / "Same.png")
    (pictures / "b" / "1.png").rename(pictures / "b" / "same.PNG")
    project = Project(pictures)
    chosen = [one.id for name in "ab" for one in project.pictures(name) if one.path.stem.lower() == "same"]
    project.move(chosen, "c")
    assert sorted(one.path.name for one in project.pictures("c")) == ["Same.png", "same-2.PNG"]
    project.close()


# Texts


def test_files_with_a_mark_of_byte_order_are_read(tmp_path, tiny, monkeypatch, foveola_command, toy_run):
    recipe = tmp_path / "marked.toml"
    recipe.write_bytes(b"\xef\xbb\xbf" + tiny.read_bytes().replace(b"\n", b"\r\n"))
    assert load_recipe(recipe).layers == load_recipe(tiny).layers
    (tmp_path / "foveola.toml").write_bytes(b"\xef\xbb\xbfquiet = true\r\n")
    assert foveola_command("train", "nowhere").code == 2
    space = tmp_path / "space.toml"
    space.write_bytes(b"\xef\xbb\xbf[learning_rate]\r\nlow = 0.001\r\nhigh = 0.1\r\n")
    outcome = foveola_command("tune", "digits", "--space", space, "--show-space")
    assert tomllib.loads(outcome.out)["learning_rate"]["low"] == 0.001


def test_a_path_that_is_too_long_for_windows_is_the_users_to_shorten(foveola_command, monkeypatch):
    error = OSError(2, "The filename or extension is too long")
    error.winerror = 206

    def fail():
        raise error

    monkeypatch.setattr("foveola.workflow.environment.describe_environment", fail)
    outcome = foveola_command("info")
    assert outcome.code == 2
    assert "too long for this system" in outcome.err


def test_commands_are_shown_as_the_shell_takes_them(monkeypatch):
    words = ["train", "my pictures", "--groups", "(a|b)"]
    assert commands.shown(words) == "foveola train 'my pictures' --groups '(a|b)'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert commands.shown(words) == 'foveola train "my pictures" --groups (a|b)'


# Signals and processes


def test_ctrl_break_ends_a_training_as_ctrl_c_does(monkeypatch):
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)  # a signal that this system can send
    with pytest.raises(SystemExit) as ended, StopSignals():
        signal.raise_signal(signal.SIGBREAK)
    assert ended.value.code == 128 + signal.SIGUSR1
    assert cli._ENDED[128 + 21] == "Ended by Ctrl+Break."


def test_a_job_is_asked_to_end_by_its_standard_input(monkeypatch):
    code = (
        "import sys, signal, threading\n"
        "from foveola.teaching import attached\n"
        "sys.platform = 'win32'\n"
        "signal.signal(signal.SIGTERM, lambda *given: sys.exit(7))\n"
        "threading.Thread(target=attached._end_with_input, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "while True: threading.Event().wait(0.05)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        monkeypatch.setattr(sys, "platform", "win32")
        jobs._end(process)
        assert process.wait(attached.GRACE_SECONDS) == 7


def test_a_command_that_was_killed_has_a_reason(windows):
    assert "memory" in jobs._reason([], -9)


def test_nobody_asks_windows_whether_a_process_is_alive(windows, monkeypatch):
    monkeypatch.setattr(study, "os", SimpleNamespace(name="nt", getpid=os.getpid))
    assert study._this_process()["start"] is None


def test_a_server_on_windows_has_one_worker(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match="Leave out --workers"):
        server.run(print, Settings(port=0, workers=2), announce=print)
