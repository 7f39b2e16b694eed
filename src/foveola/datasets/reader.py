"""Protocol of the readers, their options, and the functions that they share."""

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.entry import Entry
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet, Labels, Originals, Resize
from foveola.inputs.decode import FirstFrame
from foveola.inputs.resize import is_colour
from foveola.models.metadata import Columns
from foveola.progress import Progress, no_progress
from foveola.tasks import task_of

if TYPE_CHECKING:
    from foveola.datasets.image_files import Decoded, StoredImage
    from foveola.inputs.resize import CommonShape

MAX_BYTES = 16 * 2**30  # per array
MAX_DEFLATE_RATIO = 1032  # deflate cannot compress more: https://zlib.net/zlib_tech.html
MAX_UNQUESTIONED_CLASSES = 1000  # more, with few images of each, are not taken for classes
_CHUNK_BYTES = 2**20


# From an image file's first frame and name to the pixels that the network gets, uint8 H×W×C
Prepare = Callable[[FirstFrame, str], Images]
# From image files to decoded images, and the reasons why others cannot be used, by index
Decode = Callable[[Sequence["Path | StoredImage"], "CommonShape", "ReadOptions"], tuple["Decoded", dict[int, str]]]


@dataclass(frozen=True)
class ReadOptions:
    """Options of `load` that apply while a file is read."""

    image_size: tuple[int, int] | None = None  # height, width
    skip_bad: int = 0
    progress: Progress = no_progress
    groups: str | None = None  # a pattern over file names with one capturing group, or "folder"
    white_level: int | None = None  # in files of 16 bits per pixel; None: found from the training images
    resize: Resize | None = None  # None: chosen by the images' aspects
    fill: int | None = None  # grey level beside letterboxed images; None: chosen by their background
    prepare: Prepare | None = None  # of image files, instead of resizing
    decode: Decode | None = None  # image files to images that are read when they are needed; None: into memory
    columns: Columns = field(default_factory=Columns)  # of a table
    label_names: tuple[str, ...] = ()  # all labels that a table's lists or texts can name; empty: those that occur


class Reader(Protocol):
    """Module of this package that reads one format."""

    def recognises(self, path: Path) -> bool:
        """Whether the path looks like this format, judging by file names only."""
        ...

    def read(self, path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
        """Read the data; with an entry of the catalog, check it against the published files."""
        ...


def physical_memory() -> int | None:
    """Bytes of memory that this machine has; None where the operating system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


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
    weights: NDArray[Any] | None = None,
) -> ImageSet:
    """Make an ImageSet; its error messages start with `where`."""
    try:
        return ImageSet(images, labels, tuple(class_names), groups, weights)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def classes_of_labels(
    labels: Mapping[str, NDArray[Any]], names: Sequence[str], where: str
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Labels of all splits as indices of classes, and the class names.

    Without given names, names of classes are sorted naturally, and numbers are their own names, so that no class is
    invented: 1, 2, 3 are the classes "1", "2", "3". Given names belong to labels from 0, or else from 1.

    Several labels an image, bool N×K, have the given names, or "0", "1", ….

    Parameters
    ----------
    labels : split → integers or strings, N, or bool N×K
    names : class names saved with the data; empty if there are none

    Raises
    ------
    DataError
        If numbers and strings are mixed, a number is below 0, or there are more classes than images can show.
    """
    if all(task_of(array) == "multilabel" for array in labels.values()):
        count = next(iter(labels.values())).shape[1]
        return dict(labels), tuple(names) or tuple(map(str, range(count)))
    kinds = {array.dtype.kind for array in labels.values()}
    if len(kinds) > 1:
        raise DataError(f"{where}: labels are numbers in one split and names in another. Save all in the same form.")
    known = np.unique(np.concatenate(list(labels.values())))
    if names:
        if kinds != {"U"} and known[0] == 1 and known[-1] == len(names):
            return {split: array - 1 for split, array in labels.items()}, tuple(names)
        return dict(labels), tuple(names)
    if kinds != {"U"} and known[0] < 0:
        raise DataError(
            f"{where}: the smallest label is {known[0]}, and a label cannot be below 0. If it marks images without "
            f"a label, leave them out: labels >= 0; otherwise number the classes 0, 1, 2, …"
        )
    if len(known) > max((count := sum(map(len, labels.values()))) // 2, MAX_UNQUESTIONED_CLASSES):
        raise DataError(
            f"{where}: the labels have {len(known):,} different values for {count:,} images, so that they seem to be "
            f"numbers of images or measurements, not classes. Save one class for each image."
        )
    own_names = tuple(sorted(map(str, known.tolist()), key=natural_key))
    if kinds == {"U"}:
        return dict(labels), own_names
    return {split: np.searchsorted(known, array).astype(np.int64) for split, array in labels.items()}, own_names


def originals_of(images: ImageSet) -> Originals:
    """What images of one size are before they are resized and converted."""
    height, width, _ = images.image_shape
    heights, widths = (np.full(len(images), side) for side in (height, width))
    return Originals(heights, widths, sum(map(is_colour, images.images)))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that compares runs of digits as numbers; the name itself breaks ties such as 1 and 01."""
    runs = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(run), "") if run[0] in "0123456789" else (1, 0, run) for run in runs], name
