"""Image folders as they were decoded, packed in the cache, and reused while no file has changed.

A folder is unchanged while the names, sizes and times of change (in nanoseconds) of all its files are. What cannot be
kept or read in the cache is decoded from the folder as if there were none. $FOVEOLA_FOLDER_CACHE=0 turns it off.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from foveola.datasets import folder, layout, packed, series
from foveola.datasets.download import cache_folder
from foveola.datasets.image_files import decoding_version, files_state
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError
from foveola.files import move
from foveola.images import Dataset

SWITCH = "FOVEOLA_FOLDER_CACHE"
MAX_BYTES = 5 * 2**30
"""Of all packed folders together; those that have not been used for longest are removed."""
MAX_FOLDER_BYTES = 2**31

_ABANDONED_SECONDS = 24 * 3600


def read(path: Path, options: ReadOptions) -> Dataset:
    """As `folder.read`; a folder that has been read before with the same options comes from the cache.

    Raises
    ------
    DataError
        As of `folder.read`; faults are not kept.
    """
    if options.prepare or options.decode or os.environ.get(SWITCH) == "0":
        return folder.read(path, options)
    state = _state(path, options)
    # As given, too: `skipped` names files by the path that was given
    key = _hash(str(path), str(path.resolve()), repr((options.image_size, options.resize, options.groups)))
    place = cache_folder() / "folders" / f"{key[:20]}-{state[:20]}"
    with suppress(DataError, OSError):
        if packed.recognises(place):
            dataset = packed.Pack.open(place).load(in_memory=True)
            os.utime(place)
            return dataset
    dataset = folder.read(path, options)
    size = sum(split.images.size for split in (dataset.train, dataset.validation, dataset.test) if split is not None)
    # A folder that was written to while it was read, and a name that cannot be packed as it is, are not kept
    if size <= MAX_FOLDER_BYTES and "\\" not in dataset.name:
        with suppress(DataError, OSError):
            if _state(path, options) == state:
                _keep(dataset, place, size)
    return dataset


def _state(path: Path, options: ReadOptions) -> str:
    """A hash of everything that `folder.read` gives depends on."""
    layout, items = folder.find_items(path, options.groups)
    chosen = (options.image_size, options.skip_bad, options.groups, options.white_level, options.resize, options.fill)
    settings = repr((decoding_version(), _reading_version(), chosen, layout.class_names))
    return files_state((*layout.stray, *(item.path for item in items)), settings)


@cache
def _reading_version() -> str:
    """Changes with the modules that decide which files are read as what."""
    return _hash(*(Path(str(module.__file__)).read_text("utf-8") for module in (folder, layout, series)))


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


def _keep(dataset: Dataset, place: Path, size: int) -> None:
    """Pack a data set into the cache: beside, then renamed, so that other processes find it whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _make_room(place.parent, place.name.partition("-")[0], MAX_BYTES - size)
    beside = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    try:
        packed.write(beside, dataset, flush=False)  # the content is verified when it is read
        move(beside, place)  # fails if another process has been quicker
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _make_room(root: Path, superseded: str, room: int) -> None:
    """Remove what an earlier state of the same folder left, what processes that died left, and the least used."""
    used: list[tuple[int, int, Path]] = []
    for path in root.iterdir():
        with suppress(OSError):
            found = path.stat()
            if path.name.startswith("."):
                if found.st_mtime < _now(root) - _ABANDONED_SECONDS:
                    _remove(path)
            elif path.name.startswith(f"{superseded}-"):
                _remove(path)
            else:
                used.append((found.st_mtime_ns, sum(file.stat().st_size for file in path.iterdir()), path))
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
        if total <= room:
            return
        _remove(path)
        total -= size


def _now(root: Path) -> float:
    """The time by the clock that dates the cache's files, which may be another machine's."""
    with tempfile.TemporaryFile(dir=root) as file:
        return os.fstat(file.fileno()).st_mtime


def _remove(path: Path) -> None:
    """Remove an entry of the cache; only what a packed data set holds."""
    for name in packed.FILES:
        with suppress(OSError):
            (path / name).unlink(missing_ok=True)
    with suppress(OSError):
        path.rmdir()
