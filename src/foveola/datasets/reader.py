"""What a reader is asked, what it gives, and the checks that all of them share."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.entry import Entry
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet

MAX_BYTES = 16 * 2**30  # of one array
MAX_DEFLATE_RATIO = 1032  # https://zlib.net/zlib_tech.html: deflate never compresses better
_CHUNK = 2**20


class Progress(Protocol):
    """Called as work goes on: `done` of `total` (None: not known) units of `what`."""

    def __call__(self, done: int, total: int | None, what: str) -> None: ...


def silent(done: int, total: int | None, what: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Request:
    """How the caller wants the data: what matters already while reading."""

    image_size: tuple[int, int] | None = None  # height, width
    skip_bad: int = 0
    progress: Progress = silent


class Reader(Protocol):
    """A module of this package that reads one format."""

    def recognises(self, path: Path) -> bool:
        """Whether the path looks like this format, by names alone."""
        ...

    def read(self, path: Path, request: Request, entry: Entry | None = None) -> Dataset:
        """Read the data; with an entry of the catalog, check it against what was published."""
        ...


def fill(stream: io.BufferedIOBase, array: NDArray[np.uint8]) -> int:
    """Read into a flat array until it is full or the stream ends; return the number of bytes read."""
    view, done = array.data, 0
    while done < len(view) and (count := stream.readinto(view[done : done + _CHUNK])):
        done += count
    return done


def labelled(images: NDArray[Any], labels: NDArray[Any], class_names: Sequence[str], where: str) -> ImageSet:
    """An ImageSet whose refusal names the file."""
    try:
        return ImageSet(images, labels, tuple(class_names))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def numbered(labels: Sequence[NDArray[Any]], where: str) -> tuple[str, ...]:
    """Class names "0", "1", … up to the largest label."""
    top, count = max(int(part.max()) for part in labels), sum(map(len, labels))
    if top >= count:  # a class without images is refused later; this keeps the list of names within reason
        raise DataError(
            f"{where}: labels go up to {top}, with {count} images. Labels must count the classes: 0, 1, 2, …"
        )
    return tuple(map(str, range(top + 1)))
