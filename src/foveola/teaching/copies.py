"""Copies among a project's pictures: the same pixels, or nearly the same, found as a picture arrives.

Two pictures are near copies if, reduced to 16×16 pixels in colour, they differ by no more than `datasets.duplicates`
allows for whole images. Frames of one recording are not compared with each other: they are alike by nature, and a
training keeps them on one side of a split.
"""

import hashlib
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.duplicates import MAX_CONTRAST_FRACTION, MAX_DIFFERENCE
from foveola.files import write_atomically
from foveola.images import Images
from foveola.inputs.resize import is_colour, resize, to_channels
from foveola.teaching.listing import MAX_OPENED, Picture

SIDE = 16

_VALUES = SIDE * SIDE * 3
_MAX_ASPECT_RATIO = 1.05  # between near copies
_BLOCK = 4096  # pictures that are compared at once
# Of the file: key of the picture, hash of its pixels, key of a picture that is nearly the same (empty: none), height
# and width, the reduced copy, and a checksum of all before it
_ROW = np.dtype(
    [
        ("key", "S24"),
        ("pixels", "V16"),
        ("near", "S24"),
        ("size", "<u4", 2),
        ("small", "u1", _VALUES),
        ("checksum", "<u4"),
    ]
)
_CHECKED_BYTES = _ROW.itemsize - 4
_MAX_STALE_ROWS = 2_000
_MAX_BYTES = 2 * MAX_OPENED * _ROW.itemsize


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is compared of a picture: hash of its pixels, height and width, reduced copy."""

    pixels: bytes
    size: tuple[int, int]
    small: NDArray[np.uint8]


def fingerprint(pixels: Images) -> Fingerprint:
    """The fingerprint of an image, uint8 H×W×C; the same for a grey image that was saved in colour."""
    plain = pixels[..., :1] if pixels.shape[2] == 3 and not is_colour(pixels) else pixels
    digest = hashlib.blake2b(repr(plain.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(plain).data)
    small = to_channels(resize(pixels, SIDE, SIDE), 3).reshape(-1)
    return Fingerprint(digest.digest(), (pixels.shape[0], pixels.shape[1]), small)


class Copies:
    """Fingerprints of a project's pictures, kept in a file. Safe for use by several threads.

    Parameters
    ----------
    path : of the file; it can be removed at any time
    find : the picture with a key; None if it is gone
    """

    def __init__(self, path: Path, find: Callable[[str], Picture | None]) -> None:
        self._path = path
        self._find = find
        self._lock = threading.Lock()
        rows = _read(path)
        kept = np.array([find(key.decode()) is not None for key in rows["key"].tolist()], bool)
        if len(rows) - kept.sum() > _MAX_STALE_ROWS:
            rows = rows[kept]
            with suppress(OSError):
                write_atomically(path, rows.tobytes())
        self._count = len(rows)
        self._rows = rows
        self._coarse = _coarse(rows["small"])
        self._numbers = {key.decode(): number for number, key in enumerate(rows["key"].tolist())}
        self._same: dict[bytes, list[str]] = {}
        for key, pixels in zip(rows["key"].tolist(), rows["pixels"].tolist(), strict=True):
            self._same.setdefault(bytes(pixels), []).append(key.decode())

    def knows(self, picture: Picture) -> bool:
        """Whether a picture has been added."""
        return picture.key in self._numbers

    def same(self, found: Fingerprint) -> Picture | None:
        """A picture with the same pixels; None if there is none."""
        pictures = map(self._find, self._same.get(found.pixels, ()))
        return next((picture for picture in pictures if picture is not None), None)

    def near(self, picture: Picture) -> Picture | None:
        """The picture that was nearly the same when a picture was added; None if there was none, or it is gone."""
        number = self._numbers.get(picture.key)
        return None if number is None else self._find(self._rows["near"][number].decode())

    def add(self, picture: Picture, found: Fingerprint) -> Picture | None:
        """Add a picture; the picture that is nearly the same, None if there is none."""
        with self._lock:
            near = self._nearest(picture, found)
            row = np.zeros((), _ROW)
            row["key"], row["pixels"] = picture.key.encode(), np.void(found.pixels)
            row["near"] = b"" if near is None else near.key.encode()
            row["size"], row["small"] = found.size, found.small
            row["checksum"] = zlib.crc32(row.tobytes()[:_CHECKED_BYTES])
            if self._count == len(self._rows):
                self._grow()
            self._rows[self._count] = row
            self._coarse[self._count] = _coarse(found.small[None])[0]
            self._same.setdefault(found.pixels, []).append(picture.key)
            self._numbers[picture.key] = self._count
            self._count += 1
            with suppress(OSError), self._path.open("ab") as file:  # not flushed: it can be made again
                file.write(row.tobytes())
        return near

    def _grow(self) -> None:
        size = max(2 * len(self._rows), 64)
        rows, coarse = np.zeros(size, _ROW), np.zeros((size, self._coarse.shape[1]), np.float32)
        rows[: self._count], coarse[: self._count] = self._rows[: self._count], self._coarse[: self._count]
        self._rows, self._coarse = rows, coarse

    def _nearest(self, picture: Picture, found: Fingerprint) -> Picture | None:
        """The nearest copy that is still there, and no frame of the same recording."""
        values = found.small.astype(np.int16)
        # Means of squares of pixels cannot differ more than the pixels do
        gaps = self._coarse[: self._count] - _coarse(found.small[None])
        numbers = np.flatnonzero(np.square(gaps).mean(axis=1) <= (MAX_DIFFERENCE + 1e-3) ** 2)
        differences = np.full(len(numbers), np.inf, np.float32)
        for start in range(0, len(numbers), _BLOCK):
            some = self._rows[numbers[start : start + _BLOCK]]
            difference = np.sqrt(np.square(some["small"] - values, dtype=np.float32).mean(axis=1))
            contrast = np.minimum(some["small"].std(axis=1, dtype=np.float32), found.small.std(dtype=np.float32))
            limit = np.minimum(MAX_DIFFERENCE, MAX_CONTRAST_FRACTION * contrast)
            ratio = _aspect(some["size"]) / _aspect(np.array([found.size]))
            alike = (difference <= limit) & (np.maximum(ratio, 1 / ratio) <= _MAX_ASPECT_RATIO)
            differences[start : start + _BLOCK] = np.where(alike, difference, np.inf)
        for place in np.argsort(differences, kind="stable"):
            if not np.isfinite(differences[place]):
                break
            other = self._find(self._rows["key"][numbers[place]].decode())
            recorded = other is not None and other.recording is not None and other.recording == picture.recording
            if other is not None and other.id != picture.id and not recorded:
                return other
        return None


def _coarse(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduced copies, N×768, reduced further, N×48."""
    squares = small.reshape(-1, 4, SIDE // 4, 4, SIDE // 4, 3)
    means: NDArray[np.float32] = squares.mean(axis=(2, 4), dtype=np.float32).reshape(len(small), 4 * 4 * 3)
    return means


def _aspect(sizes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Height by width, N, of sizes, N×2."""
    aspects: NDArray[np.float64] = sizes[:, 0] / sizes[:, 1]
    return aspects


def _read(path: Path) -> NDArray[np.void]:
    """The rows of a file that are whole."""
    try:
        content = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    except OSError:
        return np.zeros(0, _ROW)
    rows = np.frombuffer(content[: len(content) // _ROW.itemsize * _ROW.itemsize], _ROW)
    sound = [zlib.crc32(row.tobytes()[:_CHECKED_BYTES]) == row["checksum"] and row["size"].all() for row in rows]
    whole: NDArray[np.void] = rows[np.array(sound, bool)].copy()
    return whole
