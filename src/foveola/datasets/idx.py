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
from foveola.datasets.reader import MAX_BYTES, MAX_DEFLATE_RATIO, ReadOptions, classes_of_labels, image_set, read_into
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet, Labels
from foveola.inputs.find import is_junk

IdxFile = Path | zipfile.Path  # a file in a folder, or inside an archive, which is never extracted
IdxFiles = dict[tuple[str, str], IdxFile]  # (train or test, images or labels) → file

_IDX_NAME = re.compile(r"idx[0-9]-ubyte(\.gz)?$")
_NAME = re.compile(r"(?P<prefix>.*?)(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?")
_BLOCK_IMAGES = 4096
_DIMENSIONS = {"images": 3, "labels": 1}


def recognises(path: Path) -> bool:
    return path.is_dir() and bool(_candidates(path))


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read a folder of IDX files.

    A data set of the catalog is recognised by the checksum of its training labels, or for EMNIST by its file names.
    In other data, the labels name their classes themselves.

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
    splits = [split for split in ("train", "test") if (split, "images") in arrays]
    labels = {split: arrays[split, "labels"][0].astype(np.int64) for split in splits}
    if entry:
        labels, names = {split: array - entry.first_label for split, array in labels.items()}, entry.class_names
    else:
        labels, names = classes_of_labels(labels, (), str(path))
    sets = {
        split: _image_set(arrays[split, "images"][0], labels[split], names, entry, f"{path}, {split}")
        for split in splits
    }
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
    files_by_prefix = _group_by_prefix(_candidates(folder))
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


def _candidates(folder: Path) -> list[Path]:
    """What is called like an IDX file: in the folder, or else in its subfolders, as Kaggle and torchvision place them.

    Kaggle unpacks each file into a folder of the same name. Single folders around the data are passed through.
    """
    entries = [path for path in folder.iterdir() if not is_junk(path.name)]
    if files := [path for path in entries if _IDX_NAME.search(path.name) and not path.is_dir()]:
        return files
    folders = [path for path in entries if path.is_dir()]
    if len(folders) == 1 and not folders[0].is_symlink():
        return _candidates(folders[0])
    below = (path for inner in folders for path in inner.iterdir())
    return [path for path in below if _IDX_NAME.search(path.name) and not path.is_dir()]


def _group_by_prefix(files: Iterable[IdxFile]) -> dict[str, IdxFiles]:
    grouped: dict[str, IdxFiles] = {}
    for file in sorted(
        files, key=lambda file: (file.name, str(file))
    ):  # a raw file sorts before its .gz and is preferred
        if match := _NAME.fullmatch(file.name):
            first = grouped.setdefault(match["prefix"], {}).setdefault(_key(match), file)
            if isinstance(first, Path) and isinstance(file, Path) and first.parent != file.parent:
                raise DataError(f"{first.parent} and {file.parent} both hold a data set. Give one of these folders.")
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
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"{file} is not a regular file. Replace it by a file of {kind}.")
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
    images: NDArray[np.uint8], labels: Labels, names: tuple[str, ...], entry: Entry | None, where: str
) -> ImageSet:
    if entry and entry.transposed:
        images = _turned(images)
    return image_set(images[..., None], labels, names, where)


def _turned(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images, N×H×W, with rows and columns swapped; square ones in place, since a copy of EMNIST takes 600 MB."""
    if images.shape[1] != images.shape[2]:
        return np.ascontiguousarray(images.transpose(0, 2, 1))
    for start in range(0, len(images), _BLOCK_IMAGES):
        block = images[start : start + _BLOCK_IMAGES]
        block[:] = block.transpose(0, 2, 1).copy()
    return images
