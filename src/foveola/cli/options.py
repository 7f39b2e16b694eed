"""Arguments and options that several commands share, and how their values are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from foveola.errors import UserError, unknown

DEVICES = ("auto", "cpu", "cuda")

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A name that `foveola datasets` lists, or a path: IDX folder, .npz, image folder."
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run directory or a model file.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, all else on standard error.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Seed = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of validation split, weights, order, augmentation and dropout.")
]
DeviceName = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute; auto takes a GPU if there is one.")
]
SkipBad = Annotated[int, typer.Option(min=0, metavar="N", help="Leave out up to N unreadable images.")]
Grey = Annotated[bool, typer.Option("--grey", help="Convert colour pictures for a model of grey images.")]
Fixes = Annotated[
    str | None,
    typer.Option(
        metavar="FIXES",
        help="Change pictures first: grey, invert, contrast, crop, center, with commas; auto: what is proposed.",
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value; may be repeated.")
]


def one_of(option: str, value: str, known: Sequence[str]) -> Any:
    """The value, where it is a known one.

    Raises
    ------
    UserError
        Otherwise; it names the nearest known value.
    """
    if value not in known:
        raise UserError(unknown(f"--{option}", value, known))
    return value


def parse_overrides(settings: list[str] | None) -> dict[str, Any]:
    """What --set asks for, by the keys of the recipe.

    Raises
    ------
    RecipeError
        If a setting is not key=value.
    """
    from foveola.recipe import parse_override

    return dict(parse_override(setting) for setting in settings or [])


def parse_fixes(text: str | None) -> list[str]:
    """The names that --fix gives, with commas between."""
    return [name.strip() for name in text.split(",")] if text is not None else []


def parse_image_shape(text: str) -> tuple[int, int, int]:
    """Height, width and channels of a text such as 28x28x1.

    Raises
    ------
    UserError
        If it is something else.
    """
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f"--image is {text!r}; it should be height x width x channels, such as 28x28x1.")
    height, width, channels = map(int, sides)
    return height, width, channels
