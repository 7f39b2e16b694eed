"""Packed data sets: a folder that holds the pixels of all images in one file, written by `foveola pack`.

pack.json      name, classes, shape, splits with their fingerprints, what the reader said; checksums of the files below
images.npy     uint8 N×H×W×C: training, validation, test images
labels.npy     int64 N
groups.npy     int64 N, if the images have groups
weights.npy    float64 N, if the images have weights
hashes.npy     uint64 N, as `foveola.models.learnt.hash_images` computes them: find copies without reading the images
originals.npy  int64 2×N: heights and widths of the training images before they were resized

A small data set is read into memory and verified whole. Of a large one, the images are read when they are indexed, with
ordinary reads: the pages of a mapped file would count as memory, and a file that is cut off would end the process.
"""

import hashlib
import json
import os
import re
import stat
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foveola.datasets.entry import Entry
from foveola.datasets.reader import ReadOptions, image_set, originals_of, physical_memory
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet, Originals, Polarity, Resize, content_hash, know_fingerprint
from foveola.lazy import Indices, LazyImages, as_images, blocks, select
from foveola.models.learnt import hash_images
from foveola.progress import Progress, no_progress
from foveola.text import escape_all_surrogates

UNFINISHED = ".packing"
"""The folder of a pack that was interrupted, or is still going on."""

INFO, IMAGES, LABELS, GROUPS, WEIGHTS, HASHES, ORIGINALS = (
    "pack.json", "images.npy", "labels.npy", "groups.npy", "weights.npy", "hashes.npy", "originals.npy",
)  # fmt: skip
FILES = (INFO, IMAGES, LABELS, GROUPS, WEIGHTS, HASHES, ORIGINALS)

MAX_IN_MEMORY = 2**31
"""A data set with more bytes of pixels, or more than a quarter of the memory, is not read into memory."""

MAX_INFO_BYTES = 2**26
_HEADER_BYTES = 128
_UNSET = "0" * 64
_CHECKSUM = re.compile(rb'"sha256": "([0-9a-f]{64})"\n}\n\Z')

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitInfo(_Part):
    """Number of images of a split, the fingerprint of its ImageSet, and whether its images have groups and weights."""

    images: Annotated[int, Field(ge=1, le=2**40)]
    fingerprint: Sha256
    grouped: bool = False
    weighted: bool = False


