"""Images of a table that are to be predicted: rows need no labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveola.datasets.cells import ImageFile, flat_pixels, is_image_size, read_cells
from foveola.datasets.columns import check_column, choose_columns, pixel_columns
from foveola.datasets.image_files import StoredImage
from foveola.datasets.table_rows import image_name
from foveola.datasets.table_sources import source_of
from foveola.errors import DataError
from foveola.files import expanded
from foveola.images import Images
from foveola.inputs.decode import FirstFrame, decode_first_frame, read_first_frame
from foveola.models.metadata import Columns


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
        TableImage(image_name(file, row), cells.faults.get(index, image))
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
