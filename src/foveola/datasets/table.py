"""Reader of tables: a row for each image, with its label, and the path of its file, the file itself, or its pixels.

A table is a CSV, TSV or Parquet file, a WebDataset archive, a folder with one for each split (train.csv, test.csv), a
folder that `datasets.save_to_disk` wrote, a data set of the Hugging Face hub (hf:owner/name), or a data frame.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import labels_of_lists, to_labels
from foveola.datasets import arrow
from foveola.datasets.columns import columns_of, is_missing, shown
from foveola.datasets.entry import Entry
from foveola.datasets.folder import unusable_message
from foveola.datasets.image_files import ImageFiles, decode_files
from foveola.datasets.layout import SPLIT_NAMES, split_of
from foveola.datasets.reader import ReadOptions, classes_of_labels, image_set
from foveola.datasets.table_labels import label_names, names_of_labels, separator_hint
from foveola.datasets.table_rows import Plan, plan, plan_sources
from foveola.datasets.table_sources import HUB as HUB
from foveola.datasets.table_sources import is_table, sources
from foveola.errors import DataError
from foveola.files import expanded
from foveola.images import Dataset, ImageSet, Labels
from foveola.lazy import LazyImages, as_images
from foveola.models.metadata import Columns
from foveola.text import class_name, escape_surrogates

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.0+)?")


def recognises(path: Path) -> bool:
    """Whether this is a table, or a folder of tables by their names."""
    return is_table(path)


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read a table, or a folder of tables.

    Columns are those of `options.columns`, or else guessed; `Dataset.notes` say which. Labels are names or whole
    numbers, which name their classes themselves. Image files are read as those of an image folder; their paths lead
    from the table's folder, or from `options.columns.root`, and may not leave it.

    Raises
    ------
    DataError
        If the table cannot be read, columns cannot be told apart, or more than `options.skip_bad` rows cannot be used;
        the message lists these.
    MissingExtra
        If pyarrow is needed and not installed.
    """
    name = path.resolve().parent.name if path.is_file() and split_of(path.stem) else path.resolve().stem
    return _dataset(plan(path, options), options, name or "table")


def of_frame(
    frame: Any,
    *,
    image: str | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    split: str | None = None,
    weight: str | None = None,
    separator: str | None = None,
    root: str | Path | None = None,
) -> Dataset:
    """A data set from a data frame of pandas, polars or pyarrow: a row for each image.

    Parameters
    ----------
    frame : the data frame. Images are paths, image files as bytes, images of Pillow, arrays, or columns of pixels
    image, label, group, split, weight : names of columns; None: guessed, as for tables. Several columns of labels hold
        zeros and ones, and give several labels an image, as lists in one column do
    separator : between several labels in a text; None: a text is one class
    root : the folder from which paths lead, and which they may not leave. None: from the current folder, and absolute
        paths are taken as they are

    Returns
    -------
    Dataset of uint8 images, N×H×W×C

    Raises
    ------
    DataError
        If columns cannot be told apart, or a row cannot be used.

    Examples
    --------
    >>> import pandas
    >>> from foveola.datasets.table import of_frame
    >>> frame = pandas.DataFrame({f"pixel{number}": [0, 9, 200] for number in range(16)} | {"label": ["a", "b", "a"]})
    >>> data = of_frame(frame)
    >>> data.train.images.shape, data.train.labels.tolist(), data.class_names
    ((3, 4, 4, 1), [0, 1, 0], ('a', 'b'))
    """
    given = {"image": image, "label": label, "group": group, "split": split, "weight": weight, "separator": separator}
    return read_frame(frame, ReadOptions(columns=columns_of({**given, "root": root})))


def read_frame(frame: Any, options: ReadOptions) -> Dataset:
    """As `of_frame`, with its options in one object."""
    root = None if options.columns.root is None else expanded(options.columns.root)
    return _dataset(plan_sources([(None, arrow.frame_source(frame))], root, options), options, "frame")


def of_hub(name: str, options: ReadOptions) -> Dataset:
    """A data set of the Hugging Face hub, which the library `datasets` downloads: hf:owner/name.

    Raises
    ------
    DataError
        If there is no such data set, or it cannot be used.
    MissingExtra
        If the library is not installed.
    """
    return _dataset(plan(name, options), options, name.removeprefix(HUB).rpartition("/")[2])


