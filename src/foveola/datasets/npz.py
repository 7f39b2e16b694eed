"""Reader of NPZ files, NumPy's archives of arrays, without pickle and with bounded memory.

One file holds x_train, y_train (and x_val, y_val, x_test, y_test), as Keras saves it, or train_images, train_labels
and so on, as MedMNIST does. Optional are class_names, groups_train, groups_val and groups_test (or train_groups and so
on), a number or string for each image, and in the same way weights_train …, how much each image counts. A folder holds
…-train-imgs.npz and …-train-labels.npz (and the same with test), each with the array arr_0, as KMNIST is published.
"""

import io
import math
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import label_matrix, shape_text, to_images, to_labels
from foveola.datasets.catalog import identify_by_checksum
from foveola.datasets.entry import Entry, file_digests
from foveola.datasets.reader import MAX_BYTES, MAX_DEFLATE_RATIO, ReadOptions, classes_of_labels, image_set, read_into
from foveola.errors import DataError
from foveola.images import Dataset, Images

ImagesAndLabels = tuple[Images, NDArray[Any]]


class _Saved(NamedTuple):
    """What a file holds; groups and weights by split, where there are some."""

    splits: dict[str, ImagesAndLabels]
    class_names: tuple[str, ...] = ()
    groups: Mapping[str, NDArray[np.int64]] = {}
    weights: Mapping[str, NDArray[Any]] = {}


