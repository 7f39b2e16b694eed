"""Images in the cells of a table: paths of files inside one folder, whole image files, or pixels."""

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveola.arrays import to_pixels
from foveola.datasets.columns import is_missing
from foveola.datasets.image_files import StoredImage
from foveola.errors import DataError
from foveola.files import in_order
from foveola.images import Images
from foveola.inputs.find import EXTENSIONS, is_junk

_TRIED_VALUES = 20  # of the paths, to find the folder and the extension that they leave out
_MAX_FOLDERS = 200
_MAX_PATH, _MAX_NAME = 4096, 255  # bytes, as on Linux
_SAVED_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")  # that PNG files hold as they are

ImageFile = Path | StoredImage


@dataclass(frozen=True, eq=False)
class Cells:
    """The images of N rows: files, None where there is none, and why; or pixels, uint8 N×H×W×C."""

    files: list[ImageFile | None]
    faults: dict[int, str]
    pixels: Images | None = None
    notes: tuple[str, ...] = ()


def read_cells(values: Sequence[Any], rows: Sequence[str], root: Path | None, size: tuple[int, int] | None) -> Cells:
    """The images in a column.

    Parameters
    ----------
    values : N paths, image files as bytes or as `datasets` stores them, images of Pillow, arrays, or texts of numbers
    rows : what each row is called in messages
    root : the folder from which paths lead, and which they may not leave; None: paths are taken as they are
    size : height and width of images that come as rows of pixels; None: they are square

    Raises
    ------
    DataError
        If pixels cannot be used.
    """
    first = next((value for value in values if not is_missing_image(value)), None)
    if isinstance(first, list | np.ndarray) or (isinstance(first, str) and _are_numbers(first)):
        return Cells([None] * len(values), {}, _stacked(values, rows, size))
    paths = [_path_of(value) for value in values]
    base, extension, notes = (root, "", ()) if root is None else _find_base(root, paths)
    files: list[ImageFile | None] = []
    faults: dict[int, str] = {}
    for index, (value, path) in enumerate(zip(values, paths, strict=True)):
        try:
            files.append(_file(value, path, rows[index], root, base, extension))
        except DataError as error:
            files.append(None)
            faults[index] = f"{rows[index]}: {error}"
    return Cells(files, faults, notes=notes)


def is_missing_image(value: Any) -> bool:
    """Whether a cell holds no image."""
    return not isinstance(value, list | np.ndarray | dict | Image.Image) and is_missing(value)


def flat_pixels(values: NDArray[Any], size: tuple[int, int] | None, where: str) -> Images:
    """Rows of pixels, N×P, as images, uint8 N×H×W×C.

    Parameters
    ----------
    size : height and width, if they fit the number of pixels; otherwise the images are square

    Raises
    ------
    DataError
        If the pixels are of no square, neither grey nor in colour, or have other values than those of pixels.
    """
    count = values.shape[1]
    shape = next((shape for shape in _shapes(count, size) if math.prod(shape) == count), None)
    if shape is None:
        raise DataError(
            f"{where}: {count:,} pixels a row are of no square image, grey or in colour. Say height and width with "
            f"--image-size (train: --set image_size=20x30); or leave out columns that hold no pixels."
        )
    try:
        return np.ascontiguousarray(to_pixels(values)).reshape(-1, *shape)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def is_image_size(count: int, size: tuple[int, int] | None) -> bool:
    """Whether an image of this height and width, or a square one, has so many values, in grey or in colour."""
    return any(math.prod(shape) == count for shape in _shapes(count, size))


def _shapes(count: int, size: tuple[int, int] | None) -> Iterator[tuple[int, int, int]]:
    """Yield the shapes that images may have, the given size first."""
    for channels in (1, 3):
        if size is not None:
            yield (*size, channels)
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        yield side, side, channels


