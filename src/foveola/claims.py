"""A run's folder while it is written: claimed by one process, resumable, and replaced only by a whole run.

What an unfinished training needs lies in RUN/checkpoint; in the run's folder and not beside it, because a container's
volume has no beside:

    lock               held by the process that trains
    request.json       what was asked for: `foveola train --resume RUN` needs nothing else
    state.safetensors  the last checkpoint
    result/            the files of the run to be
    publish.json       their names, once all are on the disk: what is left is to move them into RUN
    tracker-NAME.json  how far a tracker has logged
"""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from foveola.documents import TrainingRequest
from foveola.errors import ModelError, OutputError
from foveola.files import (
    CHECKSUM_FILE,
    OPEN_FILES_STAY,
    check_writable,
    flush,
    flush_folder,
    is_empty_folder,
    lock,
    move,
    record_checksums,
    remove_listed,
    write_atomically,
    writing,
)
from foveola.runs import CHECKPOINT, EXPORTS, LOGS, STATUS_FILE, WRITTEN, Run
from foveola.text import escape_surrogates

_REQUEST, _RESULT, _PUBLISH, _LOCK = "request.json", "result", "publish.json", "lock"
# What other commands read, and check
_CHECKED = (STATUS_FILE, "recipe.toml", "history.csv", "model.safetensors", "model.onnx", "evaluation.json")
_STATE = "state.safetensors"
_OWN = re.compile(
    "|".join(map(re.escape, (_REQUEST, _RESULT, _PUBLISH, _LOCK, _STATE))) + r"|tracker-[a-z]+\.json|\..*\.tmp"
)
# A finished checkpoint folder is renamed before it is removed, so that it is never half there
_REMOVED = ".checkpoint-removed"


