"""Tables of text: comma-, semicolon- or tab-separated values (CSV, TSV), read with bounded lines and memory."""

import csv
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.columns import HEAD_ROWS, Rows
from foveola.datasets.reader import physical_memory
from foveola.errors import DataError
from foveola.inputs.find import is_image

EXTENSIONS = (".csv", ".tsv", ".tab")
MAX_COLUMNS = 200_000  # 256×256 pixels in three colours
MAX_LINE = 2**22  # characters
MAX_TEXT_BYTES = 2**30  # of a table without columns of pixels, whose values are kept as text

_DELIMITERS = ",;\t|"
_BLOCK_ROWS = 4096
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class DelimitedFile:
    r"""A CSV or TSV file, as `columns.Source` describes it. Lines are counted from 1, the header included.

    Text is UTF-8, or UTF-16 with a byte-order mark; other bytes stay recognisable, such as caf\xe9.
    """

    path: Path

    unit = "line"

    @property
    def where(self) -> str:
        return str(self.path)

    @cached_property
    def names(self) -> Sequence[str]:
        """From the header; without one, numbers from 0."""
        first = self._first[1][0]
        return [name.strip() for name in first] if self.has_header else list(map(str, range(len(first))))

    @cached_property
    def has_header(self) -> bool:
        """Whether the first line holds names: no number only, and no image file."""
        first = self._first[1][0]
        return not (all(map(_is_number, first)) or any(is_image(Path(cell.strip())) for cell in first))

    @cached_property
    def _heading(self) -> int:
        """Lines before the first row: a header, which pandas writes as numbers where there are no names."""
        first = [cell.strip() for cell in self._first[1][0]]
        return int(self.has_header or first in (list(map(str, range(start, start + len(first)))) for start in (0, 1)))

    def head(self, name: str) -> Sequence[str]:
        """The first values of a column."""
        at = list(self.names).index(name)
        return [row[at] for row in self._first[1][self._heading :] if at < len(row)]

    def class_names(self, name: str) -> tuple[str, ...]:
        """None: text has no place for them."""
        return ()

    def read(self, names: Sequence[str], pixels: Sequence[str]) -> Rows:
        """All rows.

        Raises
        ------
        DataError
            If a row has more or fewer columns than the first, a quote does not end, or a pixel is not a number.
        """
        try:
            return self._read_pixels(names, pixels) if pixels else self._read_text(names)
        except (csv.Error, UnicodeError) as error:
            raise self._damaged(str(error)) from None

    @cached_property
    def _first(self) -> tuple[str, list[list[str]]]:
        """The delimiter, and the first rows that are not empty."""
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a regular file. Give a table of text.")
        try:
            lines = list(islice(self._lines(), HEAD_ROWS + 1))
            filled = [line for line in lines if line.strip(_DELIMITERS + " \r\n")]
            if not filled:
                raise DataError(f"{self.path} is empty. Give a table with a row for each image.")
            delimiter = max(_DELIMITERS, key=lambda one: _count_columns(filled[0], one))  # the first of equal ones
            rows = [row for row in csv.reader(filled, delimiter=delimiter) if any(map(str.strip, row))]
        except (csv.Error, UnicodeError) as error:
            raise self._damaged(str(error)) from None
        if len(rows[0]) > MAX_COLUMNS:
            raise DataError(
                f"{self.path} has {len(rows[0]):,} columns, more than the {MAX_COLUMNS:,} that are read. Save the "
                f"images as files, and their names and labels in the table."
            )
        return delimiter, rows

    def _lines(self) -> Iterator[str]:
        """Yield the lines; those that are no text, or far too long, are refused before they are read whole."""
        with self.path.open("rb") as raw:
            encoding = "utf-16" if raw.read(2) in _UTF_16 else "utf-8-sig"
        with self.path.open(
            encoding=encoding, errors="surrogateescape" if encoding == "utf-8-sig" else None, newline=""
        ) as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise self._damaged(f"line {number:,} has more than {MAX_LINE:,} characters")
                if "\0" in line:
                    raise self._damaged(f"line {number:,} holds NUL bytes, so that it is not text")
                yield line

    def _read_text(self, names: Sequence[str]) -> Rows:
        """The values of some columns as text."""
        size = self.path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise DataError(
                f"{self.path} has {size:,} bytes; a table without columns of pixels may have {MAX_TEXT_BYTES:,}. "
                f"Divide it, or leave columns out."
            )
        delimiter, first = self._first
        places = [list(self.names).index(name) for name in names]
        columns: list[list[str]] = [[] for _ in names]
        numbers: list[int] = []
        reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)
        rows = (row for row in reader if any(map(str.strip, row)))
        for row in islice(rows, self._heading, None):
            self._check_width(len(row), len(first[0]), reader.line_num)
            numbers.append(reader.line_num)
            for column, place in zip(columns, places, strict=True):
                column.append(row[place])
        if not numbers:
            raise self._without_rows()
        return Rows(dict(zip(names, columns, strict=True)), None, numbers)

    def _read_pixels(self, names: Sequence[str], pixels: Sequence[str]) -> Rows:
        """The values of some columns as text, and the numbers in others: uint8 where they fit, else float32, N×P."""
        memory = physical_memory()
        if memory is not None and self.path.stat().st_size > memory:  # the text of a pixel is twice as long as its byte
            raise DataError(
                f"{self.path} has {self.path.stat().st_size / 2**30:,.1f} GiB; this machine has {memory / 2**30:,.1f} "
                f"GiB of memory. Save the images as files, and pack them: foveola pack."
            )
        _, first = self._first
        own, places = set(pixels), {name: number for number, name in enumerate(self.names)}
        lines = ((number, line) for number, line in enumerate(self._lines(), 1) if line.strip())
        rows = islice(lines, self._heading, None)
        blocks: list[NDArray[Any]] = []
        texts: dict[str, list[str]] = {name: [] for name in names}
        numbers: list[int] = []
        is_pixel = [name in own for name in self.names]
        # Columns by number, those of pixels in the order of the file
        order = np.argsort(np.argsort([places[name] for name in pixels]))
        others = [number for number, pixel in enumerate(is_pixel) if not pixel]
        while block := list(islice(rows, _BLOCK_ROWS)):
            values, cells = self._parse(block, is_pixel, len(first[0]))
            blocks.append(values if (order == np.arange(len(order))).all() else values[:, order])
            numbers += [number for number, _ in block]
            for name in names:
                texts[name] += cells[:, others.index(places[name])].tolist()
        if not blocks:
            raise self._without_rows()
        return Rows(dict(texts), np.concatenate(blocks), numbers)

    def _parse(
        self, block: list[tuple[int, str]], is_pixel: Sequence[bool], width: int
    ) -> tuple[NDArray[Any], NDArray[np.object_]]:
        """The pixels of some rows, and their other cells, n×P and n×others."""
        runs = [(pixel, len(list(run))) for pixel, run in groupby(is_pixel)]
        for dtype in (np.uint8, np.float32):
            fields = [(str(number), dtype if pixel else object, (size,)) for number, (pixel, size) in enumerate(runs)]
            try:
                with warnings.catch_warnings(action="error"):
                    parsed = np.loadtxt(
                        (line for _, line in block), np.dtype(fields), delimiter=self._first[0], quotechar='"',
                        comments=None, ndmin=1,
                    )  # fmt: skip
                if len(parsed) == len(block):
                    break
            except (ValueError, OverflowError, RuntimeWarning, UserWarning):
                continue
        else:
            raise self._fault(block, is_pixel, width)
        own = [parsed[str(number)] for number, (pixel, _) in enumerate(runs) if pixel]
        others = [parsed[str(number)] for number, (pixel, _) in enumerate(runs) if not pixel]
        return np.concatenate(own, axis=1), np.concatenate([np.empty((len(block), 0), object), *others], axis=1)

    def _fault(self, block: list[tuple[int, str]], is_pixel: Sequence[bool], width: int) -> DataError:
        """What is wrong with rows that cannot be parsed."""
        for number, line in block:
            row = next(csv.reader([line], delimiter=self._first[0]))
            if len(row) != width:
                return self._wrong_width(len(row), width, number)
            odd = next(
                (cell for cell, pixel in zip(row, is_pixel, strict=True) if pixel and not _is_number(cell)), None
            )
            if odd is not None:
                return DataError(
                    f"{self.path}, line {number:,}: {odd[:40]!r} stands where a pixel should be. Write a number from 0 "
                    f"to 255, or remove the row."
                )
        return self._damaged(f"lines {block[0][0]:,} to {block[-1][0]:,} are no rows of numbers")

    def _check_width(self, found: int, width: int, number: int) -> None:
        if found != width:
            raise self._wrong_width(found, width, number)

    def _wrong_width(self, found: int, width: int, number: int) -> DataError:
        return DataError(
            f"{self.path}, line {number:,}: {found:,} columns, where the first line has {width:,}. Put cells that "
            f"contain the delimiter in quotes, or correct the row."
        )

    def _without_rows(self) -> DataError:
        return DataError(f"{self.path} has a header and no rows. Give a table with a row for each image.")

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self.path} cannot be read as a table of text: {reason}. Save it again, as CSV in UTF-8.")


def _count_columns(line: str, delimiter: str) -> int:
    """The columns of a line; 0 if a cell would be too long."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter)))
    except csv.Error:
        return 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
