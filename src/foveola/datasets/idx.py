"""Reader of IDX files, the format of MNIST: http://yann.lecun.com/exdb/mnist/.

A folder holds train-images-idx3-ubyte and train-labels-idx1-ubyte, raw or gzipped, and optionally the same two files
with t10k or test instead of train. The names may have a prefix, as those of EMNIST do.
"""

import gzip
import hashlib
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.catalog import CATALOG, identify_by_checksum
from foveola.datasets.entry import Entry, file_digests
from foveola.datasets.reader import MAX_BYTES, MAX_DEFLATE_RATIO, ReadOptions, default_class_names, image_set, read_into
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet

IdxFile = Path | zipfile.Path  # a file in a folder, or inside an archive, which is never extracted
IdxFiles = dict[tuple[str, str], IdxFile]  # (train or test, images or labels) → file

_NAME = re.compile(r"(?P<prefix>.*?)(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?")
_DIMENSIONS = {"images": 3, "labels": 1}


def recognises(path: Path) -> bool:
    return path.is_dir() and any(re.search(r"idx[0-9]-ubyte(\.gz)?$", file.name) for file in path.iterdir())


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read a folder of IDX files.

    A data set of the catalog is recognised by the checksum of its training labels, or for EMNIST by its file names.
    Other data gets the class names "0", "1", … up to the largest label.

    Raises
    ------
    DataError
        If files are missing, damaged or inconsistent, or, with an entry, are not the published ones.
    """
    with _idx_files(path, entry) as (prefix, files):
        _check_complete(path, prefix, files)
        arrays = {key: _read_array(file, key[1]) for key, file in files.items()}
        if entry:
            _check_published(entry, files, {key: digest for key, (_, digest) in arrays.items()})
        else:
            entry = _identify(prefix, files["train", "labels"], arrays["train", "labels"][1])
    splits = {
        split: (arrays[split, "images"][0], arrays[split, "labels"][0])
        for split in ("train", "test")
        if (split, "images") in arrays
    }
    names = entry.class_names if entry else default_class_names([labels for _, labels in splits.values()], str(path))
    sets = {split: _image_set(*pair, names, entry, f"{path}, {split}") for split, pair in splits.items()}
    return Dataset(
        entry.name if entry else path.resolve().name,
        sets["train"],
        test=sets.get("test"),
        flip_safe=entry.flip_safe if entry else False,
        licence=entry.licence if entry else None,
    )


@contextmanager
def _idx_files(folder: Path, entry: Entry | None) -> Iterator[tuple[str, IdxFiles]]:
    """The prefix and the files of one data set, from the folder or from the archive inside it."""
    files_by_prefix = _group_by_prefix(folder.iterdir())
    if entry is None:
        if len(files_by_prefix) > 1:
            raise DataError(
                f"{folder} holds several data sets ({', '.join(f'{prefix}…' for prefix in sorted(files_by_prefix))}). "
                f"Put the files of each into a separate folder."
            )
        yield next(iter(files_by_prefix.items()), ("", {}))
    elif files_by_prefix.get(entry.prefix) or not entry.members:
        yield entry.prefix, files_by_prefix.get(entry.prefix, {})
    else:
        archive = folder / entry.files[0].name
        entry.check(entry.files[0], archive)
        try:
            with zipfile.ZipFile(archive) as opened:
                members = _group_by_prefix(zipfile.Path(opened, member) for member in opened.namelist())
                yield entry.prefix, members.get(entry.prefix, {})
        except zipfile.BadZipFile as error:
            raise DataError(f"{archive} is damaged: {error}. Replace it.") from error


def _group_by_prefix(files: Iterable[IdxFile]) -> dict[str, IdxFiles]:
    grouped: dict[str, IdxFiles] = {}
    for file in sorted(files, key=lambda file: file.name):  # a raw file sorts before its .gz and is preferred
        if match := _NAME.fullmatch(file.name):
            first = grouped.setdefault(match["prefix"], {}).setdefault(_key(match), file)
            if first.name not in (file.name, file.name.removesuffix(".gz")):
                raise DataError(f"{first} and {file} both hold the {' '.join(_key(match))}. Remove one of them.")
    return grouped


def _key(match: re.Match[str]) -> tuple[str, str]:
    return "train" if match["split"] == "train" else "test", match["kind"]


def _check_complete(folder: Path, prefix: str, files: IdxFiles) -> None:
    names = {"train": "train", "test": "test" if prefix else "t10k"}
    required = ["train", "test"] if any(split == "test" for split, _ in files) else ["train"]
    missing = [
        f"{prefix}{names[split]}-{kind}-idx{dimensions}-ubyte"
        for split in required
        for kind, dimensions in _DIMENSIONS.items()
        if (split, kind) not in files
    ]
    if missing:
        raise DataError(
            f"{folder} lacks {' and '.join(missing)} (raw, or with .gz). "
            f"IDX data needs a file of images and a file of labels; add the missing files."
        )


def _read_array(file: IdxFile, kind: str) -> tuple[NDArray[np.uint8], str]:
    """The array in an IDX file, and the SHA-256 of the file's decompressed content."""
    size = file.stat().st_size if isinstance(file, Path) else file.root.getinfo(file.at).file_size
    try:
        with file.open("rb") as stream:
            if not file.name.endswith(".gz"):
                return _parse(cast(io.BufferedIOBase, stream), file, kind, size, exact=True)
            with gzip.GzipFile(fileobj=stream) as decompressed:
                return _parse(decompressed, file, kind, size * MAX_DEFLATE_RATIO, exact=False)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read: {error}. It is truncated or damaged; replace it.") from error


