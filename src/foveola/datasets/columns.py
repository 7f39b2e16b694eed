"""Columns of a table: which of them hold images, pixels, labels, groups and splits, as given or guessed and said."""

import csv
import io
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import ValidationError

from foveola.datasets.image_files import StoredImage
from foveola.datasets.layout import split_of
from foveola.errors import DataError, unknown
from foveola.files import expanded
from foveola.inputs.find import is_image
from foveola.models.metadata import Columns, first_problem

MIN_PIXELS = 16  # columns of pixels, or numbers in a cell: an image of 4×4
MAX_OTHERS = 500  # columns that hold no pixels
MAX_SHOWN = 12  # names in a message
_MAX_PROPOSED = 50  # columns of labels in a command
HEAD_ROWS = 50  # whose values tell what a column holds

# By these names, in this order, columns are guessed; case, blanks and underscores do not count
_LABELS = (
    "label", "labels", "class", "classname", "classlabel", "target", "category", "y", "species", "breed", "diagnosis",
    "emotion", "digit", "character", "finelabel", "cls", "txt",
)  # fmt: skip
_IMAGES = (
    "image", "img", "file", "filename", "filepath", "path", "imagepath", "imgpath", "imagefile", "imagename", "imageid",
    "picture", "photo", "pixels", "idcode", "id", "name",
)  # fmt: skip
_GROUPS = ("group", "groups", "groupid", "patient", "patientid", "subject", "subjectid", "writer", "writerid")
_WEIGHTS = ("weight", "weights", "sampleweight")
_SPLITS = ("split", "set", "usage", "subset", "partition")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")  # of a label's column
_UNNAMED = re.compile(r"(unnamed.*|index|id|rowid|)", re.IGNORECASE)  # beside images and labels: numbers of rows
_PIXEL = re.compile(r"(.*?)(\d+)(?:[x_](\d+))?", re.IGNORECASE)
_NUMBERS = re.compile(r"\s*\d+(?:[\s,]+\d+){15,}\s*")


class NoLabels(DataError):
    """A table has no column that seems to hold labels."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table: the values of some columns, and the pixels of all images if columns hold them.

    Parameters
    ----------
    values : N values by column
    pixels : N×P numbers, the pixel columns in order
    numbers : of the rows, or their keys, N, for messages
    """

    values: dict[str, Sequence[Any]]
    pixels: NDArray[Any] | None
    numbers: Sequence[int | str]


