"""What is known of a published data set: its classes, its sources, how to recognise its files.

A checksum catches accidents, not attackers: whoever can replace a file at its source can often replace its checksum.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from foveola.errors import DataError


@dataclass(frozen=True)
class File:
    """A published file: its MD5 and SHA-256 as published, and the SHA-256 of what it decompresses to."""

    name: str
    md5: str | None = None
    sha256: str | None = None
    content_sha256: str | None = None

    def lies_in(self, folder: Path) -> bool:
        """Whether the folder has the file, as published or with its gzip wrapping removed."""
        return (folder / self.name).is_file() or (
            self.name.endswith(".gz") and (folder / self.name.removesuffix(".gz")).is_file()
        )


@dataclass(frozen=True)
class Entry:
    """A data set of the catalog.

    `sources` are the addresses that each file's name is appended to, tried in turn. `members` are the files inside the
    published archive; they may lie loose in place of it. `prefix` starts their names. `first_label` is the smallest
    label as published. `transposed` says that rows and columns are swapped as published. `flip_safe` says that a
    mirror image keeps its class.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_images: int
    test_images: int
    licence: str
    citation: str
    reader: str
    folder: str
    files: tuple[File, ...] = ()
    sources: tuple[str, ...] = ()
    members: tuple[File, ...] = ()
    prefix: str = ""
    first_label: int = 0
    transposed: bool = False
    flip_safe: bool = False

    def lies_in(self, folder: Path) -> bool:
        """Whether the folder has all files, or all members of the archive."""
        return any(files and all(file.lies_in(folder) for file in files) for files in (self.files, self.members))

    def check(self, file: File, path: Path, content_sha256: str | None = None) -> None:
        """Compare a file on disk with the published one, by content where that is known, otherwise as published.

        Raises
        ------
        DataError
            If they differ. Where no published figure fits what lies there, nothing is compared.
        """
        if file.content_sha256 and content_sha256:
            same = file.content_sha256 == content_sha256
        elif path.name == file.name:
            same = not {file.md5, file.sha256}.isdisjoint(digests(path))
        else:
            same = True
        if not same:
            raise DataError(
                f"{path} is not the file that {self.title} publishes: its checksum differs, so that it is damaged or "
                f"something else. Delete it to have it fetched again; or, to use it as your own data, give the "
                f"folder's path ({path.parent}) instead of the name {self.name!r}."
            )


def digests(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        file.seek(0)
        return md5, hashlib.file_digest(file, "sha256").hexdigest()
