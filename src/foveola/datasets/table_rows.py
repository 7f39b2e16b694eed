"""What the rows of tables say of their images, before any is decoded: file or pixels, label, group, split, weight."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveola.datasets.cells import Cells, ImageFile, flat_pixels, read_cells
from foveola.datasets.columns import Chosen, NoLabels, Source, choose_columns, is_missing, shown, split_of_value
from foveola.datasets.image_files import StoredImage
from foveola.datasets.reader import ReadOptions
from foveola.datasets.series import compile_groups, group_name
from foveola.datasets.table_labels import Form, label_names, read_labels
from foveola.datasets.table_sources import hub_sources, source_of, sources, split_of_file
from foveola.errors import DataError
from foveola.files import expanded, in_order
from foveola.images import Images


@dataclass(frozen=True, eq=False)
class Plan:
    """What a table says of its N images, before image files are decoded.

    `labels` are those of `foveola.datasets.table_labels.RowLabels`, in the form that `form` says. `faults` are the rows
    that cannot be used, by index. `names` are those of the files, or of the rows.
    """

    where: str
    splits: list[str]
    cells: Cells
    form: Form
    labels: list[Any]
    groups: list[str | None] | None
    weights: list[float] | None
    rows: list[str]
    names: list[str]
    class_names: tuple[str, ...]
    faults: dict[int, str]
    notes: tuple[str, ...]


def plan(source: Path | str, options: ReadOptions) -> Plan:
    """What a table says of its images; a `source` that is no Path names a data set of the hub."""
    if isinstance(source, str):
        return plan_sources(list(hub_sources(source)), None, options)
    root = source if source.is_dir() else source.parent
    root = root if options.columns.root is None else expanded(options.columns.root)
    if not root.is_dir():
        raise DataError(f"{root}, given with --image-root, is not a folder. Give the folder that holds the images.")
    notes = tuple(_note_on_test_table(source, options)) if source.is_file() else ()
    return plan_sources(list(sources(source)), root, options, notes)


def _note_on_test_table(path: Path, options: ReadOptions) -> Iterator[str]:
    """Yield what the test table beside a training table is, which is not read."""
    if split_of_file(path) != "train":
        return
    siblings = [other for other in in_order(path.parent.iterdir()) if other.suffix.lower() == path.suffix.lower()]
    for other in siblings:
        if other.is_file() and split_of_file(other) == "test":
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


def plan_sources(
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
    assert chosen.labels, "tables without labels are refused"
    others = (chosen.image, chosen.group, chosen.split, chosen.weight)
    wanted = [*chosen.labels, *(name for name in others if name is not None)]
    found = source.read(list(dict.fromkeys(wanted)), chosen.pixels)
    rows = [f"{source.where}, {source.unit} {number}" for number in found.numbers]
    if found.pixels is not None:
        cells = Cells([None] * len(rows), {}, flat_pixels(found.pixels, options.image_size, source.where))
    else:
        assert chosen.image is not None, "there are images in one form or the other"
        cells = read_cells(found.values[chosen.image], rows, root, options.image_size)
    names = [image_name(file, row) for file, row in zip(cells.files, rows, strict=True)]
    columns = {name: found.values[name] for name in chosen.labels}
    labels = read_labels(columns, rows, source.class_names(chosen.labels[0]), options.columns.separator)
    splits, faults = [split] * len(rows), dict(cells.faults)
    if chosen.split is not None:
        for index, value in enumerate(found.values[chosen.split]):
            known = None if is_missing(value) else split_of_value(str(value).strip())
            splits[index] = known or "train"
            if known is None:
                faults[index] = f"{rows[index]}: the split is {str(value)[:40]!r}, not train, validation or test."
    faults = labels.faults | faults
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
        labels.form,
        labels.values,
        groups,
        weights,
        rows,
        names,
        labels.class_names,
        faults,
        (*chosen.notes, *labels.notes, *cells.notes),
    )


def image_name(file: ImageFile | None, row: str) -> str:
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
    if len({part.form for part in parts}) > 1:
        raise DataError(
            f"{shown(part.where for part in parts)}: some have one class an image, others several labels. Give all of "
            f"them columns of one form."
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
        parts[0].form,
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
            here, before = (", ".join(label_names(plan.labels[row])) or "no label" for row in (index, first))
            if here != before:
                faults[index] = (
                    f"{plan.rows[index]}: {file} has the label {here[:40]!r} here, and {before[:40]!r} in "
                    f"{plan.rows[first].rpartition(', ')[2]}."
                )
    return faults
