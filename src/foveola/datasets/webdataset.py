"""WebDataset archives (.tar), read without extracting: members KEY.jpg and KEY.cls, KEY.txt or KEY.json are a sample.

Names of members are only compared, never used as paths. What is no regular file (links, devices) is refused, and
numbers and sizes are bounded before anything is read.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from foveola.datasets.columns import HEAD_ROWS, Rows
from foveola.datasets.image_files import FilePart, StoredImage
from foveola.errors import DataError
from foveola.inputs.decode import MAX_FILE_BYTES
from foveola.inputs.find import EXTENSIONS as IMAGE_EXTENSIONS
from foveola.inputs.find import is_junk

EXTENSION = ".tar"
MAX_MEMBERS = 10_000_000
MAX_TEXT = 2**16  # bytes of a label
_MAX_HEADER = 2**20  # bytes that are read at once while looking for members

_TEXTS = (".cls", ".cls2", ".txt", ".text", ".label", ".id", ".index", ".json")


@dataclass(frozen=True)
class TarFile:
    """An archive, as `columns.Source` describes it; its columns are image, cls, txt, … and the keys of JSON."""

    path: Path

    unit = "sample"
    has_header = True

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def names(self) -> Sequence[str]:
        """Of all columns that a sample has."""
        return list(dict.fromkeys(name for sample in self._samples.values() for name in sample))

    def head(self, name: str) -> Sequence[Any]:
        """The first values of a column."""
        return [sample.get(name) for sample in islice(self._samples.values(), HEAD_ROWS)]

    def class_names(self, name: str) -> tuple[str, ...]:
        """None: an archive has no place for them."""
        return ()

    def read(self, names: Sequence[str], pixels: Sequence[str]) -> Rows:
        """All samples."""
        values = {name: [sample.get(name) for sample in self._samples.values()] for name in names}
        return Rows(dict(values), None, list(self._samples))

    @cached_property
    def _samples(self) -> dict[str, dict[str, Any]]:
        """What belongs to each key, in the order of the archive.

        Raises
        ------
        DataError
            If the archive is damaged, or holds links, devices or too much.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a regular file. Give a .tar archive.")
        try:
            with self.path.open("rb") as file:
                samples = self._scan(_Bounded(file))
        except DataError:
            raise
        except Exception as error:  # on damaged archives, tarfile raises exceptions of many types
            raise self._unusable(f"it is damaged: {str(error) or type(error).__name__}") from error
        if not samples:
            raise self._unusable("it holds no images or labels")
        return samples

    def _scan(self, file: "_Bounded") -> dict[str, dict[str, Any]]:
        samples: dict[str, dict[str, Any]] = {}
        size = self.path.stat().st_size
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for number, member in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]  # or tarfile keeps all of them
                if number >= MAX_MEMBERS:
                    raise self._unusable(f"it has more than {MAX_MEMBERS:,} members")
                if member.isdir() or is_junk(PurePosixPath(member.name).name):
                    continue
                if not member.isreg() or member.sparse is not None:
                    raise self._unusable(f"{member.name[:100]!r} in it is a link, a device or no plain file")
                if member.offset_data + member.size > size:
                    raise self._unusable(f"it ends inside {member.name[:100]!r}")
                key, extension = _divided(member.name)
                part = FilePart(self.path, member.offset_data, member.size)
                self._add(samples.setdefault(key, {}), key, extension, part)
        return {key: sample for key, sample in samples.items() if sample}

    def _add(self, sample: dict[str, Any], key: str, extension: str, part: FilePart) -> None:
        """Add what a member says to its sample."""
        name = f"{self.path}, {key}{extension}"
        if PurePosixPath(f"x{extension}").suffix in IMAGE_EXTENSIONS:
            column = "image" if extension.count(".") == 1 else extension[1:]
            if part.size > MAX_FILE_BYTES:
                raise self._unusable(
                    f"{key}{extension} has {part.size:,} bytes, and an image may have {MAX_FILE_BYTES:,}"
                )
            if column in sample:
                raise self._unusable(f"there are several images with the key {key[:100]!r}")
            sample[column] = StoredImage(name, part)
        elif extension in _TEXTS:
            if part.size > MAX_TEXT:
                raise self._unusable(f"{key}{extension} has {part.size:,} bytes, and a label may have {MAX_TEXT:,}")
            text = StoredImage(name, part).read().decode("utf-8", "surrogateescape")
            if extension != ".json":
                sample[extension[1:]] = text.strip()
            elif isinstance(document := json.loads(text), dict):
                sample |= {str(field): value for field, value in document.items() if not isinstance(value, dict)}
            else:
                sample["json"] = document

    def _unusable(self, reason: str) -> DataError:
        return DataError(f"{self.path} cannot be used: {reason}. Write it again.")


class _Bounded(io.RawIOBase):
    """A file of which only little is read at once: heads of members that claim to be long are refused."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def read(self, size: int = -1, /) -> bytes:
        """At most _MAX_HEADER bytes."""
        if not 0 <= size <= _MAX_HEADER:
            raise ValueError(f"a head of {size:,} bytes")
        return bytes(self.file.read(size))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of the file."""
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        """As of the file."""
        return int(self.file.tell())


def _divided(name: str) -> tuple[str, str]:
    """The key of a member, up to the first point in its name, and what follows, in small letters."""
    folder, _, last = name.rpartition("/")
    stem, point, extension = last.partition(".")
    return f"{folder}/{stem}" if folder else stem, (point + extension).lower()