def _path_of(value: Any) -> str | None:
    """The path in a cell; None if it holds an image itself, or nothing."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # the names of files without their extension
    return str(value).strip() if isinstance(value, str | os.PathLike) and not is_missing(value) else None


def _file(value: Any, path: str | None, row: str, root: Path | None, base: Path | None, extension: str) -> ImageFile:
    if path is not None:
        if root is not None and base is not None:
            return _inside(root, base, path, extension)
        _check_length(path)
        return Path(path)
    match value:
        case StoredImage():
            return value
        case bytes():
            return StoredImage(row, value)
        case {"bytes": bytes(content)}:
            name = value.get("path")
            return StoredImage(f"{row} ({name})" if isinstance(name, str) else row, content)
        case Image.Image():
            return StoredImage(row, _as_png(value))
    if is_missing_image(value):
        raise DataError("no image. Name its file, or remove the row.")
    raise DataError(f"{str(value)[:40]!r} ({type(value).__name__}) is neither a path nor an image file.")


def _inside(root: Path, base: Path, path: str, extension: str) -> Path:
    """The file that a path names, which may not lie outside of the root by its name. Links are followed.

    Raises
    ------
    DataError
        If it is a URL, or leads out of the root.
    """
    if "://" in path[:20]:
        raise DataError(f"{path[:80]!r} is an address. Download the images, and name their files.")
    _check_length(path + extension)
    start = root if Path(path).is_absolute() else base
    found = Path(os.path.normpath(root.absolute() / start.absolute() / (_slashes(path) + extension)))
    if not found.is_relative_to(os.path.normpath(root.absolute())):
        raise DataError(
            f"{path[:80]!r} leads out of {root}, and a table may only name files inside. If this is meant, name the "
            f"folder that holds all images with --image-root."
        )
    return root / found.relative_to(os.path.normpath(root.absolute()))


def _check_length(path: str) -> None:
    if len(path) > _MAX_PATH or max(len(os.fsencode(part)) for part in _slashes(path).split("/")) > _MAX_NAME:
        raise DataError(
            f"{path[:40]!r}… is too long for the name of a file. Correct it, or name another --image-column."
        )


def _slashes(path: str) -> str:
    """A path as Windows writes it, with slashes."""
    return path if "/" in path else path.replace("\\", "/")


def _find_base(root: Path, paths: Sequence[str | None]) -> tuple[Path, str, tuple[str, ...]]:
    """The folder below the root from which the paths lead, and the extension that they leave out; a note if so."""
    usual = (path for path in paths if path and len(path) <= _MAX_NAME and not Path(path).is_absolute())
    tried = list(dict.fromkeys(islice(usual, _TRIED_VALUES)))
    best, found = (root, ""), _count_files(root, tried, "")
    if found < len(tried):
        for base in islice(_folders(root), _MAX_FOLDERS):
            for extension in ("", *sorted(EXTENSIONS)):
                if (count := _count_files(base, tried, extension)) > found:
                    best, found = (base, extension), count
    base, extension = best
    if best == (root, ""):
        return root, "", ()
    added = f", with {extension} added" if extension else ""
    return base, extension, (f"image files are those in {base}{added}",)


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folder, those in it, and those in these, by name."""
    yield root
    for folder in (below := [path for path in in_order(root.iterdir()) if path.is_dir() and not is_junk(path.name)]):
        yield folder
    for folder in below:
        yield from (path for path in in_order(folder.iterdir()) if path.is_dir() and not is_junk(path.name))


def _count_files(base: Path, paths: Sequence[str], extension: str) -> int:
    count = 0
    for path in paths:
        # By names only, so that nothing outside is looked at
        if not os.path.normpath(_slashes(path)).startswith("..") and "\0" not in path:
            try:
                count += (base / (_slashes(path) + extension)).is_file()
            except OSError:  # names that are too long
                continue
    return count


def _as_png(image: Image.Image) -> bytes:
    """An image of Pillow as a file, so that it goes the way of all image files."""
    buffer = io.BytesIO()
    (image if image.mode in _SAVED_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _are_numbers(text: str) -> bool:
    words = text.replace(",", " ").split(maxsplit=16)
    return len(words) > 15 and all(word.isdigit() for word in words[:16])


def _stacked(values: Sequence[Any], rows: Sequence[str], size: tuple[int, int] | None) -> Images:
    """Cells of pixels as images; they must have one shape."""
    where = rows[0].rpartition(",")[0]
    if isinstance(values[0], str):
        delimiter = "," if "," in values[0] else None
        try:
            with warnings.catch_warnings(action="error"):
                flat = np.loadtxt(values, np.float32, delimiter=delimiter, comments=None, ndmin=2)
        except (ValueError, TypeError, Warning) as error:
            raise DataError(f"{where}: cells are no numbers, or differ in number: {error}. Correct the rows.") from None
        if len(flat) != len(values):
            raise DataError(f"{where}: some rows have no pixels. Remove them.")
        return flat_pixels(flat, size, where)
    arrays: list[NDArray[Any]] = []
    for row, value in zip(rows, values, strict=True):
        try:
            array = np.array(list(value))  # pandas holds nested lists as arrays of arrays
        except (ValueError, TypeError):  # of several lengths, or no array
            array = np.empty(0, object)
        if array.dtype.kind not in "uifb" or (arrays and array.shape != arrays[0].shape):
            expected = f" of shape {arrays[0].shape}" if arrays else ""
            raise DataError(f"{row}: no array of numbers{expected}. All images must have the same shape.")
        arrays.append(array)
    stacked = np.stack(arrays)
    if stacked.ndim == 2:
        return flat_pixels(stacked, size, where)
    if stacked.ndim not in (3, 4):
        raise DataError(f"{where}: arrays have {stacked.ndim - 1} axes; images have two or three.")
    try:
        pixels = np.ascontiguousarray(to_pixels(stacked))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return pixels[..., None] if pixels.ndim == 3 else pixels
