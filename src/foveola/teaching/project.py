"""The project: an image folder, its classes and pictures, changed by requests and by whoever else writes into it."""

import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from foveola import files
from foveola.datasets import layout
from foveola.datasets.reader import natural_key
from foveola.errors import DataError, OutputError, UserError, unknown
from foveola.files import flush_folder, write_atomically, writing
from foveola.inputs.find import is_image, is_junk
from foveola.serving.collect import is_class_folder_name
from foveola.serving.refusals import Refused
from foveola.teaching.changes import HIDDEN, Change, Changes
from foveola.text import class_name, escape_surrogates, printable

MAX_PICTURES, MAX_OPENED, MAX_CLASSES = 20_000, 200_000, 1_000
"""To a larger project nothing is added; one that is larger still is not opened."""

_RECORDING = re.compile(r"recording-([0-9a-f]{8})_([0-9]{4,})")
_TEMPORARY = re.compile(r"\.(picture-[0-9a-f]{16}|recording-[0-9a-f]{8}_[0-9]{4,})\.(png|jpg)\.[0-9]+\.tmp")
_MAX_KEPT_BYTES = 32 * MAX_OPENED
_PICTURE_BYTES = 8  # in the random names of pictures
# A folder that has changed so recently may change again at what its file system takes for the same time
_RECENT_NANOSECONDS = 2 * 10**9
_VANISHED = 410


class Picture(NamedTuple):
    """A picture of a project.

    `id` is a hash of class and file name; `key` stays the same when a file is moved or renamed, and differs for a file
    that replaces it; `inode` numbers the file in its file system; `order` sorts pictures by the time when they were
    written, then by name; `recording` names the recording of which it is a frame.
    """

    id: str
    class_name: str
    path: Path
    key: str
    inode: int
    order: tuple[object, ...]
    recording: str | None


