"""Catalog entry of a published data set: its classes, its sources, the checksums of its files.

A checksum detects accidental damage, not an attack: anyone who can replace a file at its source can often replace its
checksum too.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from foveola.errors import DataError


@dataclass(frozen=True)
class File:
    """A published file: its MD5 and SHA-256 as published, and the SHA-256 of its decompressed content."""

    name: str
    md5: str | None = None
    sha256: str | None = None
    content_sha256: str | None = None

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds the file, as published or decompressed (without .gz)."""
        return (folder / self.name).is_file() or (
            self.name.endswith(".gz") and (folder / self.name.removesuffix(".gz")).is_file()
        )


@dataclass(frozen=True)
class Entry:
    """A data set of the catalog.

    `sources` are base addresses, tried in turn; a file's name is appended to each. `members` are the files inside the
    published archive, which are also accepted extracted. `prefix` starts the name of every member. `first_label` is
    the smallest published label. `transposed` means that the published images have rows and columns swapped.
    `flip_safe` means that a mirrored image keeps its class.
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

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds all files, or all members of the archive."""
        return any(files and all(file.is_in(folder) for file in files) for files in (self.files, self.members))

    def check(self, file: File, path: Path, content_sha256: str | None = None) -> None:
        """Compare a file on disk with the published one, by the checksum of its content or else of the file itself.

        Raises
        ------
        DataError
            If they differ. Without a published checksum for this form of the file, nothing is compared.
        """
        if file.content_sha256 and content_sha256:
            same = file.content_sha256 == content_sha256
        elif path.name == file.name:
            same = not {file.md5, file.sha256}.isdisjoint(file_digests(path))
        else:
            same = True
        if not same:
            raise DataError(
                f"{path} is not the published file of {self.title}: its checksum differs, so it is damaged or a "
                f"different file. Delete it to download it again; or, to use it as your own data, give the "
                f"folder's path ({path.parent}) instead of the name {self.name!r}."
            )


def file_digests(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        file.seek(0)
        return md5, hashlib.file_digest(file, "sha256").hexdigest()
