"""Reader of the binary version of CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html.

The files data_batch_1.bin to data_batch_5.bin and test_batch.bin hold records of one label byte and 3×32×32 pixels.
They are read from a folder, or from the published archive, which is streamed and never extracted.
"""

import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.catalog import CATALOG
from foveola.datasets.entry import Entry
from foveola.datasets.reader import MAX_BYTES, ReadOptions, image_set, read_into
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet

_RECORD_BYTES = 1 + 3 * 32 * 32
_NAMES = tuple(file.name for file in CATALOG["cifar-10"].members)


def recognises(path: Path) -> bool:
    return path.is_dir() and (path / _NAMES[0]).is_file()


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read CIFAR-10 as uint8 images, N×32×32×3.

    Raises
    ------
    DataError
        If a file is missing, damaged or of the wrong size, or an archive is not the published one.
    """
    entry = entry or CATALOG["cifar-10"]
    archive = path / entry.files[0].name
    if recognises(path):
        batches = {name: _read_batch(path / name) for name in _NAMES}
    else:
        entry.check(entry.files[0], archive)
        batches = _read_archive(archive)
    sets = {
        split: _image_set([batches[name] for name in names], entry, f"{path}, {split}")
        for split, names in (("train", _NAMES[:-1]), ("test", _NAMES[-1:]))
    }
    return Dataset(entry.name, sets["train"], test=sets["test"], flip_safe=entry.flip_safe, licence=entry.licence)


def _read_batch(path: Path) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a regular file. Replace it.")
    try:
        with path.open("rb") as file:
            return _read_records(file, path.stat().st_size, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Add or replace the file.") from error


def _read_archive(archive: Path) -> dict[str, NDArray[np.uint8]]:
    batches = {}
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in _NAMES:
                    stream = cast(io.BufferedIOBase, members.extractfile(member))
                    batches[name] = _read_records(stream, member.size, f"{archive}, {name}")
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be read: {error}. It is truncated or damaged; replace it.") from error
    if missing := sorted(set(_NAMES) - set(batches)):
        raise DataError(f"{archive} lacks {', '.join(missing)}. Replace it.")
    return batches


def _read_records(stream: io.BufferedIOBase, size: int, where: str) -> NDArray[np.uint8]:
    if size == 0 or size % _RECORD_BYTES or size > MAX_BYTES:
        raise DataError(
            f"{where} has {size:,} bytes, which is not a multiple of the record size, {_RECORD_BYTES:,}. "
            f"It is truncated or in another format (CIFAR-100?); replace it."
        )
    records = np.empty(size, np.uint8)
    if read_into(stream, records) < size:
        raise DataError(f"{where} ends early. It is truncated; replace it.")
    return records.reshape(-1, _RECORD_BYTES)


def _image_set(batches: list[NDArray[np.uint8]], entry: Entry, where: str) -> ImageSet:
    records = np.concatenate(batches)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return image_set(np.ascontiguousarray(images), records[:, 0], entry.class_names, where)
