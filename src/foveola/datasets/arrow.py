"""Tables in Arrow's form: Parquet files, folders that `datasets.save_to_disk` wrote, pyarrow's tables; data frames."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.columns import HEAD_ROWS, Rows
from foveola.datasets.delimited import MAX_COLUMNS
from foveola.datasets.reader import physical_memory
from foveola.errors import DataError, require

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
MAX_ROWS = 10_000_000
SAVED, SAVED_SPLITS, SAVED_STATE = "dataset_info.json", "dataset_dict.json", "state.json"  # of `save_to_disk`

_BATCH_ROWS = 1024
_BATCH_BYTES = 2**26
_MAX_INFO_BYTES = 2**24


@dataclass(frozen=True)
class ArrowTable:
    """A table that is read in batches, as `columns.Source` describes it. Rows are counted from 1.

    Parameters
    ----------
    where : what it is called in messages
    schema : names and types of the columns
    rows : how many there are
    batches : record batches of some columns, at most so many rows each
    features : what `datasets` has saved of each column, by name
    """

    where: str
    schema: "pa.Schema"
    rows: int
    batches: "Callable[[list[str], int], Iterator[pa.RecordBatch]]"
    features: Mapping[str, Any] = field(default_factory=dict)

    unit = "row"
    has_header = True

    @property
    def names(self) -> Sequence[str]:
        """Of the columns."""
        return list(self.schema.names)

    def head(self, name: str) -> Sequence[Any]:
        """The first values of a column."""
        with _guarded(self.where):
            batch = next(self.batches([name], HEAD_ROWS), None)
            return [] if batch is None else _values(batch.column(0)[:HEAD_ROWS])

    def class_names(self, name: str) -> tuple[str, ...]:
        """Names of classes that `datasets` has saved with a column of their numbers, or of lists of these."""
        feature = self.features.get(name)
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        names = feature.get("names") if isinstance(feature, dict) else None
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def read(self, names: Sequence[str], pixels: Sequence[str]) -> Rows:
        """All rows.

        Raises
        ------
        DataError
            If the file is damaged, memory would not suffice, or a pixel is not a number.
        """
        memory = physical_memory() or 2**63
        if self.rows > MAX_ROWS or 2 * self.rows * len(pixels) > memory:
            raise DataError(
                f"{self.where} has {self.rows:,} rows, more than fit into memory. Divide it; or save the images as "
                f"files, and pack them: foveola pack."
            )
        values: dict[str, list[Any]] = {name: [] for name in names}
        blocks: list[NDArray[Any]] = []
        size = 0
        with _guarded(self.where):
            for batch in self.batches([*names, *pixels], self._batch_rows(names)):
                size += batch.nbytes
                if 2 * size > memory:
                    raise DataError(
                        f"{self.where} takes more than half of this machine's memory. Divide it; or save the images "
                        f"as files, and pack them: foveola pack."
                    )
                for name in names:
                    values[name] += _values(batch.column(name))
                if pixels:
                    blocks.append(_numbers([(name, batch.column(name)) for name in pixels], self.where))
        if self.rows == 0 or (pixels and not blocks):
            raise DataError(f"{self.where} has no rows. Give a table with a row for each image.")
        return Rows(dict(values), np.concatenate(blocks) if pixels else None, range(1, self.rows + 1))

    def _batch_rows(self, names: Sequence[str]) -> int:
        """Few rows where a value may be large."""
        import pyarrow as pa

        return 16 if any(pa.types.is_nested(self.schema.field(name).type) for name in names) else _BATCH_ROWS


@dataclass(frozen=True, eq=False)
class Frame:
    """A data frame of pandas or polars, as `columns.Source` describes it. Rows are counted from 0."""

    frame: Any
    where: str = "The data frame"

    unit = "row"

    @property
    def names(self) -> Sequence[str]:
        """Of the columns, as text."""
        return list(map(str, self.frame.columns))

    @property
    def has_header(self) -> bool:
        """Whether the columns are not just numbered from 0, as pandas does without a header."""
        return list(self.frame.columns) != list(range(len(self.frame.columns)))

    def head(self, name: str) -> Sequence[Any]:
        """The first values of a column."""
        return list(self._column(self.frame.head(HEAD_ROWS), name).to_list())

    def class_names(self, name: str) -> tuple[str, ...]:
        """None: a frame's categories are the values themselves."""
        return ()

    def read(self, names: Sequence[str], pixels: Sequence[str]) -> Rows:
        """All rows."""
        if not len(self.frame):
            raise DataError("The data frame has no rows. Give one with a row for each image.")
        values = {name: list(self._column(self.frame, name).to_list()) for name in names}
        numbers = None
        if pixels:
            numbers = _numbers([(name, np.asarray(self._column(self.frame, name))) for name in pixels], self.where)
        return Rows(dict(values), numbers, range(len(self.frame)))

    def _column(self, frame: Any, name: str) -> Any:
        """A series of pandas or polars."""
        return frame[frame.columns[self.names.index(name)]]


