"""A run's folder while it is written: who may claim it, what is left alone, and when it is replaced."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from foveola import claims
from foveola.claims import Claim
from foveola.documents import RunStatus, TrainingRequest
from foveola.errors import ModelError, OutputError
from foveola.files import record_checksum, write_atomically
from foveola.runs import Run


@pytest.fixture
def status(toy_run) -> RunStatus:
    return Run.open(toy_run).status


REQUEST = TrainingRequest(data="digits", recipe=None, seed=0, device="cpu", threads=1, checkpoint_every=30)


def finish(path: Path, status: RunStatus, *, force: bool = False, files: dict[str, str] | None = None) -> None:
    """Write a run through a claim."""
    with Claim.take(path, force=force) as claim:
        claim.write_request(REQUEST)
        claim.begun = True
        for name, text in (files or {}).items():
            (claim.result.path / name).write_text(text)
        claim.result.write_status(status)
        claim.finish()


def content(path: Path) -> dict[str, str]:
    return {
        found.relative_to(path).as_posix(): found.read_text("utf-8") for found in path.rglob("*") if found.is_file()
    }


def test_a_run_is_whole_or_not_there(tmp_path, status):
    path = tmp_path / "deep" / "run"
    with Claim.take(path) as claim:
        claim.write_request(REQUEST)
        claim.begun = True
        claim.result.write_status(status)
        assert [inner.name for inner in path.iterdir()] == ["checkpoint"]
        with pytest.raises(ModelError, match="not finished"):
            Run.open(path)
        claim.finish()
    assert Run.open(path).status == status
    assert sorted(inner.name for inner in path.iterdir()) == ["SHA256SUMS", "run.json"]


def test_an_error_before_the_training_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Claim.take(tmp_path / "deep" / "run") as claim:
        claim.write_request(REQUEST)
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_claimed(tmp_path, status):
    finish(tmp_path, status)
    assert Run.open(tmp_path).status == status


def test_force_replaces_a_run_and_nothing_else(tmp_path, status):
    path = tmp_path / "run"
    finish(path, status, files={"report.html": "a page"})
    (path / "exports").mkdir()
    (path / "exports" / "model.onnx").write_bytes(b"a graph")
    record_checksum(path / "exports" / "model.onnx")
    with pytest.raises(OutputError, match="--force"):
        Claim.take(path)
    finish(path, status, force=True)
    assert sorted(inner.name for inner in path.iterdir()) == ["SHA256SUMS", "run.json"]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    with pytest.raises(OutputError, match="left alone"):
        Claim.take(tmp_path / "letters", force=True)


def test_force_keeps_the_old_run_until_the_new_one_is_whole(tmp_path, status):
    path = tmp_path / "run"
    finish(path, status, files={"history.csv": "old"})
    before = content(path)
    with pytest.raises(ZeroDivisionError), Claim.take(path, force=True) as claim:
        claim.write_request(REQUEST)
        claim.begun = True
        (claim.result.path / "history.csv").write_text("new")
        assert claim.keeps_old
        claim.show()
        _ = 1 / 0
    assert before.items() <= content(path).items()
    assert Run.open(path).status == status
    with Claim.resume(path) as claim:
        claim.discard()
    assert content(path) == before


def test_force_leaves_other_files_in_a_run(tmp_path, status):
    path = tmp_path / "run"
    finish(path, status)
    mine = [path / name for name in ("thesis.txt", "exports/notes.txt", "plots/a.png")]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("two years of work")
    (path / "exports" / "model.onnx").write_bytes(b"a graph")
    record_checksum(path / "exports" / "model.onnx")
    finish(path, status, force=True)
    kept = sorted(found for found in path.rglob("*") if found.is_file())
    assert kept == sorted([*mine, path / "run.json", path / "SHA256SUMS"])


@pytest.mark.parametrize("in_a_run", [False, True])
@pytest.mark.parametrize("name", ["model.pt", "state/epoch-1.pt"])
def test_a_foreign_folder_called_checkpoint_is_left_alone(tmp_path, status, name, in_a_run):
    if in_a_run:
        finish(tmp_path, status)
    mine = tmp_path / "checkpoint" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("two years of work")
    with pytest.raises(OutputError, match=r"not Foveola's, which are left alone"):
        Claim.take(tmp_path, force=True)
    assert mine.read_text() == "two years of work"


def test_a_file_that_somebody_puts_there_meanwhile_stays(tmp_path, monkeypatch):
    looks, look = [], claims._check_free

    def look_twice(path, force):
        look(path, force)
        looks.append(path)
        if len(looks) == 1:  # between the first look and the claim
            (path / "checkpoint").mkdir(parents=True)
            (path / "checkpoint" / "theirs.txt").write_text("theirs")

    monkeypatch.setattr(claims, "_check_free", look_twice)
    with pytest.raises(OutputError, match=r"not Foveola's, which are left alone: theirs.txt"):
        Claim.take(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint" / "theirs.txt").read_text() == "theirs"


@pytest.mark.parametrize("content", ['{"name": "build"}', "not JSON", "", "[]", '{"format": 1, "status": "done"}'])
def test_force_takes_only_foveolas_own_run_json_for_a_run(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "thesis.txt").write_text("two years of work")
    with pytest.raises(OutputError, match=r"not one of Foveola's.* left alone"):
        Claim.take(tmp_path, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "thesis.txt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="may write"):
        Claim.take(tmp_path / "run")


def test_a_folder_that_cannot_be_created(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        Claim.take(tmp_path / "run")


def test_only_one_of_two_processes_gets_a_folder(tmp_path):
    code = "import sys; from pathlib import Path; from foveola.claims import Claim; Claim.take(Path(sys.argv[1]))"
    with Claim.take(tmp_path / "run") as claim:
        claim.write_request(REQUEST)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, timeout=60
        )
        assert "Another training is writing to" in done.stderr
        with pytest.raises(ModelError, match="Another training is writing to"):
            Claim.resume(tmp_path / "run")
        claim.begun = True
    with pytest.raises(OutputError, match=r"not finished.*--resume.*--force"):
        Claim.take(tmp_path / "run")
    with Claim.resume(tmp_path / "run") as again:
        assert again.request == REQUEST
    with Claim.take(tmp_path / "run", force=True) as anew:
        assert [path.name for path in anew.folder.iterdir() if path.is_file()] == ["lock"]


def test_claims_without_a_name_get_folders_of_their_own(tmp_path):
    first, second = (Claim.take_new(tmp_path / "digits-fast") for _ in range(2))
    assert [claim.path.name for claim in (first, second)] == ["digits-fast", "digits-fast-2"]
    for claim in (first, second):
        claim.release()


@pytest.mark.parametrize("steps", range(8))
def test_a_publication_that_was_interrupted_is_finished(tmp_path, status, monkeypatch, steps):
    """However many of its moves and removals were done."""
    path = tmp_path / "run"
    finish(path, status, files={"history.csv": "old", "report.html": "old", "curves.png": "old"})
    new = {"history.csv": "new", "recipe.toml": "new"}
    left = steps

    def count(real):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    with Claim.take(path, force=True) as claim, monkeypatch.context() as patched:
        claim.write_request(REQUEST)
        claim.begun = True
        for name, text in new.items():
            (claim.result.path / name).write_text(text)
        claim.result.write_status(status)
        write_atomically(claim.folder / "publish.json", json.dumps([*new, "run.json"]))
        patched.setattr(claims.os, "replace", count(os.replace))
        patched.setattr(Path, "unlink", count(Path.unlink))
        with suppress(KeyboardInterrupt):
            claim.publish()
    assert Claim.resume(path) is None
    assert content(path).keys() - {"SHA256SUMS"} == {"run.json", *new}
    assert content(path).items() >= new.items()


def test_a_finished_run_needs_no_resume_and_others_say_what_they_are(tmp_path, status):
    finish(tmp_path / "done", status)
    assert Claim.resume(tmp_path / "done") is None
    for ended, expected in (("diverged", "lower|Lower"), ("interrupted", "no checkpoint"), ("failed", "no checkpoint")):
        finish(tmp_path / ended, status.model_copy(update={"status": ended}))
        with pytest.raises(ModelError, match=expected):
            Claim.resume(tmp_path / ended)
    with pytest.raises(ModelError, match="There is no run"):
        Claim.resume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "names", ["", "[", "3", '["history.csv"]', '["history.csv", "run.json", "../x"]', '["a", "run.json"]', "[[]]"]
)
def test_a_damaged_list_of_a_publication_moves_nothing(tmp_path, status, names):
    with Claim.take(tmp_path) as claim:
        claim.begun = True
        (claim.result.path / "history.csv").write_text("new")
        claim.result.write_status(status)
        (claim.folder / "publish.json").write_text(names)
    before = content(tmp_path)
    for _ in range(2):  # the refusal lets others claim the folder
        with pytest.raises(ModelError, match=r"publish\.json is damaged"):
            Claim.resume(tmp_path)
    assert content(tmp_path) == before


def test_what_a_killed_removal_has_left_goes(tmp_path, status):
    finish(tmp_path, status)
    (tmp_path / ".checkpoint-removed" / "result").mkdir(parents=True)
    assert Claim.resume(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "run.json"]


def test_a_training_that_was_ended_before_it_began_says_so(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "lock").touch()
    with pytest.raises(ModelError, match=r"ended before it began: there is nothing to go on with\. Train again"):
        Claim.resume(tmp_path)
    with Claim.take(tmp_path):
        pass
