"""Reader of tables: a row for each image, with its label, and the path of its file, the file itself, or its pixels.

A table is a CSV, TSV or Parquet file, a WebDataset archive, a folder with one for each split (train.csv, test.csv), a
folder that `datasets.save_to_disk` wrote, a data set of the Hugging Face hub (hf:owner/name), or a data frame.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import to_labels
from foveola.datasets import arrow, delimited, webdataset
from foveola.datasets.cells import Cells, ImageFile, flat_pixels, is_image_size, read_cells
from foveola.datasets.columns import (
    Chosen,
    NoLabels,
    Source,
    check_column,
    choose_columns,
    is_missing,
    pixel_columns,
    shown,
    split_of_value,
)
from foveola.datasets.entry import Entry
from foveola.datasets.folder import unusable_message
from foveola.datasets.image_files import ImageFiles, StoredImage, decode_files
from foveola.datasets.layout import SPLIT_NAMES, split_of
from foveola.datasets.reader import ReadOptions, classes_of_labels, image_set
from foveola.datasets.series import compile_groups, group_name
from foveola.errors import DataError, require
from foveola.files import expanded
from foveola.images import Dataset, Images, ImageSet
from foveola.inputs.decode import FirstFrame, decode_first_frame, read_first_frame
from foveola.inputs.find import is_junk
from foveola.lazy import LazyImages, as_images
from foveola.models.metadata import Columns
from foveola.text import class_name, escape_surrogates

HUB = "hf:"
"""What a data set of the Hugging Face hub begins with."""

EXTENSIONS = (*delimited.EXTENSIONS, *arrow.PARQUET, webdataset.EXTENSION)

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.0+)?")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a table says of its N images, before image files are decoded.

    `faults` are the rows that cannot be used, by index. `names` are those of the files, or of the rows.
    """

    where: str
    splits: list[str]
    cells: Cells
    labels: list[Any]
    groups: list[str | None] | None
    weights: list[float] | None
    rows: list[str]
    names: list[str]
    class_names: tuple[str, ...]
    faults: dict[int, str]
    notes: tuple[str, ...]