def frame_source(frame: Any) -> "ArrowTable | Frame":
    """A data frame of pandas, polars or pyarrow, or another that exports an Arrow stream, as a table.

    Raises
    ------
    DataError
        If it is none of these.
    """
    if (
        hasattr(frame, "columns")
        and hasattr(frame, "head")
        and hasattr(frame, "__getitem__")
        and not hasattr(frame, "column_names")
    ):
        _check_names(list(map(str, frame.columns)), Frame.where)
        return Frame(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        pa = require("pyarrow", "tables")
        with _guarded("The table"):
            return arrow_table(pa.table(frame), "The table")
    raise DataError(
        f"{type(frame).__name__} is not a data frame that can be read. Give one of pandas, polars or pyarrow."
    )


def arrow_table(table: "pa.Table", where: str, features: Mapping[str, Any] | None = None) -> ArrowTable:
    """A table of pyarrow, in memory or mapped from a file."""
    _check_names(table.schema.names, where)

    def batches(names: list[str], rows: int) -> "Iterator[pa.RecordBatch]":
        yield from table.select(names).to_batches(rows)

    return ArrowTable(where, table.schema, table.num_rows, batches, features or _features_in(table.schema))


def parquet_table(path: Path) -> ArrowTable:
    """A Parquet file; only its metadata is read.

    Raises
    ------
    DataError
        If it is damaged.
    MissingExtra
        If pyarrow is not installed.
    """
    require("pyarrow", "tables")
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path} is not a regular file. Give a Parquet file.")
    with _guarded(str(path)):
        file = pq.ParquetFile(path)
        schema, metadata = file.schema_arrow, file.metadata
        _check_names(schema.names, str(path))
        size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        width = max(size // max(metadata.num_rows, 1), 1)
        repeated = [one.name for one in schema if str(one.type) in ("string", "binary", "large_string", "large_binary")]

    def batches(names: list[str], rows: int) -> "Iterator[pa.RecordBatch]":
        # Values that are stored once stay so: many copies of a large one would fill the memory
        with pq.ParquetFile(path, read_dictionary=repeated) as opened:
            yield from opened.iter_batches(min(rows, max(_BATCH_BYTES // width, 1)), columns=names)

    return ArrowTable(str(path), schema, metadata.num_rows, batches, _features_in(schema))


def saved_table(folder: Path) -> ArrowTable:
    """A folder that `datasets.Dataset.save_to_disk` wrote; its files are mapped into memory.

    Raises
    ------
    DataError
        If it is damaged.
    MissingExtra
        If pyarrow is not installed.
    """
    pa = require("pyarrow", "tables")
    info, state = (_read_json(folder / name) for name in (SAVED, SAVED_STATE))
    with _guarded(str(folder)):
        files = [folder / one["filename"] for one in state["_data_files"]]
        if any(file.parent != folder or not file.is_file() for file in files) or state.get("_indices_files"):
            raise ValueError("it names files that are not in it")
        tables = [pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files]
        features = info.get("features")
        return arrow_table(pa.concat_tables(tables), str(folder), features if isinstance(features, dict) else {})


def saved_splits(folder: Path) -> dict[str, Path]:
    """The folders of the splits that `datasets.DatasetDict.save_to_disk` wrote, by their own names."""
    listed = _read_json(folder / SAVED_SPLITS).get("splits")
    if not isinstance(listed, list) or not all(
        isinstance(name, str) and (folder / name).parent == folder for name in listed
    ):
        raise DataError(f"{folder / SAVED_SPLITS} is damaged: it names no splits. Save the data set again.")
    return {name: folder / name for name in listed}


def _features_in(schema: "pa.Schema") -> Mapping[str, Any]:
    """What `datasets` has written about the columns into a table's metadata."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(text[:_MAX_INFO_BYTES])["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_INFO_BYTES:
            raise ValueError("it is missing or too large")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}. Save the data set again.") from None
    return document


def _check_names(names: Sequence[str], where: str) -> None:
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"{where} has {len(names):,} columns, more than the {MAX_COLUMNS:,} that are read. Save the images as "
            f"files, and their names and labels in the table."
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where} has several columns called {twice[0]!r}. Rename or remove all but one.")


def _values(column: "pa.Array") -> list[Any]:
    """The values of a column; those that are stored once are not copied, and lists of numbers are arrays."""
    import pyarrow as pa

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        known = column.dictionary.to_pylist()
        return [None if index is None else known[index] for index in column.indices.to_pylist()]
    if _is_list(column.type):
        return [None if not value.is_valid else _array(value.values) for value in column]
    return list(column.to_pylist())


def _array(values: "pa.Array") -> Any:
    """Nested lists of numbers as an array; anything else as a list."""
    import pyarrow as pa

    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_primitive(values.type) and values.null_count == 0:
        return values.to_numpy(zero_copy_only=False)
    if _is_list(values.type) and values.null_count == 0 and len(values):
        inner, length = _array(values.flatten()), len(values)
        if isinstance(inner, np.ndarray) and len(inner) % length == 0 and _same_lengths(values):
            return inner.reshape(length, len(inner) // length, *inner.shape[1:])
    return values.to_pylist()


def _same_lengths(values: "pa.Array") -> bool:
    import pyarrow.compute as pc

    return len(pc.unique(pc.list_value_length(values))) == 1


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _numbers(columns: Sequence[tuple[str, Any]], where: str) -> NDArray[Any]:
    """Columns of pixels, N×P, in a type that holds all of them."""
    arrays = []
    for name, column in columns:
        array = column if isinstance(column, np.ndarray) else column.to_numpy(zero_copy_only=False)
        if array.dtype.kind not in "uifb":
            raise DataError(
                f"{where}: column {name!r} holds {array.dtype}, where pixels should be. Convert it to numbers from 0 "
                f"to 255, or rename it if it does not belong to the pixels."
            )
        arrays.append(array if array.dtype.kind != "f" else array.astype(np.float32, copy=False))
    table = np.empty((len(arrays[0]), len(arrays)), np.result_type(*{array.dtype for array in arrays}))
    for place, array in enumerate(arrays):
        table[:, place] = array
    return np.asarray(table)


@contextmanager
def _guarded(where: str) -> Iterator[None]:
    """Turn what pyarrow raises on damaged files, which is of many types, into one message."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise DataError(f"{where} cannot be read: {reason}. It is damaged or unusual; save it again.") from error