@dataclass
class _Class:
    """A class folder as it was read; `changed` is its time of change then, None if it must be read again."""

    folder: Path
    changed: int | None = None
    pictures: dict[str, Picture] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # what is in it, and is no picture


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
        self.folder = _opened(folder)
        self.hidden = self.folder / HIDDEN
        self._claim: int | None = _claimed(self.hidden)
        self._classes: dict[str, _Class] = {}
        self._by_id: dict[str, Picture] = {}
        self._by_key: dict[str, Picture] = {}
        self._changed: int | None = None  # of the folder, when its classes were read
        self._stray: tuple[str, ...] = ()  # pictures beside the class folders, and links
        try:
            with writing(self.folder, "Choose another folder."):
                self._changes = Changes(self.folder)
                self._kept = _read_kept(self._kept_file)
                self._read()
                self._remove_temporaries()
        except BaseException:
            self.close()
            raise
        self._frames = Counter[str]()  # of each recording, the largest number
        for picture in self._by_id.values():
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
        return len(self._by_id)

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
            before = self._state()
            self._read()
            changed = before != self._state()
        if changed:
            self._tell()

    def counts(self) -> dict[str, int]:
        """Number of pictures by class, in natural order of the names."""
        with self.lock:
            return {name: len(self._classes[name].pictures) for name in sorted(self._classes, key=natural_key)}

    def pictures(self, name: str) -> list[Picture]:
        """The pictures of a class, oldest first.

        Raises
        ------
        UserError
            If there is no such class.
        """
        with self.lock:
            return list(self._class(name).pictures.values())

    def all_pictures(self) -> list[Picture]:
        """The pictures of all classes."""
        with self.lock:
            return list(self._by_id.values())

    def picture(self, identifier: str) -> Picture | None:
        """The picture with an id; None if there is none."""
        return self._by_id.get(identifier)

    def picture_with(self, key: str) -> Picture | None:
        """The picture whose file has a key; None if there is none."""
        return self._by_key.get(key)

    def picture_at(self, path: str | Path) -> Picture | None:
        """The picture of a path, given relative to the folder or beginning with it; None if there is none."""
        path = Path(path)
        picture = self._by_id.get(_identifier(class_name(path.parent.name), path.name))
        inside = path.is_relative_to(self.folder) or not path.is_absolute()
        return picture if picture is not None and inside and picture.path.name == path.name else None

    @property
    def undo_text(self) -> str | None:
        """The last change, which `undo` undoes; None if there is none."""
        return self._changes.undo_text

    @property
    def notes(self) -> list[str]:
        """What lies in the folder and is not shown, a sentence each."""
        with self.lock:
            others = [f"{name}/{other}" for name, one in self._classes.items() for other in one.others]
            found = [*self._stray, *others]
        if not found:
            return []
        listed = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        return [
            f"{len(found):,} {'entry' if len(found) == 1 else 'entries'} of the folder cannot be shown here: "
            f"{printable(listed)}. Only image files in class folders can; links and folders within a class are left "
            f"alone. Training may refuse such files: move them elsewhere."
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
            if len(self._classes) >= MAX_CLASSES:
                raise UserError(f"The project has {MAX_CLASSES:,} classes, the most that it can have.")
            self._changes.make(Change(f"add class {name}", made=(name,)))

    def rename_class(self, name: str, to: str) -> None:
        """Rename a class; raises as `add_class`."""
        with self._changing():
            folder = self._class(name).folder
            to = self._new_name(to, instead_of=name)
            if to != folder.name:
                self._changes.make(Change(f"rename class {name} to {to}", ((folder.name, to),)))
                self._rename_kept(name, to)

    def delete_class(self, name: str) -> None:
        """Move a class with its pictures into the bin; raises as `add_class`."""
        with self._changing():
            one = self._class(name)
            text = f"delete class {name} ({_counted(len(one.pictures))})"
            self._changes.make(Change(text, ((one.folder.name, f"{self._changes.next_bin}/{one.folder.name}"),)))

    def move(self, identifiers: Sequence[str], to: str) -> None:
        """Move pictures to a class, all or none; raises as `add_class`."""
        with self._changing():
            folder = self._class(to).folder
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
            one = self._class(name)
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
            picture = _picture(name, path)
            one.pictures[path.name] = self._by_id[picture.id] = self._by_key[picture.key] = picture
            one.changed = one.folder.stat().st_mtime_ns if untouched else None
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
        renamed = {_identifier(name, file): _identifier(to, file) for file in self._classes[name].pictures}
        if self._kept & renamed.keys():
            self._kept = {renamed.get(one, one) for one in self._kept}
            self._write_kept()

    def _write_kept(self) -> None:
        write_atomically(self._kept_file, json.dumps(sorted(self._kept)))

    # Reading the folder

    def _read(self) -> None:
        """Read the folder, and the class folders that have changed since they were read."""
        changed = self.folder.stat().st_mtime_ns
        if changed != self._changed or _is_recent(changed):
            self._read_classes()
            self._changed = changed
        for name, one in self._classes.items():
            changed = one.folder.stat().st_mtime_ns
            if changed != one.changed or _is_recent(changed):
                self._read_pictures(name, one)
                one.changed = changed
        if self.count > MAX_OPENED:
            raise DataError(
                f"{self.folder} holds {self.count:,} images; up to {MAX_OPENED:,} can be shown. Train from the "
                f"command line: foveola train {self.folder}"
            )

    def _read_classes(self) -> None:
        classes: dict[str, _Class] = {}
        stray = []
        for entry in sorted(os.scandir(self.folder), key=lambda entry: entry.name):
            if is_junk(entry.name):
                continue
            if not entry.is_dir(follow_symlinks=False):
                if entry.is_symlink() or is_image(Path(entry.name)):
                    stray.append(entry.name)
                continue
            name = class_name(entry.name)
            if name in classes:
                raise DataError(
                    f"{self.folder} has two folders of the class {name}, whose names differ in their Unicode form "
                    f"only. Move the images of both into one."
                )
            known = self._classes.get(name)
            classes[name] = known if known and known.folder.name == entry.name else _Class(Path(entry.path))
        for name in self._classes.keys() - classes.keys():
            self._forget(self._classes[name])
        self._classes, self._stray = classes, tuple(stray)

    def _read_pictures(self, name: str, one: _Class) -> None:
        found, others = [], []
        for entry in os.scandir(one.folder):
            known = one.pictures.get(entry.name)
            if known is not None and known.inode == entry.inode():
                found.append(known)
            elif is_junk(entry.name):
                continue
            elif not entry.is_file(follow_symlinks=False) or not is_image(Path(entry.name)):
                others.append(entry.name)
            else:
                with suppress(FileNotFoundError):  # gone meanwhile
                    found.append(_picture(name, Path(entry.path)))
        self._forget(one)
        found.sort(key=lambda picture: picture.order)
        one.pictures, one.others = {picture.path.name: picture for picture in found}, tuple(sorted(others))
        self._by_id.update((picture.id, picture) for picture in found)
        self._by_key.update((picture.key, picture) for picture in found)

    def _forget(self, one: _Class) -> None:
        for picture in one.pictures.values():
            self._by_id.pop(picture.id, None)
            if self._by_key.get(picture.key) is picture:
                del self._by_key[picture.key]

    def _state(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(one.pictures) for name, one in self._classes.items()}

    def _remove_temporaries(self) -> None:
        """Remove what a process that was killed while it wrote a picture has left."""
        for one in self._classes.values():
            for path in one.folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    # What changes need

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make a change: seen from outside as a whole, read again, told."""
        with self.lock, self._storage():
            self._read()
            try:
                yield
            finally:
                self._changed = None
                for one in self._classes.values():
                    one.changed = None
                self._read()
        self._tell()

    @contextmanager
    def _storage(self, problem: str = "The change cannot be written") -> Iterator[None]:
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
                f"{problem}: {error.strerror}. Nothing was changed; make room on the disk or correct the folder's "
                f"rights, and try again.",
            ) from error

    def _tell(self) -> None:
        for function in self.on_change:
            function()

    def _class(self, name: str) -> _Class:
        one = self._classes.get(class_name(name))
        if one is None:
            raise UserError(unknown("class", printable(name[:80]), self._classes))
        return one

    def _found(self, identifiers: Collection[str]) -> list[Picture]:
        found = [self._by_id.get(identifier) for identifier in dict.fromkeys(identifiers)]
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
                f"A class cannot be called {name!r}: in image folders, that names a part of the data, such as the test "
                f"images. Choose another name."
            )
        same = {other.casefold(): other for other in self._classes if other != instead_of}
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
        if match := _RECORDING.match(stem):
            self._frames[match[1]] = max(self._frames[match[1]], int(match[2][:9]))


def _opened(folder: Path) -> Path:
    """The folder, made if there is none, without links."""
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder} is a file, but images are collected in a folder with a folder for each class. Give such a "
            f"folder, or the name of a new one."
        )
    with writing(folder, "Choose another folder."):
        if not folder.exists():
            folder.mkdir(parents=True)
            flush_folder(folder.parent)
    folder = folder.resolve()
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written, but images are added there. Correct its rights, or copy it.")
    _check_layout(folder)
    return folder


def _check_layout(folder: Path) -> None:
    """Refuse what `foveola train` would read as something else than class folders with pictures."""
    inside = [path for path in sorted(folder.iterdir()) if not is_junk(path.name)]
    folders = [path for path in inside if path.is_dir()]
    if tables := [path for path in inside if path.suffix.lower() in (".csv", ".tsv", ".parquet", ".npz", ".tar")]:
        raise DataError(
            f"{folder} holds {tables[0].name}, so that its labels may be in a table. Give a folder of class folders "
            f"only, or train from the command line: foveola train {tables[0]}"
        )
    if links := [path for path in folders if path.is_symlink()]:
        raise DataError(
            f"{links[0]} is a link, which may lead out of the project; links are not followed. Give the folder to "
            f"which it leads, or put a copy in its place."
        )
    if not folders:
        return
    found = layout.find(folder)
    if tuple(found.splits) != ("train",) or any(layout.split_of(path.name) and _subfolders(path) for path in folders):
        listed = ", ".join(path.name for path in folders[:5])
        raise DataError(
            f"{folder} has splits ({listed}), but a project is one folder of classes, which a training splits itself. "
            f"Give the training images, such as {folder / 'train'}."
        )
    if nested := [inner for path in folders for inner in _subfolders(path)]:
        raise DataError(
            f"{nested[0]} is a folder within a class folder. A class folder must hold its images directly: move them "
            f"up; or give {nested[0].parent}, if its folders are the classes."
        )


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if not is_junk(entry.name) and entry.is_dir())


def _claimed(hidden: Path) -> int:
    """The project's own folder, made and locked until the process ends."""
    with writing(hidden, "Choose another folder."):
        if hidden.is_symlink() or any(path.is_symlink() for path in (hidden / "bin", hidden / "thumbnails")):
            raise OutputError(f"{hidden} is or holds a link, which may lead out of the project. Remove the link.")
        hidden.mkdir(exist_ok=True)
        for name in ("bin", "thumbnails"):
            (hidden / name).mkdir(exist_ok=True)
        flush_folder(hidden)
        claim = files.lock(hidden / "lock")
    if claim is None:
        raise OutputError(f"Another `foveola teach` has {hidden.parent} open. Use its page, or end it first.")
    return claim


def _read_kept(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_bytes()) if path.exists() and path.stat().st_size <= _MAX_KEPT_BYTES else []
    except (ValueError, RecursionError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()


def _picture(name: str, path: Path) -> Picture:
    found = path.stat()
    key = hashlib.blake2b(f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}".encode(), digest_size=12).hexdigest()
    match = _RECORDING.match(path.name)
    order = (found.st_mtime_ns, natural_key(path.name))
    return Picture(_identifier(name, path.name), name, path, key, found.st_ino, order, match[1] if match else None)


def _identifier(name: str, file: str) -> str:
    text = f"{name}/{escape_surrogates(file)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _free_name(folder: Path, name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free.casefold() in taken or os.path.lexists(folder / free):
        number += 1
        free = str(Path(name).with_stem(f"{Path(name).stem}-{number}"))
    return free


def _is_recent(changed: int) -> bool:
    return time.time_ns() - changed < _RECENT_NANOSECONDS


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
