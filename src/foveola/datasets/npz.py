"""NPZ: arrays as NumPy saves them, read without pickle and never beyond what their headers justify.

One file with x_train, y_train (and x_val, y_val, x_test, y_test) as Keras saves it, or with train_images, train_labels
and so on as MedMNIST does, optionally with class_names; or a folder of pairs …-train-imgs.npz and …-train-labels.npz
(and …-test-…) that each hold arr_0, as KMNIST is published.
"""

import io
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.catalog import passport
from foveola.datasets.entry import Entry, digests
from foveola.datasets.reader import MAX_BYTES, MAX_DEFLATE_RATIO, Request, fill, labelled, numbered
from foveola.errors import DataError
from foveola.images import Dataset, Images, Labels

Pair = tuple[Images, Labels]

_KEYS = (  # of images and labels, by split
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
_CLASS_NAMES = "class_names"
_MAX_HEADER = 10_000  # NumPy's own limit
# NumPy tokenizes the header and parses it as a Python literal, and lets most of what fails there through.
_BAD_HEADER = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError)
_BAD_FILE = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


def recognises(path: Path) -> bool:
    return path.suffix == ".npz" if path.is_file() else any(path.glob("*-train-imgs.npz"))


def read(path: Path, request: Request, entry: Entry | None = None) -> Dataset:
    """Read an NPZ file, or a folder of KMNIST's pairs.

    Images: N×H×W or N×H×W×C, integers from 0 to 255, or floats from 0 to 1, which are scaled to 0 to 255 and rounded.
    Labels: integers, N or N×1. Without class names, they are "0" to the largest label.

    Raises
    ------
    DataError
        If arrays are missing, damaged, of another type or range, larger than their files can justify, or do not fit
        together; for an entry of the catalog, if the files are not the published ones.
    """
    if path.is_dir():
        splits, named, entry = _folder(path, entry)
    else:
        splits, named = _file(path)
    names = entry.class_names if entry else named or numbered([labels for _, labels in splits.values()], str(path))
    sets = {split: labelled(*pair, names, f"{path}, {split}") for split, pair in splits.items()}
    return Dataset(
        entry.name if entry else path.resolve().stem,
        sets["train"],
        validation=sets.get("validation"),
        test=sets.get("test"),
        flip_safe=entry.flip_safe if entry else False,
        licence=entry.licence if entry else None,
    )


def _file(path: Path) -> tuple[dict[str, Pair], tuple[str, ...]]:
    with _opened(path) as archive:
        present = {name.removesuffix(".npy") for name in archive.namelist()}
        keys = next((keys for keys in _KEYS if present.issuperset(keys["train"])), None)
        if keys is None:
            raise DataError(
                f"{path} holds {', '.join(sorted(present)) or 'nothing'}, but no x_train with y_train. "
                f"Save the arrays by these names: numpy.savez_compressed(path, x_train=…, y_train=…, x_test=…, …)."
            )
        splits = {}
        for split, pair in keys.items():
            if present.isdisjoint(pair):
                continue
            if not present.issuperset(pair):
                raise DataError(f"{path} has only one of {pair[0]} and {pair[1]}. Save both, or neither.")
            images, labels = (_array(archive, key, f"{path}, {key}") for key in pair)
            splits[split] = (_images(images, f"{path}, {pair[0]}"), _labels(labels, f"{path}, {pair[1]}"))
        if _CLASS_NAMES not in present:
            return splits, ()
        names = _array(archive, _CLASS_NAMES, f"{path}, {_CLASS_NAMES}")
        if names.dtype.kind != "U" or names.ndim != 1:
            raise DataError(f"{path}, {_CLASS_NAMES} is {names.dtype}; save a list of strings.")
        return splits, tuple(map(str, names))