def recognises(path: Path) -> bool:
    """Whether this is a table, or a folder of tables by their names."""
    if path.is_file():
        return path.suffix.lower() in EXTENSIONS
    return path.is_dir() and (_is_saved(path) or bool(_files_by_split(path)))


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
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    weight: str | None = None,
    root: str | Path | None = None,
) -> Dataset:
    """A data set from a data frame of pandas, polars or pyarrow: a row for each image.

    Parameters
    ----------
    frame : the data frame. Images are paths, image files as bytes, images of Pillow, arrays, or columns of pixels
    image, label, group, split, weight : names of columns; None: guessed, as for tables
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
    root = None if root is None else str(root)
    columns = Columns(image=image, label=label, group=group, split=split, weight=weight, root=root)
    return read_frame(frame, ReadOptions(columns=columns))


def read_frame(frame: Any, options: ReadOptions) -> Dataset:
    """As `of_frame`, with its options in one object."""
    root = None if options.columns.root is None else expanded(options.columns.root)
    return _dataset(_plan([(None, arrow.frame_source(frame))], root, options), options, "frame")


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


def plan(source: Path | str, options: ReadOptions) -> Plan:
    """What a table says of its images; a `source` that is no Path names a data set of the hub."""
    if isinstance(source, str):
        return _plan(list(_hub_sources(source)), None, options)
    root = source if source.is_dir() else source.parent
    root = root if options.columns.root is None else expanded(options.columns.root)
    if not root.is_dir():
        raise DataError(f"{root}, given with --image-root, is not a folder. Give the folder that holds the images.")
    notes = tuple(_note_on_test_table(source, options)) if source.is_file() else ()
    return _plan(list(_sources(source)), root, options, notes)


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
            names = set(next(_sources(path))[1].names)
            return {name for key, name in columns.given.items() if key != "root"} <= names
    return False


# To be predicted


@dataclass(frozen=True, eq=False)
class TableImage:
    """An image of a row that is to be predicted: `content` is its file, its pixels, or why there is none."""

    name: str
    content: ImageFile | Images | str

    def read(self, white_level: int | None = None) -> FirstFrame:
        """The first frame; `white_level` as of `decode_first_frame`.

        Raises
        ------
        DataError
            If there is no image, or it cannot be decoded.
        """
        match self.content:
            case str():
                raise DataError(self.content)
            case Path():
                return read_first_frame(self.content, white_level)
            case StoredImage():
                return decode_first_frame(self.content.read(), self.name, white_level=white_level)
        return FirstFrame(self.content)


def table_images(path: Path, columns: Columns, size: tuple[int, int]) -> list[TableImage]:
    """The images of a table, which needs no labels.

    Parameters
    ----------
    columns : `image` and `root`; others are not looked at
    size : height and width of the images, where a row of pixels has as many

    Raises
    ------
    DataError
        If the table cannot be read, or it is not clear which column holds the images.
    """
    source = source_of(path)
    chosen = choose_columns(source, Columns(image=columns.image), labelled=False)
    pixels = chosen.pixels
    if (
        pixels
        and not source.has_header
        and not is_image_size(len(pixels), size)
        and is_image_size(len(pixels) - 1, size)
    ):
        pixels = pixels[1:]  # the first column holds labels or ids
    found = source.read([] if chosen.image is None else [chosen.image], pixels)
    rows = [f"{source.where}, {source.unit} {number}" for number in found.numbers]
    if found.pixels is not None:
        return list(map(TableImage, rows, flat_pixels(found.pixels, size, source.where)))
    assert chosen.image is not None, "there are images in one form or the other"
    root = path.parent if columns.root is None else expanded(columns.root)
    cells = read_cells(found.values[chosen.image], rows, root, size)
    content: Sequence[Any] = cells.files if cells.pixels is None else list(cells.pixels)
    return [
        TableImage(_name(file, row), cells.faults.get(index, image))
        for index, (file, row, image) in enumerate(zip(cells.files, rows, content, strict=True))
    ]


def row_ids(path: Path, id_column: str) -> list[Any] | None:
    """The values of a column that names the rows of a table; None if the table has no such column.

    Raises
    ------
    DataError
        If the table cannot be read.
    """
    source = source_of(path)
    if id_column not in source.names:
        return None
    check_column(source, id_column)
    pixels = pixel_columns(source, [name for name in source.names if name != id_column])
    return list(source.read([id_column], pixels).values[id_column])


# Sources


def source_of(path: Path) -> Source:
    """The table in a file, or in a folder that `datasets` has saved."""
    if path.is_dir():
        return arrow.saved_table(path)
    if path.suffix.lower() == webdataset.EXTENSION:
        return webdataset.TarFile(path)
    return arrow.parquet_table(path) if path.suffix.lower() in arrow.PARQUET else delimited.DelimitedFile(path)


def _sources(path: Path) -> Iterator[tuple[str | None, Source]]:
    """Yield the tables, with their splits where their names tell."""
    if path.is_file() or (path / arrow.SAVED).is_file():
        yield None, source_of(path)
        return
    files = _files_by_split(path)
    if (path / arrow.SAVED_SPLITS).is_file():
        files = defaultdict(list)
        for name, folder in arrow.saved_splits(path).items():
            if (split := split_of(name)) is None:
                raise DataError(
                    f"{path} has a split called {name!r}, which is none of train, validation and test. Give the folder "
                    f"of one split: {path / name}."
                )
            files[split].append(folder)
    for split in SPLIT_NAMES:
        for file in files.get(split, []):
            yield split, source_of(file)


def _hub_sources(name: str) -> Iterator[tuple[str | None, Source]]:
    datasets = require("datasets", "hub")
    require("pyarrow", "tables")
    try:
        loaded = datasets.load_dataset(name.removeprefix(HUB))
        tables = {split: part.with_format("arrow")[:] for split, part in loaded.items()}
        features = {split: part.features.to_dict() for split, part in loaded.items()}
    except Exception as error:  # of many types, of the library and of those below it
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise DataError(
            f"{name} cannot be read by the library datasets: {reason}. Check the name and the network."
        ) from error
    known = {split: split_of(split) for split in tables}
    if not any(known.values()):
        raise DataError(f"{name} has the splits {shown(tables)}; none of them is train, validation or test.")
    for split, table in tables.items():
        if known[split] is not None:
            yield known[split], arrow.arrow_table(table, f"{name}, {split}", features[split])


def _is_saved(folder: Path) -> bool:
    return (folder / arrow.SAVED_SPLITS).is_file() or all(
        (folder / name).is_file() for name in (arrow.SAVED, arrow.SAVED_STATE)
    )


def _files_by_split(folder: Path) -> Mapping[str, list[Path]]:
    """The tables in a folder without folders, by the splits that their names tell; empty without a training table."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if is_junk(path.name):
            continue
        if path.is_dir():
            return {}
        if path.suffix.lower() in EXTENSIONS and (split := _split_of_file(path)):
            files[split].append(path)
    return files if "train" in files else {}