_KEYS = (  # split → keys of images and labels
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
_GROUP_KEYS = {
    "train": ("groups_train", "train_groups"),
    "validation": ("groups_val", "val_groups"),
    "test": ("groups_test", "test_groups"),
}
_WEIGHT_KEYS = {
    "train": ("weights_train", "train_weights"),
    "validation": ("weights_val", "val_weights"),
    "test": ("weights_test", "test_weights"),
}
_CLASS_NAMES = "class_names"
_MAX_HEADER = 10_000  # NumPy's own limit
# ValueError: names of members that are not UTF-8, offsets below zero
_ARCHIVE_ERRORS = (
    OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def recognises(path: Path) -> bool:
    return path.suffix.lower() == ".npz" if path.is_file() else any(path.glob("*-train-imgs.npz"))


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read an NPZ file, or a folder of NPZ files as KMNIST is published.

    Images: N×H×W or N×H×W×C, whole numbers from 0 to 255, floats from 0 to 1, which are scaled to 0 to 255 and rounded,
    or booleans. Labels: whole numbers or names of classes, N or N×1; or, for several labels an image, N×K zeros and
    ones. If the file has no class names, labels that are numbers name their classes themselves, and columns are
    numbered.

    Raises
    ------
    DataError
        If arrays are missing, damaged, inconsistent, of the wrong type or range, or larger than their files allow; or,
        with an entry of the catalog, if the files are not the published ones.
    """
    if path.is_dir():
        splits, entry = _read_folder(path, entry)
        saved = _Saved(splits)
    else:
        saved = _read_file(path)
        splits = saved.splits
    if entry:
        names = entry.class_names
    else:
        every = {split: pair[1] for split, pair in splits.items()}
        labels, names = classes_of_labels(every, saved.class_names, str(path))
        splits = {split: (images, labels[split]) for split, (images, _) in splits.items()}
    sets = {
        split: image_set(*pair, names, f"{path}, {split}", saved.groups.get(split), saved.weights.get(split))
        for split, pair in splits.items()
    }
    return Dataset(
        entry.name if entry else path.resolve().stem,
        sets["train"],
        validation=sets.get("validation"),
        test=sets.get("test"),
        flip_safe=entry.flip_safe if entry else False,
        licence=entry.licence if entry else None,
    )


def _read_file(path: Path) -> _Saved:
    with _open_archive(path) as archive:
        saved_keys = {name.removesuffix(".npy") for name in archive.namelist()}
        keys = next((keys for keys in _KEYS if saved_keys.issuperset(keys["train"])), None)
        if keys is None:
            raise DataError(
                f"{path} holds {', '.join(sorted(saved_keys)) or 'nothing'}, but not both x_train and y_train. "
                f"Save the arrays under these names: numpy.savez_compressed(path, x_train=…, y_train=…, x_test=…, …)."
            )
        splits = {}
        for split, (images_key, labels_key) in keys.items():
            if saved_keys.isdisjoint((images_key, labels_key)):
                continue
            if not saved_keys.issuperset((images_key, labels_key)):
                raise DataError(f"{path} has only one of {images_key} and {labels_key}. Save both or neither.")
            images, labels = (_read_array(archive, key, f"{path}, {key}") for key in (images_key, labels_key))
            splits[split] = _to_images(images, f"{path}, {images_key}"), labels
        splits = _with_labels(splits, {split: f"{path}, {keys[split][1]}" for split in splits})
        groups, weights = (
            {split: _read_column(archive, key, path) for split in splits for key in keys[split] if key in saved_keys}
            for keys in (_GROUP_KEYS, _WEIGHT_KEYS)
        )
        names = _class_names(archive, f"{path}, {_CLASS_NAMES}") if _CLASS_NAMES in saved_keys else ()
        return _Saved(splits, names, _number_groups(groups, path), weights)


def _read_column(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """One value for each image, N; also from N×1."""
    array = _read_array(archive, key, f"{path}, {key}")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _class_names(archive: zipfile.ZipFile, where: str) -> tuple[str, ...]:
    names = _read_array(archive, _CLASS_NAMES, where)
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise DataError(f"{where} has the type {names.dtype} and {names.ndim} axes; save a list of strings.")
    return tuple(map(str, to_labels(names)))


def _read_folder(folder: Path, entry: Entry | None) -> tuple[dict[str, ImagesAndLabels], Entry | None]:
    training_files = sorted(folder.glob("*-train-imgs.npz"))
    if len(training_files) != 1:
        raise DataError(
            f"{folder} holds several data sets ({', '.join(file.name for file in training_files)}). "
            f"Put the files of each into a separate folder."
        )
    prefix = training_files[0].name.removesuffix("train-imgs.npz")
    splits = {}
    for split in ("train", "test"):
        paths = [folder / f"{prefix}{split}-{kind}.npz" for kind in ("imgs", "labels")]
        missing = [path.name for path in paths if not path.is_file()]
        if split == "test" and len(missing) == 2:
            continue
        if missing:
            raise DataError(f"{folder} lacks {' and '.join(missing)}. A split needs images and labels; add the file.")
        if entry:
            for path in paths:
                entry.check(next(file for file in entry.files if file.name == path.name), path)
        images, labels = map(_read_single_array, paths)
        splits[split] = _to_images(images, str(paths[0])), _to_labels(labels, str(paths[1]))
    return splits, entry or identify_by_checksum(*file_digests(folder / f"{prefix}train-labels.npz"))


def _read_single_array(path: Path) -> NDArray[Any]:
    with _open_archive(path) as archive:
        return _read_array(archive, "arr_0", str(path))


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"{path} cannot be read as NPZ: {error}. It is truncated or damaged; replace it.") from error


def _read_array(archive: zipfile.ZipFile, key: str, where: str) -> NDArray[Any]:
    """One array of the archive; its header is checked before anything is allocated."""
    if f"{key}.npy" not in archive.namelist():
        raise DataError(f"{where} has no array {key}. Check how the file was saved.")
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where} uses a compression that NumPy does not write. Save it with numpy.savez_compressed.")
    if info.file_size > min(MAX_BYTES, MAX_DEFLATE_RATIO * max(info.compress_size, 1)):
        raise DataError(
            f"{where} claims {info.file_size:,} bytes from {info.compress_size:,} compressed bytes, which is more than "
            f"the compression allows or more than the limit of {MAX_BYTES:,}. Save fewer images, or save it again."
        )
    with archive.open(info) as stream:
        shape, fortran_order, dtype, offset = _parse_header(stream.read(_MAX_HEADER + 12), where)
    size = math.prod(shape) * dtype.itemsize
    if size < 1 or min(shape, default=1) < 1 or offset + size != info.file_size:
        raise DataError(
            f"{where} describes an array of shape {shape} and type {dtype}, which does not match its "
            f"{info.file_size:,} bytes. It is empty, truncated or damaged; save it again."
        )
    data = np.empty(size, np.uint8)
    with archive.open(info) as stream:
        stream.read(offset)
        if read_into(cast(io.BufferedIOBase, stream), data) < size:
            raise DataError(f"{where} ends early. It is truncated; save it again.")
    if dtype.kind == "U" and data.view(dtype.str.replace("U", "u4")[:3]).max() > sys.maxunicode:
        raise DataError(f"{where} holds characters that do not exist. It is damaged; save it again.")
    return data.view(dtype).reshape(shape, order="F" if fortran_order else "C")


def _parse_header(header: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and type of an array, and the offset of its data."""
    stream = io.BytesIO(header)
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        if version not in parsers:
            raise ValueError(f"version {version} of the format is only used for structured arrays")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about files from Python 2, which can be read
            shape, fortran_order, dtype = parsers[version](stream, max_header_size=_MAX_HEADER)
        if not all(type(side) is int for side in shape):  # NumPy lets True pass as a size
            raise ValueError(f"the shape {shape} has sides that are not numbers")
    except Exception as error:  # NumPy parses the header as a Python literal, which can raise exceptions of many types
        raise DataError(
            f"{where} has no valid NumPy header: {str(error) or type(error).__name__}. Save it again."
        ) from error
    if dtype.hasobject or dtype.kind not in "uifbUS" or dtype.subdtype is not None:
        raise DataError(
            f"{where} has elements of type {dtype}; only plain numbers are read, never Python objects. "
            f"Convert the array before saving."
        )
    return shape, fortran_order, dtype, stream.tell()


def _to_images(array: NDArray[Any], where: str) -> Images:
    """The array as images, uint8 N×H×W×C."""
    try:
        return to_images(array)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _with_labels(splits: dict[str, ImagesAndLabels], where: Mapping[str, str]) -> dict[str, ImagesAndLabels]:
    """The splits, with numbers or names of classes, N; or, if any split has several labels an image, all bool N×K."""
    every = [labels for _, labels in splits.values()]
    if any(map(_has_several, every)) and all(map(_is_flags, every)):
        return {split: (images, labels.astype(bool)) for split, (images, labels) in splits.items()}
    return {split: (images, _to_labels(labels, where[split])) for split, (images, labels) in splits.items()}


def _has_several(labels: NDArray[Any]) -> bool:
    """Whether labels are zeros and ones, N×K, and not one-hot."""
    return label_matrix(labels.astype(np.uint8) if labels.dtype.kind == "b" else labels) is not None


def _is_flags(labels: NDArray[Any]) -> bool:
    return labels.ndim == 2 and labels.dtype.kind in "uifb" and bool(np.isin(labels, (0, 1)).all())


def _to_labels(array: NDArray[Any], where: str) -> NDArray[Any]:
    """The array as numbers or names of classes, N."""
    try:
        return to_labels(array)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _number_groups(groups: Mapping[str, NDArray[Any]], path: Path) -> dict[str, NDArray[np.int64]]:
    """Groups, one number or string for each image, as numbers that are the same in all splits."""
    for split, array in groups.items():
        if array.ndim != 1 or array.dtype.kind not in "uibUS":
            raise DataError(
                f"{path}, groups of {split}: groups must be one whole number or string per image, not {array.dtype} of "
                f"shape {shape_text(array.shape)}. Save one for each image."
            )
    texts = {split: array.astype(str) for split, array in groups.items()}
    known = np.unique(np.concatenate([*texts.values()])) if texts else np.empty(0, str)
    return {split: np.searchsorted(known, text).astype(np.int64) for split, text in texts.items()}
