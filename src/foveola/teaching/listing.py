"""What a project's folder holds: its classes and pictures, read again only where others have changed something."""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from foveola.datasets.reader import natural_key
from foveola.errors import DataError, UserError, unknown
from foveola.inputs.find import is_image, is_junk
from foveola.text import class_name, escape_surrogates, printable

MAX_OPENED = 200_000
"""Pictures of a project; one with more is not opened."""

RECORDING = re.compile(r"recording-([0-9a-f]{8})_([0-9]{4,})")
"""The beginning of a frame's file name: its recording, and its number there."""

# A folder that has changed so recently may change again at what its file system takes for the same time
_RECENT_NANOSECONDS = 2 * 10**9


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
class ClassFolder:
    """A class folder as it was read; `changed` is its time of change then, None if it must be read again.

    `others` is what is in it, and is no picture.
    """

    folder: Path
    changed: int | None = None
    pictures: dict[str, Picture] = field(default_factory=dict)
    others: tuple[str, ...] = ()


class Listing:
    """The classes and pictures of an image folder. Not safe for use by several threads.

    Parameters
    ----------
    folder : of the project

    Attributes
    ----------
    classes : by name, as the folder gives them; to be changed by `read` and `add` only
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.classes: dict[str, ClassFolder] = {}
        self._by_id: dict[str, Picture] = {}
        self._by_key: dict[str, Picture] = {}
        self._changed: int | None = None  # of the folder, when its classes were read
        self._stray: tuple[str, ...] = ()  # pictures beside the class folders, and links

    # What there is

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self._by_id)

    def counts(self) -> dict[str, int]:
        """Number of pictures by class, in natural order of the names."""
        return {name: len(self.classes[name].pictures) for name in sorted(self.classes, key=natural_key)}

    def class_folder(self, name: str) -> ClassFolder:
        """The folder of a class.

        Raises
        ------
        UserError
            If there is no such class.
        """
        one = self.classes.get(class_name(name))
        if one is None:
            raise UserError(unknown("class", printable(name[:80]), self.classes))
        return one

    def all_pictures(self) -> list[Picture]:
        """The pictures of all classes."""
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
        picture = self._by_id.get(identify(class_name(path.parent.name), path.name))
        inside = path.is_relative_to(self.folder) or not path.is_absolute()
        return picture if picture is not None and inside and picture.path.name == path.name else None

    def others(self) -> list[str]:
        """What lies in the folder and is no picture of a class."""
        return [*self._stray, *(f"{name}/{other}" for name, one in self.classes.items() for other in one.others)]

    def state(self) -> Mapping[str, tuple[str, ...]]:
        """Something that differs after a change."""
        return {name: tuple(one.pictures) for name, one in self.classes.items()}

    # Changes

    def read(self) -> None:
        """Read the folder, and the class folders that have changed since they were read.

        Raises
        ------
        OSError
            If it cannot be read.
        DataError
            If it cannot be shown.
        """
        changed = self.folder.stat().st_mtime_ns
        if changed != self._changed or _is_recent(changed):
            self._read_classes()
            self._changed = changed
        for name, one in self.classes.items():
            changed = one.folder.stat().st_mtime_ns
            if changed != one.changed or _is_recent(changed):
                self._read_pictures(name, one)
                one.changed = changed
        if self.count > MAX_OPENED:
            raise DataError(
                f"{self.folder} holds {self.count:,} images; up to {MAX_OPENED:,} can be shown. Train from the "
                f"command line: foveola train {self.folder}"
            )

    def read_anew(self) -> None:
        """Read everything; raises as `read`."""
        self._changed = None
        for one in self.classes.values():
            one.changed = None
        self.read()

    def add(self, name: str, path: Path, *, changed: int | None) -> Picture:
        """Take in a picture that was written into the folder of a class, whose time of change is now `changed`.

        Parameters
        ----------
        changed : None if something else in the class folder may have changed, too
        """
        one = self.class_folder(name)
        picture = read_picture(name, path)
        one.pictures[path.name] = self._by_id[picture.id] = self._by_key[picture.key] = picture
        one.changed = changed
        return picture

    def _read_classes(self) -> None:
        classes: dict[str, ClassFolder] = {}
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
            known = self.classes.get(name)
            classes[name] = known if known and known.folder.name == entry.name else ClassFolder(Path(entry.path))
        for name, one in self.classes.items():
            if classes.get(name) is not one:
                self._forget(one)
        self.classes, self._stray = classes, tuple(stray)

    def _read_pictures(self, name: str, one: ClassFolder) -> None:
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
                    found.append(read_picture(name, Path(entry.path)))
        self._forget(one)
        found.sort(key=lambda picture: picture.order)
        one.pictures, one.others = {picture.path.name: picture for picture in found}, tuple(sorted(others))
        self._by_id.update((picture.id, picture) for picture in found)
        self._by_key.update((picture.key, picture) for picture in found)

    def _forget(self, one: ClassFolder) -> None:
        for picture in one.pictures.values():
            self._by_id.pop(picture.id, None)
            if self._by_key.get(picture.key) is picture:
                del self._by_key[picture.key]


def read_picture(name: str, path: Path) -> Picture:
    """The picture of a class that a file is."""
    found = path.stat()
    key = hashlib.blake2b(f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}".encode(), digest_size=12).hexdigest()
    match = RECORDING.match(path.name)
    order = (found.st_mtime_ns, natural_key(path.name))
    return Picture(identify(name, path.name), name, path, key, found.st_ino, order, match[1] if match else None)


def identify(name: str, file: str) -> str:
    """The id of the picture that a file of a class is."""
    text = f"{name}/{escape_surrogates(file)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_recent(changed: int) -> bool:
    return time.time_ns() - changed < _RECENT_NANOSECONDS