def _split_of_file(path: Path) -> str | None:
    """The split that the name of a table tells: train.csv, mnist_test.csv, validation-00000-of-00001.parquet."""
    words = re.split(r"[-_. ]", path.stem)
    return split_of(path.stem) or next(filter(None, map(split_of, reversed(words))), None)


def _note_on_test_table(path: Path, options: ReadOptions) -> Iterator[str]:
    """Yield what the test table beside a training table is, which is not read."""
    if _split_of_file(path) != "train":
        return
    siblings = [other for other in sorted(path.parent.iterdir()) if other.suffix.lower() == path.suffix.lower()]
    for other in siblings:
        if other.is_file() and _split_of_file(other) == "test":
            with suppress(DataError):
                try:
                    choose_columns(source_of(other), options.columns)
                except NoLabels:
                    yield _unlabelled(other.name)
                else:
                    yield f"{other.name} beside it is not read; measure on it: foveola evaluate RUN {other.name}"


def _unlabelled(name: str) -> str:
    return (
        f"{name} has no labels, so that it is not a test split, and nothing can be measured on it. Predict it: foveola "
        f"predict RUN {name} --id-column id --out submission.csv"
    )


# Rows


def _plan(
    sources: Sequence[tuple[str | None, Source]], root: Path | None, options: ReadOptions, notes: tuple[str, ...] = ()
) -> Plan:
    parts = []
    for split, source in sources:
        try:
            chosen = choose_columns(source, options.columns)
        except NoLabels:
            if split != "test":
                raise
            notes += (_unlabelled(source.where),)
        else:
            parts.append(_part(split or "train", source, chosen, root, options))
    if not parts:
        raise DataError("There is no table with labels. Give one that has a column of labels.")
    joined = _joined(parts, notes)
    joined.faults.update(_contradictions(joined))
    return joined


def _part(split: str, source: Source, chosen: Chosen, root: Path | None, options: ReadOptions) -> Plan:
    """What one table says."""
    assert chosen.label is not None, "tables without labels are refused"
    wanted = [
        name for name in (chosen.image, chosen.label, chosen.group, chosen.split, chosen.weight) if name is not None
    ]
    found = source.read(list(dict.fromkeys(wanted)), chosen.pixels)
    rows = [f"{source.where}, {source.unit} {number}" for number in found.numbers]
    if found.pixels is not None:
        cells = Cells([None] * len(rows), {}, flat_pixels(found.pixels, options.image_size, source.where))
    else:
        assert chosen.image is not None, "there are images in one form or the other"
        cells = read_cells(found.values[chosen.image], rows, root, options.image_size)
    names = [_name(file, row) for file, row in zip(cells.files, rows, strict=True)]
    labels = list(found.values[chosen.label])
    class_names = source.class_names(chosen.label)
    splits, faults = [split] * len(rows), dict(cells.faults)
    if chosen.split is not None:
        for index, value in enumerate(found.values[chosen.split]):
            known = None if is_missing(value) else split_of_value(str(value).strip())
            splits[index] = known or "train"
            if known is None:
                faults[index] = f"{rows[index]}: the split is {str(value)[:40]!r}, not train, validation or test."
    for index, label in enumerate(labels):
        if is_missing(label) or (class_names and label == -1):
            faults.setdefault(index, f"{rows[index]}: no label in column {chosen.label!r}.")
    weights = None
    if chosen.weight is not None:
        weights = [_weight(value) for value in found.values[chosen.weight]]
        for index, weight in enumerate(weights):
            if not 0 <= weight < np.inf:
                text = str(found.values[chosen.weight][index])[:40]
                faults.setdefault(index, f"{rows[index]}: the weight is {text!r}, not a number of 0 or more.")
    groups = _groups(chosen, found.values, names, cells, root, options)
    return Plan(
        source.where,
        splits,
        cells,
        labels,
        groups,
        weights,
        rows,
        names,
        class_names,
        faults,
        (*chosen.notes, *cells.notes),
    )