def _folder(folder: Path, entry: Entry | None) -> tuple[dict[str, Pair], tuple[str, ...], Entry | None]:
    starts = sorted(folder.glob("*-train-imgs.npz"))
    if len(starts) != 1:
        raise DataError(
            f"{folder} holds several data sets ({', '.join(start.name for start in starts)}). "
            f"Put the files of each into a folder of its own."
        )
    prefix = starts[0].name.removesuffix("train-imgs.npz")
    splits = {}
    for split in ("train", "test"):
        paths = [folder / f"{prefix}{split}-{kind}.npz" for kind in ("imgs", "labels")]
        missing = [path.name for path in paths if not path.is_file()]
        if split == "test" and len(missing) == 2:
            continue
        if missing:
            raise DataError(f"{folder} lacks {' and '.join(missing)}. Images and labels come in pairs; add the file.")
        if entry:
            for path in paths:
                entry.check(next(file for file in entry.files if file.name == path.name), path)
        images, labels = map(_single, paths)
        splits[split] = (_images(images, str(paths[0])), _labels(labels, str(paths[1])))
    return splits, (), entry or passport(*digests(folder / f"{prefix}train-labels.npz"))


def _single(path: Path) -> NDArray[Any]:
    with _opened(path) as archive:
        return _array(archive, "arr_0", str(path))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _BAD_FILE as error:
        raise DataError(f"{path} cannot be read as NPZ: {error}. It is truncated or damaged; replace it.") from error


def _array(archive: zipfile.ZipFile, key: str, where: str) -> NDArray[Any]:
    """One array of the archive: its header is read and judged before anything is allocated."""
    if f"{key}.npy" not in archive.namelist():
        raise DataError(f"{where} has no array {key}. Check how the file was saved.")
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where} is compressed in a way that NumPy does not use. Save it with numpy.savez_compressed.")
    if info.file_size > min(MAX_BYTES, MAX_DEFLATE_RATIO * max(info.compress_size, 1)):
        raise DataError(
            f"{where} claims {info.file_size:,} bytes from {info.compress_size:,} compressed ones, more than is "
            f"possible or than the {MAX_BYTES:,} that are read. Save fewer images."
        )
    with archive.open(info) as stream:
        shape, fortran_order, dtype, offset = _header(stream.read(_MAX_HEADER + 12), where)
    size = math.prod(shape) * dtype.itemsize
    if size < 1 or min(shape, default=1) < 1 or offset + size != info.file_size:
        raise DataError(
            f"{where} describes an array of shape {shape} and type {dtype}, which does not fit its "
            f"{info.file_size:,} bytes. It is empty, truncated or damaged; save it again."
        )
    data = np.empty(size, np.uint8)
    with archive.open(info) as stream:
        stream.read(offset)
        if fill(cast(io.BufferedIOBase, stream), data) < size:
            raise DataError(f"{where} ends early. It is truncated; save it again.")
    return data.view(dtype).reshape(shape, order="F" if fortran_order else "C")


def _header(start: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and type of an array, and where its data starts."""
    stream = io.BytesIO(start)
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        if version not in parsers:
            raise ValueError(f"version {version} of the format is for structured arrays")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files from Python 2 are fine
            shape, fortran_order, dtype = parsers[version](stream, max_header_size=_MAX_HEADER)
    except _BAD_HEADER as error:
        raise DataError(
            f"{where} has no valid NumPy header: {str(error) or type(error).__name__}. Save it again."
        ) from error
    if dtype.hasobject or dtype.kind not in "uifU" or dtype.subdtype is not None:
        raise DataError(
            f"{where} has elements of type {dtype}; only plain numbers are read, never Python objects. "
            f"Convert it before saving."
        )
    return shape, fortran_order, dtype, stream.tell()


def _images(array: NDArray[Any], where: str) -> Images:
    """uint8 N×H×W×C."""
    if array.dtype.kind not in "uif":
        raise DataError(f"{where}: images must be numbers; these are {array.dtype}.")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # false for NaN, too
            raise DataError(
                f"{where}: floating-point images must lie between 0 and 1; these run from {low} to {high}. "
                f"Save them as uint8, 0 to 255."
            )
        array = np.rint(array * 255)
    elif low < 0 or high > 255:
        raise DataError(f"{where}: images must lie between 0 and 255; these run from {low} to {high}. Scale them.")
    images = np.ascontiguousarray(array, dtype=np.uint8)
    return images[..., None] if images.ndim == 3 else images


def _labels(array: NDArray[Any], where: str) -> Labels:
    """int64 N."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{where}: labels must be one number an image; these have shape {array.shape}. "
            f"One-hot labels: save labels.argmax(axis=1)."
        )
    if array.dtype.kind not in "ui":
        raise DataError(f"{where}: labels must be integers; these are {array.dtype}. Save labels.astype('int64').")
    return array.astype(np.int64)