def image_names(source: Path | str, options: ReadOptions, dataset: Dataset) -> dict[str, list[str]]:
    """The image files of a table that was read, by split, in the order of the images; empty if it holds pixels."""
    found = plan(source, options)
    names: dict[str, list[str]] = {}
    if found.cells.pixels is None:
        for index, (split, name) in enumerate(zip(found.splits, found.names, strict=True)):
            if index not in found.faults and escape_surrogates(name) not in dataset.skipped:
                names.setdefault(split, []).append(name)
    return names


def has_columns(path: Path, columns: Columns) -> bool:
    """Whether there is a table that has all the columns that are given."""
    with suppress(DataError, OSError):
        if recognises(path):
            names = set(next(sources(path))[1].names)
            return columns.names <= names
    return False


# The data set


def _dataset(plan: Plan, options: ReadOptions, name: str) -> Dataset:
    usable = [index for index in range(len(plan.rows)) if index not in plan.faults]
    decoded, unusable = None, dict(plan.faults)
    if plan.cells.pixels is None:
        files = [file for index in usable if (file := plan.cells.files[index]) is not None]
        decoded = decode_files(files, [plan.splits[index] == "train" for index in usable], options)
        unusable |= {usable[at]: _reason(plan, usable[at], text) for at, text in decoded.unusable.items()}
    _check_usable(plan, unusable, options.skip_bad)
    sets = _image_sets(plan, usable, decoded, unusable, options)
    skipped = tuple((plan.rows if index in plan.faults else plan.names)[index] for index in sorted(unusable))
    notes = (*plan.notes, *_findings(plan, sorted(set(usable) - unusable.keys())))
    dataset = Dataset(name, sets["train"], sets.get("validation"), sets.get("test"), skipped=skipped, notes=notes)
    if decoded is None:
        return dataset
    return replace(
        dataset,
        originals=decoded.originals,
        resize=decoded.shape.resize,
        fill=decoded.shape.fill,
        picture_polarity=decoded.polarity,
        notes=(*notes, *decoded.notes),
    )


def _check_usable(plan: Plan, unusable: Mapping[int, str], skip_bad: int) -> None:
    """Refuse more unusable rows than allowed, and those without which a class has none."""
    emptied = _emptied(plan, unusable)
    if len(unusable) > skip_bad:
        reasons = [unusable[index] for index in sorted(unusable)]
        raise DataError(unusable_message(reasons, skip_bad, removable=not emptied))
    if emptied:
        raise DataError(f"{plan.where}: no image of {emptied} can be used. Correct the rows.")


def _image_sets(
    plan: Plan,
    usable: Sequence[int],
    decoded: ImageFiles | None,
    unusable: Mapping[int, str],
    options: ReadOptions,
) -> dict[str, ImageSet]:
    """The images of each split; `decoded` are the files of the usable rows, if they are files."""
    places = {index: place for place, index in enumerate(usable)}
    kept: dict[str, list[int]] = {split: [] for split in SPLIT_NAMES}
    for index in usable:
        if index not in unusable:
            kept[plan.splits[index]].append(index)
    if not kept["train"]:
        raise DataError(f"{plan.where} has no training images that can be used. Give a table that has some.")
    kept = {split: rows for split, rows in kept.items() if rows}
    labels, names = _classes(plan, kept) if plan.form == "class" else _several(plan, kept, options.label_names)
    groups, weights = _group_numbers(plan), None if plan.weights is None else np.array(plan.weights)
    sets = {}
    for split, rows in kept.items():
        if decoded is None:
            assert plan.cells.pixels is not None, "there are images in one form or the other"
            images = plan.cells.pixels if len(rows) == len(plan.rows) else plan.cells.pixels[rows]
        else:
            files = LazyImages(decoded.images, np.array([places[index] for index in rows]))
            images = as_images(files) if options.decode is not None else files[:]
        own_groups, own_weights = (None if values is None else values[rows] for values in (groups, weights))
        sets[split] = image_set(images, labels[split], names, f"{plan.where}, {split}", own_groups, own_weights)
    return sets


