"""Which recipe suits the data: photographs begin with a pretrained network, all else with random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.datasets import folder, is_named, read, reader_of
from foveola.datasets.image_files import decode_files
from foveola.datasets.reader import ReadOptions
from foveola.datasets.weights import find_weights
from foveola.errors import DownloadError
from foveola.files import expanded
from foveola.images import Dataset, Originals
from foveola.models.metadata import Columns
from foveola.progress import show_progress
from foveola.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from rich.console import Console

AUTO = "auto"
FOR_PHOTOGRAPHS, FOR_OTHERS = "efficientnet-lite0", "fast"
# Longer side in pixels above which colour pictures are taken for photographs
LARGEST_OTHER = 64
# Files of a folder that are looked at
SAMPLE = 48


def choose_recipe(
    data: str | Path | Dataset,
    overrides: Mapping[str, Any] | None,
    groups: str | None,
    columns: Columns,
    screen: "Console",
) -> Recipe:
    """The recipe of `--recipe auto`, which it says, with the reason.

    Raises
    ------
    UserError
        If the data cannot be read, or an override is wrong.
    """
    if not holds_photographs(data, groups, columns):
        screen.print(f"recipe: {FOR_OTHERS}, because these are no colour photographs of more than 64 pixels")
        return load_recipe(FOR_OTHERS, overrides)
    recipe = load_recipe(FOR_PHOTOGRAPHS, overrides)
    try:
        with show_progress(screen) as progress:
            find_weights(recipe, progress=progress)
    except DownloadError as error:
        screen.print(f"recipe: {FOR_OTHERS}, although these are colour photographs: {error}", soft_wrap=True)
        return load_recipe(FOR_OTHERS, overrides)
    screen.print(f"recipe: {FOR_PHOTOGRAPHS}, because these are colour photographs of more than 64 pixels")
    return recipe


def proposal(recipe: Recipe, dataset: Dataset) -> str | None:
    """A sentence for whoever trains on photographs from random weights; None where there is nothing to say."""
    if recipe.pretrained != "none" or not are_photographs(dataset):
        return None
    return (
        "These are colour photographs: a network that begins with pretrained weights is usually far more accurate. "
        f"Try it: add --recipe {FOR_PHOTOGRAPHS}"
    )


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


def holds_photographs(data: str | Path | Dataset, groups: str | None = None, columns: Columns | None = None) -> bool:
    """As `are_photographs`, before the data is read: of an image folder, a few files are looked at.

    Raises
    ------
    DataError
        If the data cannot be read.
    """
    if isinstance(data, Dataset):
        return are_photographs(data)
    if is_named(data) or reader_of(expanded(data)) is not folder:
        return are_photographs(read(data, ReadOptions(columns=columns or Columns())))
    _, items = folder.find_items(expanded(data), groups)
    paths = [item.path for item in items[:: -(-len(items) // SAMPLE) or 1]]
    return _show_photographs(decode_files(paths, [True] * len(paths), ReadOptions()).originals)


def _show_photographs(pictures: Originals) -> bool:
    sides = np.maximum(pictures.heights, pictures.widths)
    return len(sides) > 0 and bool(np.median(sides) > LARGEST_OTHER) and 2 * pictures.colour > len(sides)
