"""IDX, the format of MNIST: http://yann.lecun.com/exdb/mnist/.

Four files of the MNIST family's names in a folder, raw or gzipped: train-images-idx3-ubyte, train-labels-idx1-ubyte,
and optionally the same with t10k (or test) for train. A name may have a prefix, as EMNIST's do.
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

from foveola.datasets.catalog import CATALOG, passport
from foveola.datasets.entry import Entry, digests
from foveola.datasets.reader import MAX_BYTES, MAX_DEFLATE_RATIO, Request, fill, labelled, numbered
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet

Part = Path | zipfile.Path  # a file in a folder, or in an archive that is never extracted
Parts = dict[tuple[str, str], Part]  # (train or test, images or labels) → file

_NAME = re.compile(r"(?P<prefix>.*?)(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?")
_DIMENSIONS = {"images": 3, "labels": 1}


def recognises(path: Path) -> bool:
    return path.is_dir() and any(re.search(r"idx[0-9]-ubyte(\.gz)?$", file.name) for file in path.iterdir())


def read(path: Path, request: Request, entry: Entry | None = None) -> Dataset:
    """Read a folder of IDX files.

    Data sets of the catalog are recognised by the content of their training labels, EMNIST's by the names of its
    files; others get the class names "0" to the largest label.

    Raises
    ------
    DataError
        If files are missing, damaged, or do not fit together; for an entry, if they are not the published ones.
    """
    with _parts(path, entry) as (prefix, parts):
        _check_complete(path, prefix, parts)
        arrays = {key: _read(part, key[1]) for key, part in parts.items()}
        if entry:
            _check_published(entry, parts, {key: digest for key, (_, digest) in arrays.items()})
        else:
            entry = _recognise(prefix, parts["train", "labels"], arrays["train", "labels"][1])
    splits = {
        split: (arrays[split, "images"][0], arrays[split, "labels"][0])
        for split in ("train", "test")
        if (split, "images") in arrays
    }
    names = entry.class_names if entry else numbered([labels for _, labels in splits.values()], str(path))
    sets = {split: _image_set(*pair, names, entry, f"{path}, {split}") for split, pair in splits.items()}
    return Dataset(
        entry.name if entry else path.resolve().name,
        sets["train"],
        test=sets.get("test"),
        flip_safe=entry.flip_safe if entry else False,
        licence=entry.licence if entry else None,
    )


@contextmanager
def _parts(folder: Path, entry: Entry | None) -> Iterator[tuple[str, Parts]]:
    """The files of one data set with the prefix of their names, from the folder or from the archive inside it."""
    found = _by_prefix(folder.iterdir())
    if entry is None:
        if len(found) > 1:
            raise DataError(
                f"{folder} holds several data sets ({', '.join(f'{prefix}…' for prefix in sorted(found))}). "
                f"Put the files of each into a folder of its own."
            )
        yield next(iter(found.items()), ("", {}))
    elif found.get(entry.prefix) or not entry.members:
        yield entry.prefix, found.get(entry.prefix, {})
    else:
        archive = folder / entry.files[0].name
        entry.check(entry.files[0], archive)
        try:
            with zipfile.ZipFile(archive) as opened:
                members = _by_prefix(zipfile.Path(opened, member) for member in opened.namelist())
                yield entry.prefix, members.get(entry.prefix, {})
        except zipfile.BadZipFile as error:
            raise DataError(f"{archive} is damaged: {error}. Replace it.") from error


def _by_prefix(files: Iterable[Part]) -> dict[str, Parts]:
    found: dict[str, Parts] = {}
    for file in sorted(files, key=lambda file: file.name):  # raw before .gz
        if match := _NAME.fullmatch(file.name):
            same = found.setdefault(match["prefix"], {}).setdefault(_key(match), file)
            if same.name not in (file.name, file.name.removesuffix(".gz")):
                raise DataError(f"{same} and {file} both hold the {' '.join(_key(match))}. Remove one of them.")
    return found


def _key(match: re.Match[str]) -> tuple[str, str]:
    return "train" if match["split"] == "train" else "test", match["kind"]


def _check_complete(folder: Path, prefix: str, parts: Parts) -> None:
    names = {"train": "train", "test": "test" if prefix else "t10k"}
    needed = ["train", "test"] if any(split == "test" for split, _ in parts) else ["train"]
    missing = [
        f"{prefix}{names[split]}-{kind}-idx{dimensions}-ubyte"
        for split in needed
        for kind, dimensions in _DIMENSIONS.items()
        if (split, kind) not in parts
    ]
    if missing:
        raise DataError(
            f"{folder} lacks {' and '.join(missing)} (raw, or with .gz). "
            f"Images and labels come in pairs of IDX files; add what is missing."
        )


def _read(part: Part, kind: str) -> tuple[NDArray[np.uint8], str]:
    """The array in an IDX file, and the SHA-256 of the file's decompressed content."""
    size = part.stat().st_size if isinstance(part, Path) else part.root.getinfo(part.at).file_size
    try:
        with part.open("rb") as file:
            if not part.name.endswith(".gz"):
                return _parse(cast(io.BufferedIOBase, file), part, kind, size, exact=True)
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse(stream, part, kind, size * MAX_DEFLATE_RATIO, exact=False)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{part} cannot be read: {error}. It is truncated or damaged; replace it.") from error


