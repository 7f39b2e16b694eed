"""Protocol of the readers, their options, and the functions that they share."""

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
from foveola.progress import Progress, no_progress

MAX_BYTES = 16 * 2**30  # per array
MAX_DEFLATE_RATIO = 1032  # deflate cannot compress more: https://zlib.net/zlib_tech.html
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class ReadOptions:
    """Options of `load` that apply while a file is read."""

    image_size: tuple[int, int] | None = None  # height, width
    skip_bad: int = 0
    progress: Progress = no_progress
    groups: str | None = None  # a pattern over file names with one capturing group, or "folder"


class Reader(Protocol):
    """Module of this package that reads one format."""

    def recognises(self, path: Path) -> bool:
        """Whether the path looks like this format, judging by file names only."""
        ...

    def read(self, path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
        """Read the data; with an entry of the catalog, check it against the published files."""
        ...


def read_into(stream: io.BufferedIOBase, array: NDArray[np.uint8]) -> int:
    """Read into a flat array until it is full or the stream ends; return the number of bytes read."""
    view, count = array.data, 0
    while count < len(view) and (received := stream.readinto(view[count : count + _CHUNK_BYTES])):
        count += received
    return count


def image_set(
    images: NDArray[Any],
    labels: NDArray[Any],
    class_names: Sequence[str],
    where: str,
    groups: NDArray[np.int64] | None = None,
) -> ImageSet:
    """Make an ImageSet; its error messages start with `where`."""
    try:
        return ImageSet(images, labels, tuple(class_names), groups)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def default_class_names(labels: Sequence[NDArray[Any]], where: str) -> tuple[str, ...]:
    """Class names "0", "1", … up to the largest label."""
    largest, count = max(int(split.max()) for split in labels), sum(map(len, labels))
    if largest >= count:  # without this check, a label of 2³¹ would make a list of 2³¹ names
        raise DataError(
            f"{where}: the largest label is {largest}, but there are only {count} images. Number the classes 0, 1, 2, …"
        )
    return tuple(map(str, range(largest + 1)))