class PackInfo(_Part):
    """`pack.json`: what a packed data set is.

    `groups` is the pattern by which images were grouped. `colour` and `white_level` are as of `Originals`, and what
    follows as of `Dataset`. `files` are the SHA-256 of all files but the images, which the fingerprints cover. `sha256`
    is that of `pack.json` with 64 zeros in its place.
    """

    format: Literal[1] = 1
    # A run is named after it, so that it must not lead to another folder
    name: Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]
    class_names: Annotated[list[str], Field(min_length=1)]
    image_shape: Annotated[list[Annotated[int, Field(ge=1, le=2**16)]], Field(min_length=3, max_length=3)]
    splits: dict[SplitName, SplitInfo]
    files: dict[str, Sha256]
    groups: str | None = None
    colour: Annotated[int, Field(ge=0)] = 0
    white_level: Annotated[int, Field(ge=1, le=65535)] | None = None
    resize: Resize = "stretch"
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    picture_polarity: Polarity | None = None
    flip_safe: bool = False
    licence: str | None = None
    skipped: list[str] = []
    notes: list[str] = []
    sha256: Sha256 = _UNSET

    @property
    def images(self) -> int:
        """Number of images in all splits."""
        return sum(split.images for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Number of bytes of all pixels."""
        height, width, channels = self.image_shape
        return self.images * height * width * channels

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of the array in each file."""
        count = self.images
        arrays: dict[str, tuple[str, tuple[int, ...]]] = {
            IMAGES: ("|u1", (count, *self.image_shape)),
            LABELS: ("<i8", (count,)),
            HASHES: ("<u8", (count,)),
            ORIGINALS: ("<i8", (2, self.splits["train"].images)),
        }
        if any(split.grouped for split in self.splits.values()):
            arrays[GROUPS] = "<i8", (count,)
        if any(split.weighted for split in self.splits.values()):
            arrays[WEIGHTS] = "<f8", (count,)
        return arrays


# Reading


def recognises(path: Path) -> bool:
    return (path / INFO).is_file() or (path / UNFINISHED).is_dir()


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read a packed data set: into memory if it is small, otherwise as `LazyImages`.

    Raises
    ------
    DataError
        If a file is missing, damaged, or not as `pack.json` describes it, or if other groups are asked for than those
        that it was packed with.
    """
    if not (path / INFO).is_file():
        raise DataError(f"{path} is not packed completely. Do it again: foveola pack DATA --out {path}; it goes on.")
    pack = Pack.open(path)
    if options.groups not in (None, pack.info.groups):
        raise DataError(
            f"{path} was packed {f'with --groups {pack.info.groups!r}' if pack.info.groups else 'without --groups'}, "
            f"and holds no file names to find the groups {options.groups!r} by. Pack the images again with --groups."
        )
    return pack.load(in_memory=fits_in_memory(pack.info.bytes))


def fits_in_memory(count: int) -> bool:
    """Whether a data set with so many bytes of pixels is read into memory."""
    memory = physical_memory()
    return count <= (MAX_IN_MEMORY if memory is None else min(MAX_IN_MEMORY, memory // 4))


@dataclass(frozen=True)
class Pack:
    """An open packed data set: its files have been checked, except for the images' content."""

    path: Path
    info: PackInfo
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def open(cls, path: Path) -> "Pack":
        """Open a packed data set.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not as `pack.json` describes it.
        """
        info = _read_info(path / INFO)
        arrays = {}
        for name, (dtype, shape) in info.arrays().items():
            _check_size(path / name, dtype, shape)
            if name != IMAGES:
                arrays[name] = _read_array(path / name, dtype, shape, info.files.get(name))
        return cls(path, info, arrays)

    def load(self, *, in_memory: bool) -> Dataset:
        """The data set; images in memory are verified, others are read when they are indexed.

        Raises
        ------
        DataError
            If labels are out of range, or images in memory are not those that were packed.
        """
        lazy = LazyImages(self._file(), np.arange(self.info.images))
        images = lazy[:] if in_memory else as_images(lazy)
        sets = {split: self._image_set(images, split, lazy=not in_memory) for split in self.info.splits}
        heights, widths = self.arrays[ORIGINALS]
        info = self.info
        return Dataset(
            info.name,
            sets["train"],
            validation=sets.get("validation"),
            test=sets.get("test"),
            flip_safe=info.flip_safe,
            licence=info.licence,
            skipped=tuple(info.skipped),
            originals=Originals(heights, widths, info.colour, info.white_level),
            resize=info.resize,
            fill=info.fill,
            picture_polarity=info.picture_polarity,
            notes=tuple(info.notes),
        )

    def verify(self, progress: Progress = no_progress) -> None:
        """Read all images, and compare them with their checksums.

        Raises
        ------
        DataError
            If they differ.
        """
        done = 0
        dataset = self.load(in_memory=False)
        images = LazyImages(self._file(with_hashes=False), np.arange(self.info.images))
        for name, (start, stop) in self._ranges().items():
            split = dataset.train if name == "train" else getattr(dataset, name)

            def checked(first: int = start, last: int = stop) -> Iterator[Images]:
                nonlocal done
                for block in blocks(as_images(images.select(slice(first, last)))):
                    if (hash_images(block) != self.arrays[HASHES][done : done + len(block)]).any():
                        self._refuse_images()
                    done += len(block)
                    progress(done, self.info.images, "images")
                    yield block

            if content_hash(split, checked()) != self.info.splits[name].fingerprint:
                self._refuse_images()

    def _file(self, *, with_hashes: bool = True) -> "ImageFile":
        height, width, channels = self.info.image_shape
        hashes = self.arrays[HASHES] if with_hashes else None
        return ImageFile(self.path / IMAGES, self.info.images, (height, width, channels), hashes)

    def _ranges(self) -> dict[SplitName, tuple[int, int]]:
        """The first image of each split, and the one after its last."""
        names = [name for name in SPLIT_NAMES if name in self.info.splits]
        ends = list(accumulate(self.info.splits[name].images for name in names))
        return dict(zip(names, zip([0, *ends], ends, strict=False), strict=True))

    def _image_set(self, images: Images, name: SplitName, *, lazy: bool) -> ImageSet:
        start, stop = self._ranges()[name]
        split = self.info.splits[name]
        own, labels = select(images, slice(start, stop)), self.arrays[LABELS][start:stop]
        groups = self.arrays[GROUPS][start:stop] if split.grouped else None
        weights = self.arrays[WEIGHTS][start:stop] if split.weighted else None
        made = image_set(own, labels, self.info.class_names, f"{self.path}, {name}", groups, weights)
        if lazy:
            know_fingerprint(made, split.fingerprint)
        elif made.fingerprint != split.fingerprint:
            self._refuse_images()
        return made

    def _refuse_images(self) -> NoReturn:
        _refuse(self.path / IMAGES, "does not hold the images that were packed")


class ImageFile:
    """Images in a file of a packed data set, each read when it is needed; safe for several threads.

    Parameters
    ----------
    path : an .npy file that has been checked
    hashes : of all images, uint64 N, or None
    """

    def __init__(
        self, path: Path, count: int, image_shape: tuple[int, int, int], hashes: NDArray[np.uint64] | None
    ) -> None:
        self.path, self.count, self.image_shape, self.hashes = path, count, image_shape, hashes
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.lock = threading.Lock()
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, rows: Indices) -> Images:
        """The images with these numbers, uint8 N×H×W×C."""
        images = np.empty((len(rows), *self.image_shape), np.uint8)
        if not len(rows):
            return images
        stride = images[0].nbytes
        if (np.diff(rows) == 1).all():
            self._read_at(images, _HEADER_BYTES + int(rows[0]) * stride)
            return images
        order = rows.argsort(kind="stable")
        offsets = (_HEADER_BYTES + rows[order] * stride).tolist()
        if hasattr(os, "posix_fadvise"):  # the disk then reads many at once
            for offset in offsets:
                os.posix_fadvise(self.descriptor, offset, stride, os.POSIX_FADV_WILLNEED)
        for place, offset in zip(order.tolist(), offsets, strict=True):
            self._read_at(images[place], offset)
        return images

    def _read_at(self, target: Images, offset: int) -> None:
        view, done = target.reshape(-1).data, 0
        while done < len(view):
            if hasattr(os, "preadv"):
                count = os.preadv(self.descriptor, [view[done:]], offset + done)
            else:  # Windows
                with self.lock:
                    os.lseek(self.descriptor, offset + done, os.SEEK_SET)
                    part = os.read(self.descriptor, len(view) - done)
                count = len(part)
                view[done : done + count] = part
            if not count:
                _refuse(self.path, "has become shorter")
            done += count


