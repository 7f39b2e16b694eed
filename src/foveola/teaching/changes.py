"""Changes of a project: written down before they are made, so that each can be undone, also after a crash.

A change is a list of moves inside the project's folder; what is deleted moves into FOLDER/.foveola/bin/NUMBER, where
the record of its change is. Undoing makes the moves in reverse, as far as they were made.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from foveola.errors import UserError
from foveola.files import flush_folder, write_atomically
from foveola.inputs.find import is_image, is_junk
from foveola.text import printable

HIDDEN = ".foveola"
"""The folder in a project that holds everything but its pictures; readers of image folders ignore it."""

MAX_UNDO = 100
"""The last changes, which can be undone; what older ones deleted stays in the bin until it is emptied."""

_RECORD = "change.json"
_NUMBER = re.compile("[0-9]{6,}")
_MAX_RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Change:
    """A change of a project.

    Parameters
    ----------
    text : what it does, such as "delete class cup (12 images)"
    moves : paths before and after, in order, each CLASS, CLASS/FILE or a place in the bin
    made : class folders that it makes
    """

    text: str
    moves: tuple[tuple[str, str], ...] = ()
    made: tuple[str, ...] = ()


class BinSize(NamedTuple):
    """Images in the bin, and bytes of all files there."""

    images: int
    bytes: int


class Changes:
    """The changes of a project that can be undone.

    Parameters
    ----------
    root : the project's folder
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bin = root / HIDDEN / "bin"
        self._size: BinSize | None = None  # not known since the last change
        self._sizes: dict[int, BinSize] = {}  # of what each change has deleted
        numbers = self._numbers()
        self._next = numbers[-1] + 1 if numbers else 1
        found = ((number, _read(self._record(number))) for number in numbers[-MAX_UNDO:])
        self._last = [(number, change) for number, change in found if change is not None]

    @property
    def undo_text(self) -> str | None:
        """What the last change has done; None if there is nothing to undo."""
        return self._last[-1][1].text if self._last else None

    @property
    def next_bin(self) -> str:
        """Where the next change puts what it deletes."""
        return f"{HIDDEN}/bin/{self._next:06d}"

    @property
    def bin_size(self) -> BinSize:
        """What was deleted, and is still there."""
        if self._size is None:
            numbers = self._numbers()
            for number in set(numbers) - self._sizes.keys():
                self._sizes[number] = _size(self._record(number).parent)
            sizes = [self._sizes[number] for number in numbers]
            self._size = BinSize(sum(one.images for one in sizes), sum(one.bytes for one in sizes))
        return self._size

    def make(self, change: Change) -> None:
        """Make a change; if that fails, everything is as it was.

        Raises
        ------
        UserError
            If something lies where something would be moved.
        OSError
            If something cannot be moved or written.
        """
        for source, target in change.moves:
            _refuse_existing(self._root / source, self._root / target)
        number, done = self._next, 0
        self._next, self._size = self._next + 1, None
        record = self._record(number)
        record.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(record, json.dumps(asdict(change)))
            flush_folder(self._bin)
            for name in change.made:
                (self._root / name).mkdir()
            for source, target in change.moves:
                (self._root / target).parent.mkdir(exist_ok=True)
                (self._root / source).rename(self._root / target)
                done += 1
            self._flush(change)
        except OSError:
            with suppress(OSError):
                self._reverse(replace(change, moves=change.moves[:done]))
                self._forget(number)
            raise
        self._last = [*self._last, (number, change)][-MAX_UNDO:]

    def undo(self) -> str | None:
        """Undo the last change; what it had done, None if there is nothing to undo.

        Raises
        ------
        OSError
            If something cannot be moved; undoing can then be tried again.
        """
        if not self._last:
            return None
        number, change = self._last[-1]
        self._size = None
        self._sizes.pop(number, None)
        self._reverse(change)
        self._flush(change)
        self._last.pop()
        self._forget(number)
        return change.text

    def empty_bin(self) -> None:
        """Delete what is in the bin for good; the last change that deleted something, and those before, are forgotten.

        Raises
        ------
        OSError
            If something cannot be deleted; it stays in the bin, and can be deleted later.
        """
        deletions = [place for place, (_, change) in enumerate(self._last) if _deletes(change)]
        self._last, self._size, self._sizes = self._last[deletions[-1] + 1 if deletions else 0 :], None, {}
        kept = {number for number, _ in self._last}
        emptied = [number for number in self._numbers() if number not in kept]
        for number in emptied:  # first, so that no change is undone of which a part is gone
            self._record(number).unlink(missing_ok=True)
        for number in emptied:
            shutil.rmtree(self._record(number).parent)
        flush_folder(self._bin)

    def keep_made(self, name: str) -> None:
        """Forget that a class folder was made: there is something in it now, which undoing must not touch."""
        for number, change in [one for one in self._last if one[1].made == (name,)]:
            self._last.remove((number, change))
            with suppress(OSError):
                self._forget(number)

    def _reverse(self, change: Change) -> None:
        for source, target in reversed(change.moves):
            if os.path.lexists(self._root / target):
                _move_back(self._root / target, self._root / source)
        for name in change.made:
            with suppress(OSError):  # there is something in it
                (self._root / name).rmdir()

    def _flush(self, change: Change) -> None:
        places = {(self._root / path).parent for move in change.moves for path in move}
        for place in places | {self._root}:
            if place.is_dir():
                flush_folder(place)

    def _numbers(self) -> list[int]:
        """The changes of which there is something in the bin, in order."""
        return sorted(int(path.name) for path in _folders(self._bin) if _NUMBER.fullmatch(path.name))

    def _record(self, number: int) -> Path:
        return self._bin / f"{number:06d}" / _RECORD

    def _forget(self, number: int) -> None:
        record = self._record(number)
        record.unlink(missing_ok=True)
        for folder in (*_folders(record.parent), record.parent):
            with suppress(OSError):  # something is left in it
                folder.rmdir()


