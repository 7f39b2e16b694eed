"""Find image files by what a command line names: files, folders, patterns, or - for standard input."""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from foveola.errors import DataError
from foveola.files import expanded, in_order
from foveola.inputs.decode import MAX_FILE_BYTES, FirstFrame, decode_first_frame, read_first_frame

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".gif"})

_STANDARD_INPUT = "-"
# What operating systems and network storage put beside the data
_JUNK = re.compile(
    r"\..*|__macosx|__pycache__|@(eadir|recycle|recently-snapshot|tmp)|#(recycle|snapshot)|\$recycle\.bin|recycler|"
    r"system volume information|lost\+found|(eh)?thumbs\.db|desktop\.ini|icon\r",
    re.IGNORECASE,
)


def is_image(path: Path) -> bool:
    """Whether the file extension is that of an image."""
    return path.suffix.lower() in EXTENSIONS


def is_junk(name: str) -> bool:
    """Whether a file or folder is left by an operating system, network storage or an archiver, not part of the data."""
    return _JUNK.fullmatch(name) is not None


@dataclass(frozen=True)
class ImageFile:
    """An image by its name; `data` is its content where that has been read already, from standard input."""

    name: str
    data: bytes | None = None

    def read(self, white_level: int | None = None) -> FirstFrame:
        """The first frame; `white_level` as of `decode_first_frame`.

        Raises
        ------
        DataError
            If the file does not exist or cannot be decoded.
        """
        if self.data is not None:
            return decode_first_frame(self.data, self.name, white_level=white_level)
        return read_first_frame(self.name, white_level)


def find_images(names: str | Path | Sequence[str | Path]) -> list[ImageFile]:
    """The image files that the names stand for, in this order.

    Parameters
    ----------
    names : one, or several: paths of files; folders, whose image files are taken at every depth; patterns such as
        "scans/*.png" or "scans/**/*.png"; "-" for one image from standard input, or for a list of names there, one a
        line. ~ is the home folder

    Raises
    ------
    DataError
        If a folder holds no image file or cannot be read, no file matches a pattern, standard input holds nothing, or
        something is not a name.
    """
    try:
        return [found for name in as_names(names) for found in _named(str(name))]
    except OSError as error:
        reason = f"{error.strerror or error}: {str(error.filename or '')[:200]}"
        raise DataError(f"Images cannot be looked for: {reason}. Give the names of other files or folders.") from error


def as_names(names: object) -> list[str | Path]:
    """One name, or several, as a list.

    Raises
    ------
    DataError
        If something is not a name.
    """
    one = isinstance(names, str | os.PathLike) or not isinstance(names, Iterable)
    several: list[Any] = [names] if one else list(cast("Iterable[Any]", names))
    for name in several:
        if not isinstance(name, str | os.PathLike):
            raise DataError(
                f"Images are named by paths here, and one is of the type {type(name).__name__}. Save it as a file; or, "
                f"for classes and probabilities of arrays: foveola.open(run).predict(images)."
            )
    return several


def _named(name: str) -> Iterator[ImageFile]:
    if name == _STANDARD_INPUT:
        yield from _from_standard_input()
        return
    if not name:
        raise DataError("The name of an image is empty. Give a file, a folder (. is this one) or a pattern.")
    path = expanded(name)
    if path.is_dir():
        files = in_order(_image_files(path))
        if not files:
            extensions = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{path} holds no image files ({extensions}). Give another folder, or the files.")
    elif not path.exists() and glob.has_magic(name):
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
        files = in_order(match for match in map(Path, matches) if not match.is_dir())
        if not files:
            raise DataError(f"No file matches {name}. Check the pattern; ** stands for folders at any depth.")
    else:
        files = [path]
    yield from (ImageFile(str(file)) for file in files)


def _image_files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_junk(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _image_files(path)
        elif is_image(path) and path.is_file():
            yield path


def _from_standard_input() -> Iterator[ImageFile]:
    """One image, or names, one a line; no image format begins with printable text."""
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if not data.strip():
        raise DataError("Standard input is empty. Send an image, or the names of images, one a line.")
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"Standard input holds more than {MAX_FILE_BYTES:,} bytes. Send a smaller image.")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = []
    if lines and all(line.isprintable() for line in lines):
        names = [line.strip() for line in lines if line.strip() not in ("", _STANDARD_INPUT)]
        yield from find_images(names)
    else:
        yield ImageFile("standard input", data)