def _read_info(path: Path) -> PackInfo:
    content = _content(path, MAX_INFO_BYTES)
    found = _CHECKSUM.search(content)
    if found is None or found[1] != _info_digest(content, found).encode():
        _refuse(path, "is not as it was written: its SHA-256 is not the one that it names itself")
    try:
        info = PackInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        if place == "format" and isinstance(first["input"], int):
            raise DataError(
                f"{path} has format {first['input']}, which this version of Foveola does not read. Update Foveola, or "
                f"pack the images again."
            ) from None
        _refuse(path, f"cannot be used ({place}: {first['msg']})")
    if "train" not in info.splits:
        _refuse(path, "names no training split")
    if info.image_shape[2] not in (1, 3):
        _refuse(path, f"describes images of {info.image_shape[2]} channels")
    return info


def _info_digest(content: bytes, found: re.Match[bytes]) -> str:
    digest = hashlib.sha256(content[: found.start(1)])
    digest.update(_UNSET.encode())
    digest.update(content[found.end(1) :])
    return digest.hexdigest()


def _content(path: Path, limit: int) -> bytes:
    size = _size(path)
    if size > limit:
        _refuse(path, f"has {size:,} bytes, more than the {limit:,} that it can have")
    return path.read_bytes()


def _size(path: Path) -> int:
    """The size of a file; neither a link, which could lead anywhere, nor a device or pipe."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        _refuse(path, "is missing")
    if not stat.S_ISREG(found.st_mode):
        _refuse(path, "is a link or not a file")
    return found.st_size


def _check_size(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    wanted, size = _HEADER_BYTES + _array_bytes(dtype, shape), _size(path)
    if size != wanted:
        _refuse(path, f"has {size:,} bytes instead of {wanted:,}")
    with path.open("rb") as file:
        if file.read(_HEADER_BYTES) != _header(dtype, shape):
            _refuse(path, f"does not begin as an array of shape {shape} in a packed data set does")


def _read_array(path: Path, dtype: str, shape: tuple[int, ...], sha256: str | None) -> NDArray[Any]:
    content = _content(path, _HEADER_BYTES + _array_bytes(dtype, shape))
    if hashlib.sha256(content).hexdigest() != sha256:
        _refuse(path, f"is not the file that {INFO} names: its SHA-256 differs")
    return np.frombuffer(content, dtype, offset=_HEADER_BYTES).reshape(shape).astype(np.dtype(dtype).newbyteorder("="))


def _array_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    size = np.dtype(dtype).itemsize
    for side in shape:
        size *= side
    return size


def _refuse(path: Path, reason: str) -> NoReturn:
    raise DataError(
        f"{path} {reason}. The packed data set is damaged, incomplete or was altered: copy it again, or pack the "
        f"images again with `foveola pack`."
    )


# Writing


def write(
    folder: Path, dataset: Dataset, *, groups: str | None = None, flush: bool = True, progress: Progress = no_progress
) -> PackInfo:
    """Write a packed data set into an empty folder.

    Parameters
    ----------
    dataset : in memory or lazy; its images are read once, in order
    groups : the pattern by which its images were grouped
    flush : whether to wait until the disk has everything

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    sets = {name: images for name in SPLIT_NAMES if (images := getattr(dataset, name)) is not None}
    count = sum(map(len, sets.values()))
    before = dataset.originals or originals_of(dataset.train)
    info = PackInfo(
        name=re.sub(r"[/\\\x00]", "-", dataset.name)[:255] or "data",
        class_names=list(dataset.class_names),
        image_shape=list(dataset.image_shape),
        splits={
            name: SplitInfo(
                images=len(images),
                fingerprint=_UNSET,
                grouped=images.groups is not None,
                weighted=images.weights is not None,
            )
            for name, images in sets.items()
        },
        files={},
        groups=groups,
        colour=before.colour,
        white_level=before.white_level,
        resize=dataset.resize,
        fill=dataset.fill,
        picture_polarity=dataset.picture_polarity,
        flip_safe=dataset.flip_safe,
        licence=dataset.licence,
        skipped=list(dataset.skipped),
        notes=escape_all_surrogates(list(dataset.notes)),
    )
    described = info.arrays()
    hashes: list[NDArray[np.uint64]] = []
    with (folder / IMAGES).open("wb") as file:
        file.write(_header(*described[IMAGES]))

        def written(images: ImageSet) -> Iterator[Images]:
            for block in blocks(images.images):
                file.write(np.ascontiguousarray(block).data)
                hashes.append(hash_images(block))
                progress(sum(map(len, hashes)), count, "images packed")
                yield block

        fingerprints = {name: content_hash(images, written(images)) for name, images in sets.items()}
        _finish(file, flush)
    arrays = {
        LABELS: np.concatenate([images.labels for images in sets.values()]),
        GROUPS: np.concatenate([_or_zeros(images.groups, images) for images in sets.values()]),
        WEIGHTS: np.concatenate([_or_zeros(images.weights, images) for images in sets.values()]),
        HASHES: np.concatenate(hashes),
        ORIGINALS: np.stack([before.heights, before.widths]),
    }
    sums = {}
    for name, (dtype, shape) in described.items():
        if name != IMAGES:
            content = _header(dtype, shape) + arrays[name].astype(dtype).tobytes()
            sums[name] = hashlib.sha256(content).hexdigest()
            _write_file(folder / name, content, flush)
    splits = {name: split.model_copy(update={"fingerprint": fingerprints[name]}) for name, split in info.splits.items()}
    info = info.model_copy(update={"splits": splits, "files": sums})
    _write_file(folder / INFO, _to_json(info), flush)
    return info


def _or_zeros(values: NDArray[Any] | None, images: ImageSet) -> NDArray[Any]:
    """The values of each image; zeros where a split has none."""
    return np.zeros(len(images), np.int64) if values is None else values


def _header(dtype: str, shape: Sequence[int]) -> bytes:
    """The header of an .npy file, version 1.0, always of the same length and spelt in the same way."""
    sides = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sides}), }}"
    room = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"


def _to_json(info: PackInfo) -> bytes:
    document = info.model_dump(mode="json", exclude={"sha256"}) | {"sha256": _UNSET}
    content = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    found = _CHECKSUM.search(content)
    assert found is not None, "the checksum is the last entry"
    return content[: found.start(1)] + _info_digest(content, found).encode() + content[found.end(1) :]


def _write_file(path: Path, content: bytes, flush: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        _finish(file, flush)


def _finish(file: BinaryIO, flush: bool) -> None:
    file.flush()
    if flush:
        os.fsync(file.fileno())