def _name(file: ImageFile | None, row: str) -> str:
    if file is None:
        return row
    return file.name if isinstance(file, StoredImage) else str(file)


def _weight(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def _inner_name(file: ImageFile, root: Path | None) -> str:
    """The path of a file from the folder of all images, or its name in an archive."""
    if isinstance(file, StoredImage):
        return file.name.rpartition(", ")[2]
    return (file.relative_to(root) if root is not None and file.is_relative_to(root) else file).as_posix()


def _groups(
    chosen: Chosen,
    values: Mapping[str, Sequence[Any]],
    names: list[str],
    cells: Cells,
    root: Path | None,
    options: ReadOptions,
) -> list[str | None] | None:
    """The group of each row, None for a row that stands for itself; None without groups."""
    if options.groups is not None:
        if options.columns.group is not None:
            raise DataError("--groups and --group-column both say what keeps images together. Give one of them.")
        if cells.pixels is not None:
            raise DataError(
                "--groups reads file names, and this table holds pixels. Name a column with --group-column."
            )
        pattern = compile_groups(options.groups)
        return [
            None if file is None else group_name(pattern, _inner_name(file, root), name)
            for file, name in zip(cells.files, names, strict=True)
        ]
    if chosen.group is None:
        return None
    return [None if is_missing(value) else str(value).strip() for value in values[chosen.group]]


def _joined(parts: Sequence[Plan], notes: tuple[str, ...]) -> Plan:
    """Several tables as one."""
    pixels = [part.cells.pixels for part in parts if part.cells.pixels is not None]
    if len(pixels) not in (0, len(parts)) or len({array.shape[1:] for array in pixels}) > 1:
        raise DataError(
            f"{shown(part.where for part in parts)} hold images of different forms. Give them the same columns."
        )
    files: list[ImageFile | None] = []
    faults: dict[int, str] = {}
    for part in parts:
        faults |= {len(files) + index: reason for index, reason in part.faults.items()}
        files += part.cells.files
    groups = None
    if any(part.groups is not None for part in parts):
        groups = [group for part in parts for group in (part.groups or [None] * len(part.rows))]
    weights = None
    if any(part.weights is not None for part in parts):
        weights = [weight for part in parts for weight in (part.weights or [1.0] * len(part.rows))]
    joined: Images | None = None if not pixels else pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
    return Plan(
        shown(part.where for part in parts),
        [split for part in parts for split in part.splits],
        Cells(files, {}, joined),
        [label for part in parts for label in part.labels],
        groups,
        weights,
        [row for part in parts for row in part.rows],
        [name for part in parts for name in part.names],
        parts[0].class_names,
        faults,
        tuple(dict.fromkeys((*notes, *(note for part in parts for note in part.notes)))),
    )


def _contradictions(plan: Plan) -> dict[int, str]:
    """Rows that give a file another label than an earlier row."""
    earlier: dict[Path, int] = {}
    faults = {}
    for index, file in enumerate(plan.cells.files):
        if isinstance(file, Path) and index not in plan.faults:
            first = earlier.setdefault(file, index)
            if str(plan.labels[first]).strip() != str(plan.labels[index]).strip():
                faults[index] = (
                    f"{plan.rows[index]}: {file} has the label {str(plan.labels[index])[:40]!r} here, and "
                    f"{str(plan.labels[first])[:40]!r} in {plan.rows[first].rpartition(', ')[2]}."
                )
    return faults


# The data set


def _dataset(plan: Plan, options: ReadOptions, name: str) -> Dataset:
    usable = [index for index in range(len(plan.rows)) if index not in plan.faults]
    decoded, unusable = None, dict(plan.faults)
    if plan.cells.pixels is None:
        files = [file for index in usable if (file := plan.cells.files[index]) is not None]
        decoded = decode_files(files, [plan.splits[index] == "train" for index in usable], options)
        unusable |= {usable[at]: _reason(plan, usable[at], text) for at, text in decoded.unusable.items()}
    _check_usable(plan, unusable, options.skip_bad)
    sets = _image_sets(plan, usable, decoded, unusable, lazy=options.decode is not None)
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
    plan: Plan, usable: Sequence[int], decoded: ImageFiles | None, unusable: Mapping[int, str], *, lazy: bool
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
    labels, names = _classes(plan, kept)
    groups, weights = _group_numbers(plan), None if plan.weights is None else np.array(plan.weights)
    sets = {}
    for split, rows in kept.items():
        if decoded is None:
            assert plan.cells.pixels is not None, "there are images in one form or the other"
            images = plan.cells.pixels if len(rows) == len(plan.rows) else plan.cells.pixels[rows]
        else:
            files = LazyImages(decoded.images, np.array([places[index] for index in rows]))
            images = as_images(files) if lazy else files[:]
        own_groups, own_weights = (None if values is None else values[rows] for values in (groups, weights))
        sets[split] = image_set(images, labels[split], names, f"{plan.where}, {split}", own_groups, own_weights)
    return sets


def _reason(plan: Plan, index: int, reason: str) -> str:
    """Why an image file cannot be used, with the row that names it."""
    return reason if plan.rows[index] in reason else f"{plan.rows[index]}: {reason}"


def _emptied(plan: Plan, reasons: Mapping[int, str]) -> str:
    """The classes and splits of which no image can be used."""

    def kinds(rows: Iterable[int]) -> set[tuple[str, str]]:
        return {(plan.splits[row], str(plan.labels[row]).strip()) for row in rows if not is_missing(plan.labels[row])}

    lost = (
        kinds(reasons) - kinds(index for index in range(len(plan.rows)) if index not in reasons) if reasons else set()
    )
    return shown(f"{label!r} in the {split} split" for split, label in sorted(lost))


def _classes(plan: Plan, rows: Mapping[str, list[int]]) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Labels of each split as indices of classes, and the names of the classes."""
    order = [index for indices in rows.values() for index in indices]
    values = _label_array([plan.labels[index] for index in order], plan.where)
    if plan.class_names and values.dtype.kind == "U":
        raise DataError(f"{plan.where}: labels are texts, but names of classes are saved for numbers. Save it again.")
    ends = np.cumsum([len(indices) for indices in rows.values()])[:-1]
    return classes_of_labels(dict(zip(rows, np.split(values, ends), strict=True)), plan.class_names, plan.where)


def _label_array(values: list[Any], where: str) -> NDArray[Any]:
    """Labels as whole numbers, int64, if all are; otherwise as texts."""
    if any(isinstance(value, list | np.ndarray | dict | set) for value in values):
        raise DataError(
            f"{where}: labels are lists; every image needs exactly one label. Name another with --label-column."
        )
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
    counts = Counter(str(plan.labels[index]).strip() for index in rows)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        spellings[label.casefold()].append(label)
    for alike in spellings.values():
        if len(alike) > 1:
            listed = " and ".join(f"{label!r} ({counts[label]:,} rows)" for label in sorted(alike)[:5])
            yield f"labels differ only in their letters' case, and are different classes: {listed}"
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