def free_path(path: Path) -> Path:
    """The path, or NAME-2, NAME-3, … if there is something there."""
    free, number = path, 1
    while os.path.lexists(free):
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _move_back(source: Path, target: Path) -> None:
    """Move a file or a class folder; into a folder that is there again, file by file, and beside files that are."""
    if source.is_dir() and not source.is_symlink() and os.path.lexists(target):
        for file in list(source.iterdir()):
            file.rename(free_path(target / file.name))
        source.rmdir()
        return
    target.parent.mkdir(exist_ok=True)
    source.rename(free_path(target))


def _refuse_existing(source: Path, target: Path) -> None:
    """Renaming would replace a file without a word; the target may be the source in other letters."""
    if os.path.lexists(target) and not target.samefile(source):
        raise UserError(
            f"There is {printable(target.name)!r} in the folder already, and nothing is replaced. Move it "
            f"elsewhere, or choose another name."
        )


def _folders(place: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (Path(entry.path) for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))


def _size(folder: Path) -> BinSize:
    images = size = 0
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names if name != _RECORD):
            with suppress(FileNotFoundError):  # somebody else has removed it
                size += path.lstat().st_size
                images += is_image(path)
    return BinSize(images, size)


def _deletes(change: Change) -> bool:
    return any(target.startswith(f"{HIDDEN}/") for _, target in change.moves)


def _read(record: Path) -> Change | None:
    """The change, if the record is whole, and names nothing outside classes and bin."""
    try:
        if record.is_symlink() or record.stat().st_size > _MAX_RECORD_BYTES:
            return None
        document = json.loads(record.read_bytes())
        moves = tuple((str(source), str(target)) for source, target in document["moves"])
        change = Change(str(document["text"]), moves, tuple(map(str, document["made"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    paths = [path for move in change.moves for path in move]
    return change if all(map(_is_inside, (*paths, *change.made))) else None


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if parts[:2] == (HIDDEN, "bin"):
        parts = parts[2:]
        return len(parts) in (2, 3) and _NUMBER.fullmatch(parts[0]) is not None and not any(map(_is_special, parts))
    return len(parts) in (1, 2) and not is_junk(parts[0]) and not any(map(_is_special, parts))


def _is_special(part: str) -> bool:
    """Whether a path's part leads elsewhere, such as ".." or, on Windows, "C:", or is the record's own name."""
    return part.casefold() in ("..", _RECORD) or PurePath(part).name != part or "\0" in part