def _parse(
    stream: io.BufferedIOBase, file: IdxFile, kind: str, size: int, *, exact: bool
) -> tuple[NDArray[np.uint8], str]:
    """Array and checksum of a stream.

    Nothing is allocated before the header agrees with `size`: the bytes of the stream, or, if not `exact`, their
    maximum.
    """
    dimensions = _DIMENSIONS[kind]
    magic = bytes([0, 0, 8, dimensions])  # 8: unsigned bytes
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != magic:
        raise DataError(
            f"{file} starts with {header[:4].hex(' ') or 'nothing'}; an IDX file of {kind} starts with "
            f"{magic.hex(' ')}. It is damaged or in another format; replace it."
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{file} ends inside its header. It is truncated; replace it.")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    declared = math.prod(shape)
    claim = f"{file} declares {'×'.join(map(str, shape))} = {declared:,} bytes of {kind}"
    if declared == 0 or declared > MAX_BYTES:
        raise DataError(f"{claim}; 1 to {MAX_BYTES:,} bytes can be read. Check how the file was made.")
    if (size - len(header) != declared) if exact else (size < declared):
        raise DataError(
            f"{claim}, but its size allows {'exactly' if exact else 'at most'} {size - len(header):,}. "
            f"It is truncated or damaged; replace it."
        )
    array = np.empty(declared, np.uint8)
    count = read_into(stream, array)
    if count < declared or stream.read(1):
        raise DataError(f"{claim}, but holds {'fewer' if count < declared else 'more'}. It is damaged; replace it.")
    digest = hashlib.sha256(header)
    digest.update(array.data)
    return array.reshape(shape), digest.hexdigest()


def _check_published(entry: Entry, files: IdxFiles, content_digests: dict[tuple[str, str], str]) -> None:
    published = {_key(match): file for file in entry.files if (match := _NAME.fullmatch(file.name))}
    for key, file in files.items():
        if isinstance(file, Path) and key in published:
            entry.check(published[key], file, content_digests[key])


def _identify(prefix: str, labels: IdxFile, content_sha256: str) -> Entry | None:
    for entry in CATALOG.values():
        if entry.prefix and entry.prefix == prefix:
            return entry
    return identify_by_checksum(content_sha256, *(file_digests(labels) if isinstance(labels, Path) else ()))


def _image_set(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], names: tuple[str, ...], entry: Entry | None, where: str
) -> ImageSet:
    if entry and entry.transposed:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    first = entry.first_label if entry else 0
    return image_set(images[..., None], labels.astype(np.int64) - first, names, where)