class Claim:
    """A run's folder, taken by this process until the block ends.

    Left with an error before the training has begun, the block leaves nothing behind; otherwise RUN/checkpoint stays,
    unless the run was published.

    Attributes
    ----------
    path : the run's folder
    result : the run to be, whose files are written in RUN/checkpoint/result
    keeps_old : whether a finished run lies in the folder, which stays until the new one is whole
    begun : to be set when the training begins
    """

    def __init__(self, path: Path, lock_descriptor: int, created: list[Path]) -> None:
        self.path = path
        self.folder = path / CHECKPOINT
        self.result = Run(self.folder / _RESULT)
        self.begun = False
        self.keeps_old = (path / STATUS_FILE).is_file() and Run.open(path).status.status in ("done", "imported")
        self._lock: int | None = lock_descriptor
        self._created = created

    @classmethod
    def take(cls, path: Path, *, force: bool = False) -> "Claim":
        """Claim a folder for a new run.

        Raises
        ------
        OutputError
            If something is there already (with `force`: something else than a run), another process is training there,
            or the folder cannot be written.
        """
        _check_free(path, force)
        claim = _lock(path)
        try:
            _check_free(path, force)  # again, now that no other training can change it
        except OutputError:
            claim._leave()
            claim.release()
            raise
        try:
            if claim._holds_training and not force:
                raise OutputError(
                    f"{path} holds a training that is not finished. Go on with it: foveola train --resume {path}; or "
                    f"begin anew with --force; or choose another --out."
                )
            with writing(path):
                claim._clear()
                claim.result.path.mkdir()
        except BaseException:
            if not claim._holds_training:
                claim.discard()
            claim.release()
            raise
        return claim

    @classmethod
    def take_new(cls, first: Path) -> "Claim":
        """Claim the first of NAME, NAME-2, NAME-3, … that does not exist yet.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        path, number = first, 1
        while True:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    path.mkdir()
                except FileExistsError:
                    number += 1
                    path = first.with_name(f"{first.name}-{number}")
                    continue
            return cls.take(path)

    @classmethod
    def resume(cls, path: Path) -> "Claim | None":
        """Claim the folder of an unfinished training; None if the run in it is finished.

        Raises
        ------
        ModelError
            If there is no training to go on with, or another process is at it.
        """
        folder = path / CHECKPOINT
        if not any((folder / name).is_file() for name in (_REQUEST, _PUBLISH)):
            _check_finished(path)
            shutil.rmtree(path / _REMOVED, ignore_errors=True)  # of a training that was killed while it removed it
            return None
        try:
            claim = _lock(path)
            claim.begun = True
            with writing(path):
                if (folder / _PUBLISH).is_file():
                    with claim:  # which lets others claim it, however this ends
                        claim.publish()
                    return None
                claim._clear_result()
        except OutputError as error:
            raise ModelError(str(error)) from None
        return claim

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not self.begun:
            self.discard()
        self.release()

    @property
    def state_path(self) -> Path:
        """The checkpoint's file."""
        return self.folder / _STATE

    def tracker_path(self, name: str) -> Path:
        """Where a tracker writes how far it has logged this training."""
        return self.folder / f"tracker-{name}.json"

    @property
    def request(self) -> TrainingRequest:
        return _read_request(self.folder / _REQUEST)

    def write_request(self, request: TrainingRequest) -> None:
        with writing(self.folder):
            write_atomically(self.folder / _REQUEST, request.to_json() + "\n")

    def finish(self) -> Run:
        """Put the result in the place of what was there, and remove the checkpoint.

        Of an old run, only files that a run consists of go. What is returned has read its documents, so that they are
        this training's, whoever claims the folder next.
        """
        with writing(self.path, f"Make room, and go on: foveola train --resume {self.path}"):
            record_checksums(self.result.path, _CHECKED)
            names = sorted(path.name for path in self.result.path.iterdir())
            for name in names:
                flush(self.result.path / name)
            flush_folder(self.result.path)
            write_atomically(self.folder / _PUBLISH, json.dumps(names))
            self.publish()
        run = Run(self.path)
        _ = run.status, run.evaluation_path.exists() and run.evaluation
        return run

    def publish(self) -> None:
        """Move the whole result into the run's folder; goes on with a move that was interrupted."""
        names = self._published_names()
        if (self.result.path / STATUS_FILE).exists():
            (self.path / STATUS_FILE).unlink(missing_ok=True)  # until its new one, moved last, there is no run
        for name in sorted(names, key=lambda name: name == STATUS_FILE):
            if (self.result.path / name).exists():
                move(self.result.path / name, self.path / name)
        for name in set(WRITTEN).difference(names):
            (self.path / name).unlink(missing_ok=True)
        for exports in EXPORTS:
            remove_listed(self.path / exports)
        flush_folder(self.path)
        self._remove()

    def _published_names(self) -> list[str]:
        """What publish.json names: every file of the result, moved already or not.

        Raises
        ------
        ModelError
            If it is damaged: files that it does not name would be lost.
        """
        path = self.folder / _PUBLISH
        try:
            names = json.loads(path.read_bytes())
            left = {inner.name for inner in _inside(self.result.path)}
            whole = isinstance(names, list) and left <= set(names) <= {STATUS_FILE, *WRITTEN}
            whole = whole and all(name in left or (self.path / name).is_file() for name in names)
        except (OSError, ValueError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise ModelError(f"{path} is damaged, or lies in another folder. Train again with --force.")
        return [str(name) for name in names]

    def show(self) -> None:
        """Show how far an unfinished run has come, unless an old run lies in the folder; the checkpoint stays."""
        if self.keeps_old:
            return
        (self.path / CHECKSUM_FILE).unlink(missing_ok=True)
        for path in sorted(self.result.path.iterdir(), key=lambda path: path.name == STATUS_FILE):
            write_atomically(self.path / path.name, path.read_bytes())

    def discard(self) -> None:
        """Remove the checkpoint, and the folders that the claim has made."""
        self._remove()
        for folder in self._created:
            if is_empty_folder(folder):
                folder.rmdir()

    def _leave(self) -> None:
        """Take back what `_lock` has made, and nothing else: what came meanwhile is somebody else's."""
        if [inner.name for inner in _inside(self.folder)] == [_LOCK]:
            self._close_lock_that_stays()
            with suppress(PermissionError):  # where somebody else has taken it meanwhile
                (self.folder / _LOCK).unlink()
        for folder in (self.folder, *self._created):
            if is_empty_folder(folder):
                folder.rmdir()

    def release(self) -> None:
        """Let others claim the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close_lock_that_stays(self) -> None:
        """Release the folder before its end where a lock that is open could not be removed."""
        if OPEN_FILES_STAY:
            self.release()

    @property
    def _holds_training(self) -> bool:
        return any((self.folder / name).is_file() for name in (_REQUEST, _PUBLISH))

    def _clear(self) -> None:
        """Remove what an earlier training has left."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        shutil.rmtree(self.path / _REMOVED, ignore_errors=True)

    def _clear_result(self) -> None:
        """Remove files of a result that was not finished, and temporary ones that a killed process has left."""
        shutil.rmtree(self.result.path, ignore_errors=True)
        self.result.path.mkdir()
        for path in self.folder.glob(".*.tmp"):
            path.unlink()

    def _remove(self) -> None:
        shutil.rmtree(self.path / _REMOVED, ignore_errors=True)
        self._close_lock_that_stays()
        move(self.folder, self.path / _REMOVED)
        shutil.rmtree(self.path / _REMOVED, ignore_errors=True)


def unfinished_request(path: Path) -> TrainingRequest | None:
    """What the unfinished training in a run's folder was asked for; None if there is none."""
    request = path / CHECKPOINT / _REQUEST
    return _read_request(request) if request.is_file() else None


def has_checkpoint(path: Path) -> bool:
    """Whether an unfinished training in a run's folder can go on from where it was, or has only to be put in place."""
    folder = path / CHECKPOINT
    return (folder / _PUBLISH).is_file() or all((folder / name).is_file() for name in (_REQUEST, _STATE))


def _read_request(path: Path) -> TrainingRequest:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. Train again, with --force.") from None
    return TrainingRequest.from_json(content, str(path))


def _lock(path: Path) -> Claim:
    """Make the folder, if need be, and lock it.

    Raises
    ------
    OutputError
        If another process holds it, or it cannot be written.
    """
    folder = path / CHECKPOINT
    created = [place for place in (path, *path.absolute().parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = lock(folder / _LOCK)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}. Choose another --out.") from None
    if descriptor is None:
        raise OutputError(
            f"Another training is writing to {path} at this moment. Wait for it, or choose another --out."
        )
    try:
        return Claim(path, descriptor, created)
    except ModelError:
        os.close(descriptor)
        raise


def _check_free(path: Path, force: bool) -> None:
    """Check, without changing anything, that a new run may be written there."""
    if escape_surrogates(str(path)) != str(path):
        raise OutputError(f"{path} is not UTF-8, so that model files in it could not be opened. Choose another --out.")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, so that no run can be written there. Choose another folder with --out.")
    check_writable(path)
    if not path.is_dir():
        return
    if (path / STATUS_FILE).is_file():
        if not force:
            raise OutputError(f"{path} already holds a run. Choose another --out, or replace it with --force.")
        _check_replaceable(path)
    elif others := {inner.name for inner in path.iterdir()} - {CHECKPOINT, _REMOVED, *LOGS}:
        raise OutputError(f"{path} holds files, which are left alone: {min(others)}. Choose another --out.")
    if foreign := [inner.name for inner in _inside(path / CHECKPOINT) if not _OWN.fullmatch(inner.name)]:
        raise OutputError(
            f"{path / CHECKPOINT} holds files that are not Foveola's, which are left alone: {min(foreign)}. "
            f"Choose another --out."
        )


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _check_replaceable(path: Path) -> None:
    try:
        Run.open(path)
    except ModelError:
        raise OutputError(
            f"{path / STATUS_FILE} is not one of Foveola's, or is damaged, so that even with --force the folder is "
            f"left alone. Choose another --out."
        ) from None


def _check_finished(path: Path) -> None:
    """Refuse to go on with anything but a finished run, which needs nothing more."""
    if (path / CHECKPOINT).is_dir() and not (path / STATUS_FILE).exists():
        raise ModelError(
            f"The training of {path} was ended before it began: there is nothing to go on with. Train again with "
            f"--out {path}"
        )
    status = Run.open(path).status.status
    if status == "diverged":
        raise ModelError(
            f"The training of {path} has diverged: going on would give the same. Lower the learning rate, and train "
            f"again."
        )
    if status != "done":
        raise ModelError(f"{path} has no checkpoint to go on from: it was {status}. Train again, with --force.")
