"""The project: an image folder whose classes and pictures are changed by requests, and by whoever else writes there."""

import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from foveola.datasets import layout
from foveola.errors import UserError
from foveola.files import write_atomically, writing
from foveola.serving.collect import is_class_folder_name
from foveola.serving.refusals import Refused
from foveola.teaching.changes import HIDDEN, BinSize, Change, Changes
from foveola.teaching.listing import MAX_OPENED, RECORDING, Listing, Picture, identify
from foveola.teaching.open_folder import claim, open_folder
from foveola.text import class_name, printable

MAX_PICTURES, MAX_CLASSES = 20_000, 1_000
"""To a larger project nothing is added."""

_TEMPORARY = re.compile(r"\.(picture-[0-9a-f]{16}|recording-[0-9a-f]{8}_[0-9]{4,})\.(png|jpg)\.[0-9]+\.tmp")
_MAX_KEPT_BYTES = 32 * MAX_OPENED
_PICTURE_BYTES = 8  # in the random names of pictures
_VANISHED = 410


class Project:
    """An image folder that grows: FOLDER/CLASS/PICTURE. Safe for use by several threads.

    Parameters
    ----------
    folder : made if it does not exist

    Raises
    ------
    UserError
        If it is not an image folder without splits, or cannot be written.

    Attributes
    ----------
    lock : hold it to keep what several calls have found true; the calls take it themselves
    on_change : functions without arguments, called after every change, in the thread that has made it
    """

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.on_change: list[Callable[[], None]] = []
        self.folder = open_folder(folder)
        self.hidden = self.folder / HIDDEN
        self._claim: int | None = claim(self.hidden)
        self._listing = Listing(self.folder)
        try:
            with writing(self.folder, "Choose another folder."):
                self._changes = Changes(self.folder)
                self._kept = _read_kept(self._kept_file)
                self._listing.read()
                self._remove_temporaries()
        except BaseException:
            self.close()
            raise
        self._frames = Counter[str]()  # of each recording, the largest number
        for picture in self._listing.all_pictures():
            self._note_frame(picture.path.stem)

    def close(self) -> None:
        """Let another process open the folder."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    # What there is

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self._listing.count

    def refresh(self) -> None:
        """See what others have changed in the folder; cheap if they have not.

        Raises
        ------
        Refused
            If the folder cannot be read, or is not there any more.
        UserError
            If it cannot be used any more.
        """
        with self.lock, self._storage("The folder cannot be read"):
            before = self._listing.state()
            self._listing.read()
            changed = before != self._listing.state()
        if changed:
            self._tell()

    def counts(self) -> dict[str, int]:
        """Number of pictures by class, in natural order of the names."""
        with self.lock:
            return self._listing.counts()

    def pictures(self, name: str) -> list[Picture]:
        """The pictures of a class, oldest first.

        Raises
        ------
        UserError
            If there is no such class.
        """
        with self.lock:
            return list(self._listing.class_folder(name).pictures.values())

    def all_pictures(self) -> list[Picture]:
        """The pictures of all classes."""
        with self.lock:
            return self._listing.all_pictures()

    def picture(self, identifier: str) -> Picture | None:
        """The picture with an id; None if there is none."""
        return self._listing.picture(identifier)

    def picture_with(self, key: str) -> Picture | None:
        """The picture whose file has a key; None if there is none."""
        return self._listing.picture_with(key)

    def picture_at(self, path: str | Path) -> Picture | None:
        """The picture of a path, given relative to the folder or beginning with it; None if there is none."""
        return self._listing.picture_at(path)

    @property
    def undo_text(self) -> str | None:
        """The last change, which `undo` undoes; None if there is none."""
        return self._changes.undo_text

    @property
    def bin_size(self) -> BinSize:
        """What was deleted, and is still in the bin."""
        with self.lock:
            return self._changes.bin_size

    @property
    def notes(self) -> list[str]:
        """What lies in the folder and is not shown, a sentence each."""
        with self.lock:
            found = self._listing.others()
        if not found:
            return []
        listed = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        return [
            f"Not shown, because only image files directly in class folders are: {printable(listed)} "
            f"({len(found):,} in all). Training may refuse them: move them elsewhere."
        ]

    # Changes

    def add_class(self, name: str) -> None:
        """Make a class.

        Raises
        ------
        UserError
            If it cannot have this name, or there is one.
        Refused
            If the folder cannot be written.
        """
        with self._changing():
            name = self._new_name(name)
            if len(self._listing.classes) >= MAX_CLASSES:
                raise UserError(f"The project has {MAX_CLASSES:,} classes, the most that it can have.")
            self._changes.make(Change(f"add class {name}", made=(name,)))

    def rename_class(self, name: str, to: str) -> None:
        """Rename a class; raises as `add_class`."""
        with self._changing():
            folder = self._listing.class_folder(name).folder
            to = self._new_name(to, instead_of=name)
            if to != folder.name:
                self._changes.make(Change(f"rename class {name} to {to}", ((folder.name, to),)))
                self._rename_kept(name, to)

    def delete_class(self, name: str) -> None:
        """Move a class with its pictures into the bin; raises as `add_class`."""
        with self._changing():
            one = self._listing.class_folder(name)
            text = f"delete class {name} ({_counted(len(one.pictures))})"
            self._changes.make(Change(text, ((one.folder.name, f"{self._changes.next_bin}/{one.folder.name}"),)))

    def move(self, identifiers: Sequence[str], to: str) -> None:
        """Move pictures to a class, all or none; raises as `add_class`."""
        with self._changing():
            folder = self._listing.class_folder(to).folder
            pictures = [one for one in self._found(identifiers) if one.path.parent != folder]
            if not pictures:
                return
            taken: set[str] = set()
            moves = []
            for picture in pictures:
                target = _free_name(folder, picture.path.name, taken)
                taken.add(target.casefold())
                moves.append((self._relative(picture.path), f"{folder.name}/{target}"))
            self._changes.make(Change(f"move {_counted(len(moves))} to {to}", tuple(moves)))
            self._changes.keep_made(folder.name)

    def delete(self, identifiers: Sequence[str]) -> None:
        """Move pictures into the bin, all or none; raises as `add_class`."""
        with self._changing():
            place = self._changes.next_bin
            names = [self._relative(picture.path) for picture in self._found(identifiers)]
            if names:
                text = f"delete {_counted(len(names))}"
                self._changes.make(Change(text, tuple((name, f"{place}/{name}") for name in names)))

    def undo(self) -> str | None:
        """Undo the last change that is not undone yet; what it had done, None if there is none."""
        with self._changing():
            return self._changes.undo()

    def empty_bin(self) -> None:
        """Delete what is in the bin for good; the last deletion, and changes before it, cannot be undone any more.

        Raises
        ------
        Refused
            If something cannot be deleted.
        """
        with self.lock, self._storage("The bin cannot be emptied", "What is left is still in the bin"):
            self._changes.empty_bin()
        self._tell()

    def add(self, name: str, content: bytes, suffix: str, recording: str | None = None) -> Picture:
        """Write a picture; when this returns, it is on the disk.

        Parameters
        ----------
        name : of its class
        content : an image file
        suffix : .png or .jpg
        recording : any text that names the recording of which it is a frame

        Raises
        ------
        UserError
            If there is no such class.
        Refused
            If there is no room for it.
        """
        with self.lock, self._storage():
            one = self._listing.class_folder(name)
            if self.count >= MAX_PICTURES:
                raise Refused(
                    507,
                    f"The project is full: it has {self.count:,} images of at most {MAX_PICTURES:,}. Delete some, or "
                    f"train from the command line, which takes more.",
                )
            if one.folder.is_symlink():
                raise Refused(507, f"The folder of {name} has become a link, which may lead elsewhere. Remove it.")
            untouched = one.folder.stat().st_mtime_ns == one.changed
            path = self._new_path(one.folder, recording, suffix)
            write_atomically(path, content)
            picture = self._listing.add(name, path, changed=one.folder.stat().st_mtime_ns if untouched else None)
            self._changes.keep_made(one.folder.name)
        self._tell()
        return picture

    # Suspects that somebody has looked at

    def keep(self, identifiers: Sequence[str]) -> None:
        """Remember that pictures are in the right class; raises as `add_class`."""
        with self.lock, self._storage():
            self._kept |= {picture.id for picture in self._found(identifiers)}
            self._write_kept()

    def is_kept(self, identifier: str) -> bool:
        """Whether somebody has said that a picture is in the right class; moving it ends that."""
        return identifier in self._kept

    @property
    def _kept_file(self) -> Path:
        return self.hidden / "kept.json"

    def _rename_kept(self, name: str, to: str) -> None:
        renamed = {identify(name, file): identify(to, file) for file in self._listing.class_folder(name).pictures}
        if self._kept & renamed.keys():
            self._kept = {renamed.get(one, one) for one in self._kept}
            self._write_kept()

    def _write_kept(self) -> None:
        write_atomically(self._kept_file, json.dumps(sorted(self._kept)))

    def _remove_temporaries(self) -> None:
        """Remove what a process that was killed while it wrote a picture has left."""
        for one in self._listing.classes.values():
            for path in one.folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    # What changes need

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make a change: seen from outside as a whole, read again, told."""
        with self.lock, self._storage():
            self._listing.read()
            try:
                yield
            finally:
                self._listing.read_anew()
        self._tell()

    @contextmanager
    def _storage(
        self, problem: str = "The change cannot be written", outcome: str = "Nothing was changed"
    ) -> Iterator[None]:
        """Word what the operating system refuses."""
        try:
            yield
        except OSError as error:
            if not self.folder.is_dir():
                raise Refused(
                    _VANISHED,
                    "The project's folder is not there any more. Put it back, or connect its disk again; nothing was "
                    "written elsewhere.",
                ) from error
            raise Refused(
                507,
                f"{problem}: {error.strerror}. {outcome}; make room on the disk or change the folder's "
                f"permissions, and try again.",
            ) from error

    def _tell(self) -> None:
        for function in self.on_change:
            function()

    def _found(self, identifiers: Collection[str]) -> list[Picture]:
        found = [self._listing.picture(identifier) for identifier in dict.fromkeys(identifiers)]
        if missing := found.count(None):
            raise UserError(
                f"{missing:,} of these {len(found):,} images are not there any more. Nothing was changed; choose "
                f"them again."
            )
        return [picture for picture in found if picture is not None]

    def _new_name(self, text: str, instead_of: str | None = None) -> str:
        """A name that a class can have, in Unicode's composed form."""
        name = class_name(text)
        if not is_class_folder_name(name) or printable(name) != name:
            raise UserError(
                f"A class cannot be called {printable(name[:80])!r}: it has no characters, too many, or some that no "
                f"folder can have, such as / : * ? or a dot at its ends. Choose another name."
            )
        if layout.split_of(name) is not None:
            raise UserError(
                f"A class cannot be called {name!r}: in image folders, this name is reserved for a part of "
                f"the data, such as the test images. Choose another name."
            )
        same = {other.casefold(): other for other in self._listing.classes if other != instead_of}
        if name.casefold() in same:
            raise UserError(f"There is a class {same[name.casefold()]!r} already. Choose another name.")
        return name

    def _relative(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"

    def _new_path(self, folder: Path, recording: str | None, suffix: str) -> Path:
        """Where nothing is yet."""
        if recording is None:
            return folder / f"picture-{os.urandom(_PICTURE_BYTES).hex()}{suffix}"
        name = hashlib.sha256(recording.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        while True:
            self._frames[name] += 1
            path = folder / f"recording-{name}_{self._frames[name]:04d}{suffix}"
            if not os.path.lexists(path):
                return path

    def _note_frame(self, stem: str) -> None:
        if match := RECORDING.match(stem):
            self._frames[match[1]] = max(self._frames[match[1]], int(match[2][:9]))


def _read_kept(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_bytes()) if path.exists() and path.stat().st_size <= _MAX_KEPT_BYTES else []
    except (ValueError, RecursionError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()


def _free_name(folder: Path, name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free.casefold() in taken or os.path.lexists(folder / free):
        number += 1
        free = str(Path(name).with_stem(f"{Path(name).stem}-{number}"))
    return free


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
