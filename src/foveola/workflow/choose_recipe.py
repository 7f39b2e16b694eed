"""Which recipe suits the data: photographs begin with a pretrained network, all else with random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveola.datasets.photographs import are_photographs, holds_photographs
from foveola.datasets.weights import find_weights
from foveola.errors import DownloadError
from foveola.images import Dataset
from foveola.progress import show_progress
from foveola.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from rich.console import Console

AUTO = "auto"
FOR_PHOTOGRAPHS, FOR_OTHERS = "efficientnet-lite0", "fast"


def choose_recipe(
    data: str | Path | Dataset, overrides: Mapping[str, Any] | None, groups: str | None, screen: "Console"
) -> Recipe:
    """The recipe of `--recipe auto`, which it says, with the reason.

    Raises
    ------
    UserError
        If the data cannot be read, or an override is wrong.
    """
    if not holds_photographs(data, groups):
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
