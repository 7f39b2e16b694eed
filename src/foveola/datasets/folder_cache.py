"""Image folders as they were decoded, packed in the cache, and reused while no file has changed.

A folder is unchanged while the names, sizes and times of change (in nanoseconds) of all its files are. What cannot be
kept or read in the cache is decoded from the folder as if there were none. $FOVEOLA_FOLDER_CACHE=0 turns it off.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import PIL

import foveola
from foveola.datasets import folder, packed
from foveola.datasets.download import cache_folder
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError
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
    state = folder_state(path)
    place = cache_folder() / "folders" / f"{_hash(str(path.resolve()), _settings(options))[:20]}-{state[:20]}"
    with suppress(DataError, OSError):
        if packed.recognises(place):
            dataset = packed.Pack.open(place).load(in_memory=True)
            os.utime(place)
            return dataset
    dataset = folder.read(path, options)
    size = sum(split.images.size for split in (dataset.train, dataset.validation, dataset.test) if split is not None)
    # Written through while it was read, the folder would be kept under a wrong state
    if size <= MAX_FOLDER_BYTES and folder_state(path) == state:
        with suppress(OSError):
            _keep(dataset, place, size)
    return dataset


def folder_state(path: Path) -> str:
    """A hash of the names, sizes and times of change of all files below a folder, links followed."""
    digest = hashlib.sha256()
    for line in sorted(_describe(path, "", ())):
        digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _describe(path: Path | str, inside: str, above: tuple[tuple[int, int], ...]) -> list[str]:
    """A line for each file; a link to a folder in which it lies is not followed."""
    own = os.stat(path)  # noqa: PTH116 - a Path for each of many files takes longer than all of the rest
    if (own.st_dev, own.st_ino) in above:
        return []
    lines = []
    with os.scandir(path) as entries:
        for entry in entries:
            name = f"{inside}/{entry.name}"
            try:
                if entry.is_dir():
                    lines += [name, *_describe(entry.path, name, (*above, (own.st_dev, own.st_ino)))]
                else:
                    found = entry.stat()
                    lines.append(f"{name}:{found.st_size}:{found.st_mtime_ns}")
            except OSError as error:  # such as a link that leads nowhere
                lines.append(f"{name}:{error.errno}")
    return lines


def _settings(options: ReadOptions) -> str:
    """What decoded pixels depend on besides the files."""
    chosen = (options.image_size, options.skip_bad, options.groups, options.white_level, options.resize, options.fill)
    return repr((foveola.__version__, PIL.__version__, chosen))


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


def _keep(dataset: Dataset, place: Path, size: int) -> None:
    """Pack a data set into the cache: beside, then renamed, so that other processes find it whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _make_room(place.parent, place.name.partition("-")[0], MAX_BYTES - size)
    beside = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    try:
        packed.write(beside, dataset, flush=False)  # the content is verified when it is read
        beside.rename(place)  # fails if another process has been quicker
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