class Source(Protocol):
    """A table that can be read by columns."""

    @property
    def where(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def unit(self) -> str:
        """What a row is called in messages: row, line, sample."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Of its columns."""
        ...

    @property
    def has_header(self) -> bool:
        """Whether the names are the table's own, not numbers from 0."""
        ...

    def head(self, name: str) -> Sequence[Any]:
        """The first values of a column, HEAD_ROWS at most."""
        ...

    def class_names(self, name: str) -> tuple[str, ...]:
        """Names of classes that are saved with a column of their numbers; empty where there are none."""
        ...

    def read(self, names: Sequence[str], pixels: Sequence[str]) -> Rows:
        """All rows: values of some columns, numbers of others."""
        ...


@dataclass(frozen=True)
class Chosen:
    """The columns of a table: `image`, or `pixels` in their order; None or empty for what it does not have."""

    image: str | None
    pixels: tuple[str, ...]
    labels: tuple[str, ...]
    group: str | None
    split: str | None
    weight: str | None
    notes: tuple[str, ...] = ()


def choose_columns(source: Source, given: Columns, *, labelled: bool = True) -> Chosen:
    """What the columns of a table hold.

    Parameters
    ----------
    given : the columns that are known; others are guessed, first by their values, then by their names
    labelled : whether there must be labels; otherwise none are looked for

    Raises
    ------
    DataError
        If there is no such column, or images or labels are in none that can be told from the others.
    """
    labels = given.labels
    if labelled and labels and not set(labels) & set(source.names):
        raise NoLabels(_unknown_column(source, labels[0]))
    for name in given.names:
        check_column(source, name)
    taken = [*labels, *(name for name in (given.group, given.split, given.weight) if name is not None)]
    if labelled and not labels and not source.has_header:
        free = [name for name in source.names[:MAX_OTHERS] if name not in (given.image, *taken)]
        labels = tuple(name for name in free if not _holds_images(source, name))[:1]
    pixels: tuple[str, ...] = ()
    if given.image is None:
        pixels = pixel_columns(source, [name for name in source.names if name not in (*taken, *labels)])
    used = {*taken, *pixels}
    rest = [name for name in source.names if name not in used]
    if len(rest) > MAX_OTHERS:
        raise DataError(
            f"{source.where} has {len(rest):,} columns that hold no pixels ({shown(rest)}); {MAX_OTHERS} are read. "
            f"Leave out those that are not needed."
        )
    image = given.image if given.image is not None or pixels else _image_column(source, rest)
    rest = [name for name in rest if name != image]
    split = given.split or _by_name([name for name in rest if _holds_splits(source, name)], _SPLITS)
    rest = [name for name in rest if name != split]
    group = given.group or _by_name(rest, _GROUPS)
    weight = given.weight or _by_name(rest, _WEIGHTS)
    if labelled and not labels:
        labels = (_label_column(source, [name for name in rest if name not in (group, weight)]),)
    for column in (image, *labels, group, split, weight):
        if column is not None:
            check_column(source, column)
    chosen = Chosen(image, pixels, labels if labelled else (), group, split, weight)
    return replace(chosen, notes=tuple(_notes(source, given, chosen)))


def as_columns(columns: Columns | Mapping[str, Any] | None) -> Columns:
    """What was given as columns, checked; the folder of the images as an absolute path.

    Raises
    ------
    DataError
        If a key is unknown, or a value cannot be the name of a column.
    """
    if columns is None:
        return Columns()
    if not isinstance(columns, Columns):
        columns = columns_of(columns)
    return columns.model_copy(update={"root": None if columns.root is None else str(expanded(columns.root).absolute())})


def columns_of(given: Mapping[str, Any]) -> Columns:
    """Columns from texts, or a list of texts for several labels, by key; None: guessed.

    Raises
    ------
    DataError
        If a key is unknown, or a value cannot be the name of a column.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in Columns.model_fields:
            raise DataError(unknown("key of columns", str(key), Columns.model_fields))
        if key == "label" and isinstance(value, Iterable) and not isinstance(value, str):
            values[key] = _several(list(map(str, value)))
        elif value is not None:
            values[key] = str(value)
    try:
        return Columns(**values)
    except ValidationError as error:
        raise DataError(f"These are no names of columns: {first_problem(error)}. Give shorter ones.") from None


def _several(names: Sequence[str]) -> str | tuple[str, ...]:
    """Several columns of labels; a single one is that of classes."""
    if not names or len(set(names)) < len(names):
        raise DataError("Columns of labels must be different, and one at least. Name each once.")
    return names[0] if len(names) == 1 else tuple(names)


def check_column(source: Source, name: str) -> None:
    """Refuse a column that a table does not have, or has twice.

    Raises
    ------
    DataError
        With the nearest name that it has.
    """
    count = list(source.names).count(name)
    if count == 0:
        raise DataError(_unknown_column(source, name))
    if count > 1:
        raise DataError(f"{source.where} has {count} columns with the name {name!r}. Rename all but one.")


def _unknown_column(source: Source, name: str) -> str:
    own = [own for own in source.names if not _PIXEL.fullmatch(own)] or source.names[:MAX_SHOWN]
    return f"{source.where}: {unknown('column', name, own[: 4 * MAX_SHOWN])}"


def split_of_value(value: str) -> str | None:
    """The split that a value stands for, such as "test" for Test or PrivateTest; None for any other value."""
    words = {"publictest": "validation", "privatetest": "test"}  # of Kaggle's competitions
    return words.get(value.casefold()) or split_of(value)


def shown(names: Iterable[str]) -> str:
    """Names for a message; of many, the first ones."""
    listed = list(names)
    more = f", … ({len(listed) - MAX_SHOWN:,} more)" if len(listed) > MAX_SHOWN else ""
    return ", ".join(name or "(no name)" for name in listed[:MAX_SHOWN]) + more


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, pandas' NA, or a text without a letter."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)


def flag_of(value: Any) -> bool | None:
    """What a cell says of a label: 1, true or yes; 0, false or no; None if it is anything else, or empty."""
    if isinstance(value, int | float | np.number | np.bool_):
        return bool(value) if value in (0, 1) else None
    text = str(value).strip().casefold()
    return True if text in _YES else False if text in _NO else None


def pixel_columns(source: Source, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that are called pixel0, pixel1, … or 1x1, 1x2, …, in this order; empty if there are none."""
    families: dict[tuple[str, bool], list[tuple[int, int, str]]] = defaultdict(list)
    for name in names:
        if (match := _PIXEL.fullmatch(name.strip())) and len(match[2]) < 10 and len(match[3] or "") < 10:
            families[match[1].casefold(), match[3] is not None].append((int(match[2]), int(match[3] or 0), name))
    large = [family for family in families.values() if len(family) >= MIN_PIXELS]
    if not large:
        return ()
    if len(large) > 1:
        raise DataError(
            f"{source.where} has several series of numbered columns ({shown(family[0][2] for family in large)}, …), so "
            f"that it is not clear which hold pixels, in which order. Save the images as an .npz file."
        )
    columns = tuple(name for _, _, name in sorted(large[0]))
    if len(set(columns)) < len(columns):
        raise DataError(f"{source.where} has several columns of pixels with the same name. Rename them.")
    return columns


def _image_column(source: Source, names: Sequence[str]) -> str:
    found = [name for name in names if _holds_images(source, name)]
    if len(found) > 1:
        named = _by_name(found, _IMAGES)
        if named is None:
            raise DataError(
                f"{source.where} has several columns with images ({shown(found)}). Name one with --image-column."
            )
        return named
    by_name = found[0] if found else _by_name(names, _IMAGES)
    if by_name is None:
        raise DataError(
            f"{source.where} has no column that seems to hold images: paths of image files, or pixels (at least "
            f"{MIN_PIXELS} numbered columns). Its columns are {shown(source.names)}. Name one with --image-column."
        )
    return by_name


def _label_column(source: Source, names: Sequence[str]) -> str:
    label = _by_name(names, _LABELS)
    rest = [name for name in names if not _UNNAMED.fullmatch(name.strip()) and not _holds_images(source, name)]
    if label is None and len(rest) == 1:
        label = rest[0]
    if label is None:
        raise NoLabels(
            f"{source.where} has no column that seems to hold labels. Its other columns are {shown(names) or 'none'}. "
            f"Name one with --label-column{_several_hint(source, rest)}. A table without labels can be predicted: "
            f"foveola predict RUN TABLE."
        )
    return label


def _several_hint(source: Source, names: Sequence[str]) -> str:
    """How to take columns of zeros and ones as labels, if there are several of them."""
    flags = [name for name in names if (values := source.head(name)) and None not in map(flag_of, values)]
    if len(flags) < 2:
        return ""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(flags if len(flags) <= _MAX_PROPOSED else [*flags[:3], "…"])
    return f"; several that each say yes or no of one label with --label-column {shlex.quote(line.getvalue())}"


def _by_name(names: Iterable[str], known: Sequence[str]) -> str | None:
    """The column with the first of the known names, however it is spelt."""
    spelt = {re.sub(r"[\s_-]", "", name.casefold()): name for name in names}
    return next((spelt[name] for name in known if name in spelt), None)


def _holds_images(source: Source, name: str) -> bool:
    values = [value for value in source.head(name) if not is_missing(value)]
    return bool(values) and sum(map(_seems_image, values)) > len(values) / 2


def _seems_image(value: Any) -> bool:
    match value:
        case str():
            return is_image(Path(value.strip())) or _NUMBERS.fullmatch(value) is not None
        case dict():
            return bool({"bytes", "path"} & value.keys())
        case list() | np.ndarray():
            return np.size(value) >= MIN_PIXELS if isinstance(value, np.ndarray) else _seems_pixels(value)
        case os.PathLike():
            return is_image(Path(value))
    return isinstance(value, bytes | Image | StoredImage)


def _seems_pixels(value: list[Any]) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        return False
    return array.size >= MIN_PIXELS and array.dtype.kind in "uif"


def _holds_splits(source: Source, name: str) -> bool:
    values = [value for value in source.head(name) if not is_missing(value)]
    return bool(values) and all(isinstance(value, str) and split_of_value(value) for value in values)


def _notes(source: Source, given: Columns, chosen: Chosen) -> Iterable[str]:
    """What was guessed, a sentence."""
    image = f"{len(chosen.pixels):,} columns of pixels" if chosen.pixels else f"column {chosen.image!r}"
    parts = [f"images from {image}"] if given.image is None else []
    guessed: dict[str, str | None] = {"label": chosen.labels[0] if chosen.labels else None}
    guessed |= {option: getattr(chosen, option) for option in ("group", "split", "weight")}
    for option, name in guessed.items():
        if name is not None and getattr(given, option) is None:
            parts.append(f"{option}s from column {name!r}")
    if parts:
        options = "--image-column, --label-column and so on choose others"
        header = "" if source.has_header else " It has no header; columns are counted from 0."
        yield f"{source.where}: {', '.join(parts)}; {options}.{header}"
