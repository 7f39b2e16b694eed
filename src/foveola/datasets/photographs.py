"""Whether data is of photographs, for which a network that comes pretrained is the better start."""

from pathlib import Path

import numpy as np

from foveola.datasets import CATALOG, folder, load, reader_of
from foveola.datasets.image_files import decode_files
from foveola.datasets.reader import ReadOptions
from foveola.files import expanded
from foveola.images import Dataset, Originals

# Longer side in pixels above which colour pictures are taken for photographs
LARGEST_OTHER = 64
# Files of a folder that are looked at
SAMPLE = 48


def are_photographs(dataset: Dataset) -> bool:
    """Whether most training pictures are in colour and, before they were resized, larger than 64 pixels.

    Examples
    --------
    >>> are_photographs(foveola.load("digits"))
    False
    """
    if dataset.originals is not None:
        return _show_photographs(dataset.originals)
    height, width, channels = dataset.image_shape
    return channels == 3 and max(height, width) > LARGEST_OTHER


def holds_photographs(data: str | Path | Dataset, groups: str | None = None) -> bool:
    """As `are_photographs`, before the data is read: of an image folder, a few files are looked at.

    Raises
    ------
    DataError
        If the data cannot be read.
    """
    if isinstance(data, Dataset):
        return are_photographs(data)
    is_name = isinstance(data, str) and data in CATALOG
    if is_name or reader_of(expanded(data)) is not folder:
        return are_photographs(load(data))
    _, items = folder.find_items(expanded(data), groups)
    paths = [item.path for item in items[:: -(-len(items) // SAMPLE) or 1]]
    return _show_photographs(decode_files(paths, [True] * len(paths), ReadOptions()).originals)


def _show_photographs(pictures: Originals) -> bool:
    sides = np.maximum(pictures.heights, pictures.widths)
    return len(sides) > 0 and bool(np.median(sides) > LARGEST_OTHER) and 2 * pictures.colour > len(sides)
