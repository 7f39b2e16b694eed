"""Pack: a data set in one file of pixels, decoded once, by several processes; an interrupted pack is gone on with.

What an unfinished pack needs lies in FOLDER/.packing, until the whole data set is moved into the folder:

    lock        held by the process that packs
    shards/     the images decoded so far
    packed/     the data set to be
    whole.json  its files, once all are on the disk: what is left is to move them
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from foveola.datasets import Source, as_source, height_and_width, is_named, packed, read, reader_of, shards
from foveola.datasets.columns import as_columns
from foveola.datasets.packed import UNFINISHED, Pack
from foveola.datasets.reader import ReadOptions
from foveola.datasets.reload import image_paths
from foveola.datasets.series import missing_groups
from foveola.documents import Packed
from foveola.errors import DataError, OutputError
from foveola.files import OPEN_FILES_STAY, check_writable, expanded, flush_folder, lock, move, write_atomically, writing
from foveola.images import Resize
from foveola.models.metadata import Columns
from foveola.progress import Progress, console, show_progress
from foveola.text import escape_surrogates

_LOCK, _SHARDS, _PACKED, _WHOLE = "lock", "shards", "packed", "whole.json"
_CONTINUE = "Make room, and do it again: it goes on where it ended."


def pack(
    data: object,
    out: str | Path | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    resize: Literal["auto"] | Resize = "auto",
    groups: str | None = None,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    skip_bad: int = 0,
    processes: int | None = None,
    force: bool = False,
    verify: bool = False,
    verbose: bool = True,
) -> Packed:
    """Pack a data set into a folder that is read whole, or image by image if it does not fit in memory.

    Training, evaluation and export give the same results as with the original images. An image folder need not fit in
    memory. In a script, call `pack` below `if __name__ == "__main__":`, because it starts processes.

    Parameters
    ----------
    data : catalog name, path, or objects, as for `foveola.load`; images with their labels as (X, y)
    out : the folder to write; packed/<name of the data> by default
    image_size, channels, resize, groups, skip_bad : as for `load`
    columns : of a table, as for `foveola.train`
    processes : number of processes that decode image files; by default one per core
    force : replace a packed data set that is already in `out`, once the new one is whole
    verify : pack nothing; instead compare all images of the packed data set `data` with their checksums
    verbose : report progress on standard error

    Returns
    -------
    What `foveola pack --json` prints.

    Raises
    ------
    UserError
        If the data cannot be used, the folder holds something already, or another process packs into it.
    Failure
        If a process that decodes images dies.

    Examples
    --------
    >>> packed = foveola.pack("digits", "digits-packed", verbose=False)
    >>> packed.splits, packed.image_shape
    ({'train': 1797}, [8, 8, 1])
    >>> foveola.load("digits-packed").fingerprint == foveola.load("digits").fingerprint
    True
    """
    source = as_source(data)
    with show_progress(console(verbose)) as progress:
        if verify:
            return _verify(source, progress)
        options = ReadOptions(
            height_and_width(image_size), skip_bad, progress, groups, resize=None if resize == "auto" else resize,
            columns=as_columns(columns),
        )  # fmt: skip
        target = expanded(out) if out is not None else Path("packed") / _name(source)
        _check_target(source, target, force)
        with _working_folder(target) as work:
            _check_target(source, target, force)  # again, now that nobody else can change it
            options = replace(options, decode=shards.decoder(work / _SHARDS, processes or _cores()))
            dataset = read(source, options, channels)
            series = None
            if dataset.test is None and isinstance(source, str | Path):
                series = missing_groups(dataset, image_paths(source, dataset, options.columns))
            with writing(target, _CONTINUE):
                shutil.rmtree(work / _PACKED, ignore_errors=True)
                (work / _PACKED).mkdir()
                packed.write(work / _PACKED, dataset, groups=groups, progress=progress)
                flush_folder(work / _PACKED)
                write_atomically(work / _WHOLE, json.dumps([path.name for path in (work / _PACKED).iterdir()]))
                _publish(target, work)
    return _describe(target, series)


def _name(data: Source) -> str:
    if not isinstance(data, str | Path):
        return data.name
    if is_named(data):
        return str(data).rpartition("/")[2]
    path = expanded(data).resolve()
    return path.stem if path.is_file() else path.name


def _verify(data: Source, progress: Progress) -> Packed:
    if not isinstance(data, str | Path):
        raise DataError(f"verify reads a packed data set from its folder. Give the folder instead of {data.name}.")
    path = expanded(data)
    if reader_of(path) is not packed:
        raise DataError(f"{path} is not a packed data set: it has no {packed.INFO}. Pack it: foveola pack {path}")
    Pack.open(path).verify(progress)
    return _describe(path, None)


def _describe(path: Path, series: str | None) -> Packed:
    info = Pack.open(path).info
    return Packed(
        path=escape_surrogates(str(path)),
        name=info.name,
        fingerprint=Pack.open(path).load(in_memory=False).fingerprint,
        splits={name: info.splits[name].images for name in packed.SPLIT_NAMES if name in info.splits},
        classes=info.class_names,
        image_shape=info.image_shape,
        bytes=info.bytes,
        in_memory=packed.fits_in_memory(info.bytes),
        skipped=info.skipped,
        groups=info.groups,
        series=series,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# The folder


def _check_target(data: Source, target: Path, force: bool) -> None:
    """Check, without changing anything, that a data set may be packed there."""
    if isinstance(data, str | Path) and not is_named(data):
        source = expanded(data).resolve()
        if source in (target.resolve(), *target.resolve().parents):
            raise OutputError(
                f"{target} lies in {data}, where it would be taken for a class. Choose another with --out."
            )
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file. Choose another folder with --out.")
    check_writable(target)
    found = {path.name for path in target.iterdir()} - {UNFINISHED} if target.is_dir() else set()
    unfinished = (target / UNFINISHED / _WHOLE).exists()
    if others := found.difference(packed.FILES):
        raise OutputError(f"{target} holds files, which are left alone: {min(others)}. Choose another --out.")
    if found and not force and not unfinished:
        raise OutputError(
            f"{target} already holds a packed data set. Choose another --out, or replace it with --force."
        )


@contextmanager
def _working_folder(target: Path) -> Iterator[Path]:
    """The folder of what an unfinished pack needs, held by this process alone; it stays if packing is interrupted."""
    work = target / UNFINISHED
    created = [place for place in (target, *target.absolute().parents) if not place.exists()]
    with writing(target):
        (work / _SHARDS).mkdir(parents=True, exist_ok=True)
        held = lock(work / _LOCK)
    if held is None:
        raise OutputError(f"Another process packs into {target} at this moment. Wait for it, or choose another --out.")
    try:
        if (work / _WHOLE).exists():
            with writing(target, _CONTINUE):
                _publish(target, work)
                (work / _SHARDS).mkdir(parents=True, exist_ok=True)
        for left in (work / _SHARDS).glob(".*.tmp"):
            left.unlink()
        yield work
    finally:
        if OPEN_FILES_STAY:  # the lock would keep its folder there
            os.close(held)
        _remove_unused(work, created)
        if not OPEN_FILES_STAY:
            os.close(held)


def _remove_unused(work: Path, created: list[Path]) -> None:
    """Remove a working folder in which nothing was decoded, and the folders that were made for it."""
    if work.is_dir() and not any((work / _SHARDS).glob("*.shard")):
        shutil.rmtree(work, ignore_errors=True)
    for place in created:
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def _publish(target: Path, work: Path) -> None:
    """Move the whole data set into its folder; goes on with a move that was interrupted."""
    names, whole = json.loads((work / _WHOLE).read_bytes()), work / _PACKED
    if (whole / packed.INFO).exists():
        (target / packed.INFO).unlink(missing_ok=True)  # until the new one, moved last, there is no data set
        for name in sorted(packed.FILES, key=lambda name: name == packed.INFO):
            if (whole / name).exists():
                move(whole / name, target / name)
            elif name not in names:
                (target / name).unlink(missing_ok=True)
    flush_folder(target)
    for name in (_SHARDS, _PACKED):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / _WHOLE).unlink(missing_ok=True)
