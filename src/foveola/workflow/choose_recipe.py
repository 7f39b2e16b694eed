"""Which recipe suits the data: photographs begin with a pretrained network, all else with random weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.datasets import Source, folder, is_named, read, reader_of
from foveola.datasets.image_files import decode_files
from foveola.datasets.reader import ReadOptions, originals_of
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
# Sides of photographs are enlarged to a multiple of this, up to that of the recipe: networks halve them five times
STEP = 32
# Images that are looked at
SAMPLE = 48


def choose_recipe(
    data: Source,
    overrides: Mapping[str, Any] | None,
    groups: str | None,
    screen: "Console",
    columns: Columns | None = None,
) -> Recipe:
    """The recipe of `--recipe auto`, which it says, with the reason.

    Raises
    ------
    UserError
        If the data cannot be read, or an override is wrong.
    """
    side = side_of_photographs(data, groups, columns)
    if side is None:
        screen.print(f"recipe: {FOR_OTHERS}, because these are no colour photographs of more than 64 pixels")
        return load_recipe(FOR_OTHERS, overrides)
    recipe = load_recipe(FOR_PHOTOGRAPHS, {"image_size": _image_size(side), **(overrides or {})})
    try:
        with show_progress(screen) as progress:
            find_weights(recipe, progress=progress)
    except DownloadError as error:
        screen.print(f"recipe: {FOR_OTHERS}, although these are colour photographs: {error}", soft_wrap=True)
        return load_recipe(FOR_OTHERS, overrides)
    screen.print(
        f"recipe: {FOR_PHOTOGRAPHS}, with images of {recipe.image_size} pixels, because these are colour photographs "
        f"of {side} pixels"
    )
    return recipe


def proposal(recipe: Recipe, dataset: Dataset) -> str | None:
    """A sentence for whoever trains on photographs from random weights; None where there is nothing to say."""
    side = None if recipe.pretrained != "none" else side_of_loaded(dataset)
    if side is None:
        return None
    size = _image_size(side)
    smaller = "" if size == load_recipe(FOR_PHOTOGRAPHS).image_size else f" --set image_size={size}"
    return (
        "These are colour photographs: a network that begins with pretrained weights is usually far more accurate. "
        f"Try it: add --recipe {FOR_PHOTOGRAPHS}{smaller}"
    )


def side_of_loaded(dataset: Dataset) -> int | None:
    """The median of the longer sides of the training pictures, before they were resized, if these are photographs.

    That is, if most are in colour, and the median is above 64 pixels.

    Examples
    --------
    >>> side_of_loaded(foveola.load("digits")) is None
    True
    """
    train = dataset.train
    return _side(dataset.originals or originals_of(train.take(np.arange(0, len(train), -(-len(train) // SAMPLE)))))


def side_of_photographs(data: Source, groups: str | None = None, columns: Columns | None = None) -> int | None:
    """As `side_of_loaded`, before the data is read: of an image folder, a few files are looked at.

    Raises
    ------
    DataError
        If the data cannot be read.
    """
    if not isinstance(data, str | Path) or is_named(data) or reader_of(expanded(data)) is not folder:
        return side_of_loaded(read(data, ReadOptions(columns=columns or Columns())))
    _, items = folder.find_items(expanded(data), groups)
    paths = [item.path for item in items[:: -(-len(items) // SAMPLE) or 1]]
    return _side(decode_files(paths, [True] * len(paths), ReadOptions()).originals)


def _side(pictures: Originals) -> int | None:
    sides = np.maximum(pictures.heights, pictures.widths)
    if not len(sides) or np.median(sides) <= LARGEST_OTHER or 2 * pictures.colour <= len(sides):
        return None
    return int(np.median(sides))


def _image_size(side: int) -> int:
    """The side, in pixels, to which photographs of this side are resized."""
    largest = load_recipe(FOR_PHOTOGRAPHS).image_size
    assert isinstance(largest, int), "the recipe of photographs has a size"
    return min(STEP * math.ceil(side / STEP), largest)
