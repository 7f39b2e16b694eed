"""Arguments and options that several commands share, and the parsers of their values."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveola.errors import UserError, unknown

if TYPE_CHECKING:
    from pydantic import SecretStr

DEVICES = ("auto", "cpu", "cuda", "mps")


def complete(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell offers for the beginning of a name; where no name fits, the shell offers files."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def data_names() -> Iterable[str]:
    """The data sets known by name."""
    from foveola.datasets.catalog import CATALOG

    return CATALOG


def recipe_names() -> Iterable[str]:
    """The recipes that come with Foveola."""
    from foveola.recipe import recipe_names

    return recipe_names()


def tracker_names() -> Iterable[str]:
    """The trackers of `train --log`."""
    from foveola.documents import TRACKERS

    return TRACKERS


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A name that `foveola datasets` lists, or a path: image folder, table, .npz, IDX, packed.",
        autocompletion=complete(data_names),
    ),
]
Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A run directory, a .safetensors or .onnx file, or a web export's folder."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, everything else on standard error.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Plain = Annotated[bool, typer.Option("--quiet", "-q", help="No effect: this command prints only its result.")]
Seed = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of validation split, weights, order, augmentation and dropout.")
]
DeviceName = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|mps",
        help="Device; auto uses a CUDA GPU if there is one. mps: the GPU of an Apple machine, untested.",
        autocompletion=complete(lambda: DEVICES),
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Number of threads. Default: one per core. The trained weights depend on it slightly."
    ),
]
PredictingThreads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Number of threads. Default: one per core.")
]
SkipBad = Annotated[int, typer.Option(min=0, metavar="N", help="Skip up to N unreadable images.")]
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        metavar="PATTERN",
        help="Keep images of one object on one side of every split: a regular expression over file names with one "
        "capturing group, such as '(.+)_', or folder.",
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option("--image-column", metavar="NAME", help="Column of a table that holds the images. Default: guessed."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        metavar="NAME",
        help="Column of a table that holds the labels. Default: guessed. For several labels an image: columns of zeros "
        "and ones, a,b,c.",
    ),
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(
        "--label-separator",
        metavar="TEXT",
        help="Separator of several labels in a cell of a table, such as ';'. Default: a cell holds one class.",
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        "--group-column",
        metavar="NAME",
        help="Column of a table with groups, such as patients, that stay on one side of every split.",
    ),
]
SplitColumn = Annotated[
    str | None,
    typer.Option("--split-column", metavar="NAME", help="Column of a table that says train, validation or test."),
]
WeightColumn = Annotated[
    str | None,
    typer.Option("--weight-column", metavar="NAME", help="Column of a table that holds each image's weight."),
]
ImageRoot = Annotated[
    Path | None,
    typer.Option(
        "--image-root",
        metavar="FOLDER",
        help="Folder that a table's paths are relative to and may not leave. Default: the table's folder.",
    ),
]
Grey = Annotated[bool, typer.Option("--grey", help="Convert colour images to grey for a model of grey images.")]
Fixes = Annotated[
    str | None,
    typer.Option(
        metavar="FIXES",
        help="Fix images first: grey, invert, contrast, crop, center, separated by commas; auto: those proposed for "
        "each image.",
    ),
]
Host = Annotated[str, typer.Option(metavar="HOST", help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 for any free one.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="FOVEOLA_API_KEY",
        help="Require this key on every request. Set FOVEOLA_API_KEY instead to keep it out of the process list.",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Accept requests to this host name; may be repeated."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, such as image_size=160; may be repeated. `foveola recipes NAME` lists "
        "them.",
    ),
]


def one_of(option: str, value: str, known: Sequence[str]) -> Any:
    """The value, if it is a known one.

    Raises
    ------
    UserError
        If it is not; the message names the nearest known value.
    """
    if value not in known:
        raise UserError(unknown(f"--{option}", value, known))
    return value


def table_columns(
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    weight: str | None = None,
    root: Path | None = None,
    separator: str | None = None,
) -> dict[str, str | Sequence[str]]:
    """The columns that were given, for the functions of `foveola.workflow`."""
    given = {
        "image": image, "label": None if label is None else parse_names(label), "group": group, "split": split,
        "weight": weight, "root": path_text(root), "separator": separator,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def parse_names(text: str) -> list[str]:
    """Names that are separated by commas; quotes surround a name that has one, as in CSV.

    Raises
    ------
    UserError
        If quotes do not end.
    """
    try:
        return [name.strip() for name in next(csv.reader([text], skipinitialspace=True, strict=True), [""])]
    except csv.Error as error:
        raise UserError(f"{text!r} is not a list of names: {error}. Separate them by commas, such as a,b,c.") from None


def parse_overrides(settings: list[str] | None) -> dict[str, Any]:
    """The values of --set, by recipe key.

    Raises
    ------
    RecipeError
        If a setting is not key=value.
    """
    from foveola.recipe import parse_override

    return dict(parse_override(setting) for setting in settings or [])


def parse_fixes(text: str | None) -> list[str]:
    """The fixes of --fix, which are separated by commas."""
    return [name.strip() for name in text.split(",")] if text is not None else []


def parse_image_shape(text: str) -> tuple[int, int, int]:
    """Height, width and channels of a text such as 28x28x1.

    Raises
    ------
    UserError
        If the text has another form.
    """
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f"--image is {text!r}; it should be height x width x channels, such as 28x28x1.")
    height, width, channels = map(int, sides)
    return height, width, channels


def parse_range(text: str) -> tuple[float, float]:
    """The two numbers of a text such as -1,1, the first of which is smaller.

    Raises
    ------
    UserError
        If the text has another form.
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not -1e6 <= low < high <= 1e6:
        raise UserError(f"--pixel-range is {text!r}; it should be black,white, such as 0,1 or -1,1 or 0,255.")
    return low, high


def parse_image_size(text: str) -> tuple[int, int]:
    """Height and width of a text such as 64 or 48x64.

    Raises
    ------
    UserError
        If the text has another form.
    """
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() and 0 < int(side) < 2**16 for side in sides):
        raise UserError(f"--image-size is {text!r}; it should be a side, or height x width, such as 64 or 48x64.")
    return int(sides[0]), int(sides[-1])


_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Seconds of "60", "60s", "1.5m" or "2h".

    Raises
    ------
    UserError
        If the text is not a duration above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _SECONDS or float(match[1]) == 0:
        raise UserError(f"{text!r} is not a duration. Give seconds, minutes or hours, such as 60s, 5m or 1h.")
    return float(match[1]) * _SECONDS[match[2]]


_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(text: str) -> int:
    """Bytes of "16MB", "500 kB" or "2MiB".

    Raises
    ------
    UserError
        If the text is not a number of bytes above zero.
    """
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _BYTES or int(match[1]) == 0:
        raise UserError(f"{text!r} is not a size. Give bytes, such as 500kB, 16MB or 2MiB.")
    return int(match[1]) * _BYTES[match[2]]


def parse_position(text: str) -> tuple[int, int]:
    """Row and column of a text such as 2,3.

    Raises
    ------
    UserError
        If the text has another form.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--position is {text!r}; it should be row,column of the output, counted from 0, such as 2,3.")
    row, column = map(int, parts)
    return row, column


def parse_key(text: str | None) -> "SecretStr | None":
    """The key of --api-key, if there is one.

    Raises
    ------
    UserError
        If it is empty.
    """
    from pydantic import SecretStr

    if text == "":
        raise UserError("The API key is empty. Give a longer one, or none.")
    return None if text is None else SecretStr(text)


def path_text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