def _parse(
    stream: io.BufferedIOBase, part: Part, kind: str, size: int, *, exact: bool
) -> tuple[NDArray[np.uint8], str]:
    """Header first; nothing is allocated before it fits the `size` in bytes, exact or at most."""
    dimensions = _DIMENSIONS[kind]
    magic = bytes([0, 0, 8, dimensions])  # 8: unsigned bytes
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != magic:
        raise DataError(
            f"{part} starts with {header[:4].hex(' ') or 'nothing'}; an IDX file of {kind} starts with "
            f"{magic.hex(' ')}. It is damaged or another format; replace it."
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{part} ends within its header. It is truncated; replace it.")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    promised = math.prod(shape)
    text = f"{part} promises {'×'.join(map(str, shape))} = {promised:,} bytes of {kind}"
    if promised == 0 or promised > MAX_BYTES:
        raise DataError(f"{text}; 1 to {MAX_BYTES:,} can be used. Check how the file was made.")
    if (size - len(header) != promised) if exact else (size < promised):
        raise DataError(
            f"{text}, but the file's size is for {'' if exact else 'at most '}{size - len(header):,}. "
            f"It is truncated or damaged; replace it."
        )
    array = np.empty(promised, np.uint8)
    done = fill(stream, array)
    if done < promised or stream.read(1):
        raise DataError(f"{text}, but holds {'fewer' if done < promised else 'more'}. It is damaged; replace it.")
    digest = hashlib.sha256(header)
    digest.update(array.data)
    return array.reshape(shape), digest.hexdigest()


def _check_published(entry: Entry, parts: Parts, contents: dict[tuple[str, str], str]) -> None:
    published = {_key(match): file for file in entry.files if (match := _NAME.fullmatch(file.name))}
    for key, part in parts.items():
        if isinstance(part, Path) and key in published:
            entry.check(published[key], part, contents[key])


def _recognise(prefix: str, labels: Part, content_sha256: str) -> Entry | None:
    for entry in CATALOG.values():
        if entry.prefix and entry.prefix == prefix:
            return entry
    return passport(content_sha256, *(digests(labels) if isinstance(labels, Path) else ()))


def _image_set(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], names: tuple[str, ...], entry: Entry | None, where: str
) -> ImageSet:
    if entry and entry.transposed:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    first = entry.first_label if entry else 0
    return labelled(images[..., None], labels.astype(np.int64) - first, names, where)
