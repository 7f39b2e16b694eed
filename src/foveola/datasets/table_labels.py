"""Labels in the cells of tables: one class an image, or several labels: columns of zeros and ones, lists, texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from foveola.datasets.columns import flag_of, is_missing, shown
from foveola.datasets.reader import MAX_UNQUESTIONED_CLASSES, natural_key
from foveola.errors import DataError
from foveola.models.metadata import MAX_CLASSES
from foveola.text import class_name

# One class an image; or several labels: in a column each, or named in one cell
Form = Literal["class", "columns", "names"]


@dataclass(frozen=True, eq=False)
class RowLabels:
    """The labels of N rows: cells of one class an image, or tuples of names, sorted.

    `class_names` are those of numbered classes, or of all labels; empty where the labels name themselves. `faults` are
    the rows without labels that can be used, by index.
    """

    form: Form
    values: list[Any]
    class_names: tuple[str, ...]
    faults: dict[int, str]
    notes: tuple[str, ...] = ()


def read_labels(
    columns: Mapping[str, Sequence[Any]], rows: Sequence[str], class_names: tuple[str, ...], separator: str | None
) -> RowLabels:
    """The labels of rows.

    Parameters
    ----------
    columns : N cells by column; of several columns, each says yes or no of one label
    rows : what each row is called in messages
    class_names : saved with the column for its numbers; empty if there are none
    separator : between the names in a text; None: a text is one class, unlike a list

    Raises
    ------
    DataError
        If the separator does not fit the cells.
    """
    if separator is not None and (len(columns) > 1 or not separator):
        reason = "is empty" if not separator else "divides the texts of one column, and several are given"
        raise DataError(f"--label-separator {reason}. Name one column of texts, and what stands between the labels.")
    if len(columns) > 1:
        return _of_columns(columns, rows)
    ((column, values),) = columns.items()
    listed = any(map(is_list, values))
    if separator is not None and listed:
        raise DataError(f"Column {column!r} holds lists, which need no --label-separator. Leave it out.")
    if separator is not None:
        return _of_texts(column, values, separator)
    if listed:
        return _of_lists(column, values, rows, class_names)
    faults = {
        index: _without_label(rows[index], column)
        for index, value in enumerate(values)
        if is_missing(value) or (class_names and value == -1)
    }
    return RowLabels("class", list(values), class_names, faults)


def is_list(value: object) -> bool:
    """Whether a cell holds several labels."""
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def label_names(label: Any) -> tuple[str, ...]:
    """The names in a value of `RowLabels`: a class, or several labels."""
    return label if isinstance(label, tuple) else (str(label).strip(),)


def _without_label(row: str, column: str) -> str:
    return f"{row}: no label in column {column!r}."


def _of_columns(columns: Mapping[str, Sequence[Any]], rows: Sequence[str]) -> RowLabels:
    """Labels that each have a column of zeros and ones."""
    found: list[list[str]] = [[] for _ in rows]
    faults: dict[int, str] = {}
    for column, values in columns.items():
        name = class_name(column)
        try:
            flags = {value: flag_of(value) for value in set(values)}
        except TypeError:
            raise DataError(
                f"Column {column!r} holds lists, where zeros and ones should be. Name it alone: --label-column {column}"
            ) from None
        for index, value in enumerate(values):
            if flags[value]:
                found[index].append(name)
            elif flags[value] is None:
                what = "nothing" if is_missing(value) else repr(str(value)[:40])
                faults.setdefault(index, f"{rows[index]}: {what} in column {column!r}, where 0 or 1 should be.")
    notes = []
    if all(len(names) == 1 for index, names in enumerate(found) if index not in faults):
        notes.append(
            "every row has exactly one of the labels; if no image can have two, save their names in one column: the "
            "model then chooses one class"
        )
    names = tuple(map(class_name, columns))
    return RowLabels("columns", [tuple(sorted(row)) for row in found], names, faults, tuple(notes))


def _of_texts(column: str, values: Sequence[Any], separator: str) -> RowLabels:
    """Labels that are named in a text; an empty one is that of an image without labels."""
    texts = ["" if is_missing(value) else _text(value) for value in values]
    parts = (text.split(None if separator.isspace() else separator) for text in texts)
    notes = []
    if empty := texts.count(""):
        notes.append(f"{empty:,} rows have an empty cell in column {column!r}: images without labels")
    return RowLabels("names", [_names(row) for row in parts], (), {}, tuple(notes))


def _of_lists(column: str, values: Sequence[Any], rows: Sequence[str], class_names: tuple[str, ...]) -> RowLabels:
    """Labels that are listed: names, numbers of classes, or a zero or one for each label."""
    lists = [list(value) if is_list(value) else None for value in values]
    count = _flags_a_list([one for one in lists if one is not None])
    names = class_names if not count or len(class_names) == count else tuple(map(str, range(count)))
    found: list[tuple[str, ...]] = []
    faults: dict[int, str] = {}
    for index, (value, listed) in enumerate(zip(values, lists, strict=True)):
        found.append(())
        if listed is None:
            single = f"{rows[index]}: {str(value)[:40]!r} in column {column!r}, where a list should be."
            faults[index] = _without_label(rows[index], column) if is_missing(value) else single
            continue
        if count:
            listed = [number for number, flag in enumerate(listed) if flag]
        try:
            found[-1] = _names(_name(label, names) for label in listed)
        except DataError as error:
            faults[index] = f"{rows[index]}: {error}"
    form = f"lists of {count} zeros and ones" if count else "lists"
    return RowLabels("names", found, names, faults, (f"column {column!r} holds {form}: several labels an image",))


def _flags_a_list(lists: Sequence[list[Any]]) -> int:
    """How many zeros and ones each list has; 0 if lists name their labels, or give numbers of classes."""
    lengths = {len(listed) for listed in lists}
    if len(lengths) > 1 or lengths <= {0, 1}:
        return 0
    labels = [label for listed in lists for label in listed]
    if not all(isinstance(label, int | float | np.number | np.bool_) and label in (0, 1) for label in labels):
        return 0
    booleans = all(isinstance(label, bool | np.bool_) for label in labels)
    # A list of numbers of classes has none of them twice
    return lengths.pop() if booleans or any(len(set(listed)) < len(listed) for listed in lists) else 0


def _name(label: Any, class_names: Sequence[str]) -> str:
    """The name of a label that is given by name or by number.

    Raises
    ------
    DataError
        If it is neither, or a number without a class.
    """
    if isinstance(label, str | bytes):
        return _text(label)
    is_number = isinstance(label, int | float | np.integer | np.floating) and not isinstance(label, bool)
    if not is_number or (isinstance(label, float | np.floating) and not label.is_integer()):
        raise DataError(f"{str(label)[:40]!r} in a list of labels is neither a name nor a whole number.")
    if not class_names:
        return str(int(label))
    if not 0 <= label < len(class_names):
        raise DataError(f"{int(label)} in a list of labels; classes are numbered from 0 to {len(class_names) - 1}.")
    return class_names[int(label)]


def _names(labels: Any) -> tuple[str, ...]:
    """Names without those that are empty or repeated, sorted."""
    return tuple(sorted({class_name(text) for label in labels if (text := label.strip())}))


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape").strip() if isinstance(value, bytes) else str(value).strip()


def separator_hint(texts: Sequence[str]) -> str | None:
    """A note if labels seem to be several names in one text, which are taken for one class each."""
    for separator in (";", "|", ","):
        joined = [text for text in texts if separator in text]
        parts = {part.strip() for text in joined for part in text.split(separator)}
        if len(joined) > 2 and len(parts) <= len(joined):
            return (
                f"labels such as {joined[0][:60]!r} are taken for one class each; if they are several labels: "
                f"--label-separator {separator!r}"
            )
    return None


def names_of_labels(labels: Sequence[tuple[str, ...]], known: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of all labels: those that are known, or else those that occur, sorted naturally.

    Raises
    ------
    DataError
        If there are fewer than two, or so many that they seem to be something else.
    """
    names = tuple(known) or tuple(sorted({name for own in labels for name in own}, key=natural_key))
    if len(names) > min(max(len(labels) // 2, MAX_UNQUESTIONED_CLASSES), MAX_CLASSES):
        raise DataError(
            f"{where}: there are {len(names):,} different labels of {len(labels):,} images, such as {names[0]!r}, so "
            f"that they seem to be no labels. Name another column with --label-column, or another --label-separator."
        )
    if len(names) < 2:
        raise DataError(
            f"{where}: the only label is {shown(names) or '(none)'}, and lists need two at least. Give images with "
            f"other labels, or a column that says which of two classes each image has."
        )
    return names