def _reason(plan: Plan, index: int, reason: str) -> str:
    """Why an image file cannot be used, with the row that names it."""
    return reason if plan.rows[index] in reason else f"{plan.rows[index]}: {reason}"


def _emptied(plan: Plan, reasons: Mapping[int, str]) -> str:
    """The classes and splits of which no image can be used."""

    def kinds(rows: Iterable[int]) -> set[tuple[str, str]]:
        return {
            (plan.splits[row], name)
            for row in rows
            if not is_missing(plan.labels[row])
            for name in label_names(plan.labels[row])
        }

    lost = (
        kinds(reasons) - kinds(index for index in range(len(plan.rows)) if index not in reasons) if reasons else set()
    )
    return shown(f"{label!r} in the {split} split" for split, label in sorted(lost))


def _classes(plan: Plan, rows: Mapping[str, list[int]]) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Labels of each split as indices of classes, and the names of the classes."""
    values = _label_array([plan.labels[index] for indices in rows.values() for index in indices], plan.where)
    if plan.class_names and values.dtype.kind == "U":
        raise DataError(f"{plan.where}: labels are texts, but names of classes are saved for numbers. Save it again.")
    ends = np.cumsum([len(indices) for indices in rows.values()])[:-1]
    return classes_of_labels(dict(zip(rows, np.split(values, ends), strict=True)), plan.class_names, plan.where)


def _several(
    plan: Plan, rows: Mapping[str, list[int]], known: Sequence[str]
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Labels of each split, bool N×K, and their names; `known` are those that a cell can name."""
    labels = [plan.labels[index] for indices in rows.values() for index in indices]
    names = plan.class_names
    if plan.form == "names":
        names = names_of_labels(labels, known or names, plan.where)
    try:
        matrix, names = labels_of_lists(labels, names)
    except DataError as error:
        raise DataError(f"{plan.where}: {error}") from None
    ends = np.cumsum([len(indices) for indices in rows.values()])[:-1]
    return dict(zip(rows, cast("list[Labels]", np.split(matrix, ends)), strict=True)), names


def _label_array(values: list[Any], where: str) -> NDArray[Any]:
    """Labels as whole numbers, int64, if all are; otherwise as texts."""
    if any(isinstance(value, dict) for value in values):
        raise DataError(f"{where}: labels are neither names nor numbers. Name another column with --label-column.")
    if all(isinstance(value, int | float | np.number | np.bool_) for value in values):
        try:
            return to_labels(np.array(values))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    texts = [
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value).strip() for value in values
    ]
    if all(map(_INTEGER.fullmatch, texts)):
        return np.array([int(text.partition(".")[0]) for text in texts], np.int64)
    return np.array([class_name(text) for text in texts])


def _group_numbers(plan: Plan) -> NDArray[np.int64] | None:
    """The number of each row's group; rows without one stand for themselves."""
    if plan.groups is None:
        return None
    known: dict[str, int] = {}
    free = len(plan.groups)
    numbers = [
        index if group is None else known.setdefault(group, free + len(known))
        for index, group in enumerate(plan.groups)
    ]
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def _findings(plan: Plan, rows: Sequence[int]) -> Iterator[str]:
    """Yield what looks like an oversight in the rows that are used: labels in two spellings, files named twice."""
    counts = Counter(name for index in rows for name in label_names(plan.labels[index]))
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        spellings[label.casefold()].append(label)
    for alike in spellings.values():
        if len(alike) > 1:
            listed = " and ".join(f"{label!r} ({counts[label]:,} rows)" for label in sorted(alike)[:5])
            yield f"labels differ only in their letters' case, and are different classes: {listed}"
    if plan.form == "class" and (hint := separator_hint(list(counts))):
        yield hint
    first: dict[tuple[str, Path], int] = {}
    repeated = [
        (index, earlier)
        for index in rows
        if isinstance(file := plan.cells.files[index], Path)
        and (earlier := first.setdefault((plan.splits[index], file), index)) != index
    ]
    if repeated:
        index, earlier = repeated[0]
        yield (
            f"{len(repeated):,} rows name a file that an earlier row names, such as {plan.rows[index]} and "
            f"{plan.rows[earlier].rpartition(', ')[2]}; each counts as an image"
        )
