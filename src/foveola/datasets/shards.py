"""Image files decoded by several processes into shards, files of some hundred images, so that it can be continued.

A shard is a line of JSON, which describes its images, and their pixels. It is written atomically, so that what is there
is whole, and what is whole is not decoded again.
"""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np

from foveola.datasets.image_files import Decoded, DecodedImage, StoredImage, decode_one, decoding_version, files_state
from foveola.datasets.reader import Decode, ReadOptions
from foveola.errors import DataError, Failure
from foveola.files import write_atomically, writing
from foveola.images import Images
from foveola.inputs.resize import CommonShape
from foveola.progress import no_progress

IMAGES_A_SHARD = 256
_OPEN_SHARDS = 4


def decoder(folder: Path, processes: int) -> Decode:
    """What decodes image files into shards in this folder, for `ReadOptions.decode`.

    Parameters
    ----------
    folder : of shards; those of other files or options are ignored
    processes : how many decode at once

    Raises
    ------
    OutputError
        If the folder cannot be written; what is there already can be continued.
    Failure
        If a process dies.
    """
    return partial(_decode, folder, processes)


def _decode(
    folder: Path, processes: int, paths: Sequence[Path | StoredImage], shape: CommonShape, options: ReadOptions
) -> tuple[Decoded, dict[int, str]]:
    """Decode the files that no shard holds yet; every image, or None where it cannot be used, and the reasons."""
    members = [paths[start : start + IMAGES_A_SHARD] for start in range(0, len(paths), IMAGES_A_SHARD)]
    settings = repr((decoding_version(), shape, options.image_size, options.white_level))
    # Named after what is in them: what has changed since an interruption has another name
    shards = [(folder / f"{files_state(some, settings)[:32]}.shard", some) for some in members]
    _decode_missing([shard for shard in shards if not shard[0].exists()], processes, len(paths), shape, options)
    images: list[DecodedImage | None] = []
    unusable: dict[int, str] = {}
    for path, some in shards:
        entries = _read_entries(path, len(some))
        for entry in entries:
            if isinstance(entry, str):
                unusable[len(images)] = entry
            images.append(None if isinstance(entry, str) else entry)
    return images, unusable


def _decode_missing(
    shards: list[tuple[Path, Sequence[Path | StoredImage]]],
    processes: int,
    total: int,
    shape: CommonShape,
    options: ReadOptions,
) -> None:
    done = total - sum(len(members) for _, members in shards)
    quiet = replace(options, progress=no_progress, decode=None)  # what another process can be sent
    if processes == 1 or len(shards) < 2:
        for path, members in shards:
            _write_shard(path, members, shape, quiet)
            done += len(members)
            options.progress(done, total, "images")
        return
    # Not forked: threads of this process may hold locks
    pool = ProcessPoolExecutor(min(processes, len(shards)), get_context("spawn"), _prepare_process)
    try:
        jobs = {pool.submit(_write_shard, path, members, shape, quiet): len(members) for path, members in shards}
        for job in as_completed(jobs):
            job.result()
            done += jobs[job]
            options.progress(done, total, "images")
    except BrokenProcessPool:
        raise Failure(
            "A process that decodes images has died: it was stopped, memory ran out, or, in a script, foveola.pack is "
            "not called below `if __name__ == '__main__':`, which Python needs to start processes. What is decoded is "
            "kept: do it again to continue."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_process() -> None:
    """Leave interrupts to the process that started this one, and end when that one has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None, "called in processes that were started"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _write_shard(path: Path, members: Sequence[Path | StoredImage], shape: CommonShape, options: ReadOptions) -> None:
    entries: list[object] = []
    pixels: list[bytes] = []
    for member in members:
        image = decode_one(member, shape, options)
        if isinstance(image, str):
            entries.append(image)
            continue
        entries.append([image.pixels.shape, image.size, image.colour, image.on_black, image.peak])
        pixels.append(image.pixels.tobytes())
    content = b"".join(pixels)
    head = json.dumps({"sha256": hashlib.sha256(content).hexdigest(), "images": entries})
    with writing(path, "Make room, and do it again: it goes on where it ended."):
        write_atomically(path, head.encode() + b"\n" + content)


@dataclass(frozen=True, eq=False, slots=True)
class _InShard:
    """A decoded image whose pixels lie in a shard, from this byte on."""

    path: Path
    start: int
    shape: tuple[int, int, int]
    size: tuple[int, int]
    colour: bool
    on_black: bool
    peak: int | None

    @property
    def pixels(self) -> Images:
        """Uint8 H×W×C."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        return np.frombuffer(_pixels(self.path), np.uint8, count, self.start).reshape(self.shape)


def _read_entries(path: Path, count: int) -> list[_InShard | str]:
    """What a shard says of its images: where they are, or why they cannot be used."""
    with path.open("rb") as file:
        try:
            head = json.loads(file.readline())
            entries: list[_InShard | str] = []
            start = 0
            for entry in head["images"]:
                if isinstance(entry, str):
                    entries.append(entry)
                    continue
                (height, width, channels), size, colour, on_black, peak = entry
                entries.append(_InShard(path, start, (height, width, channels), tuple(size), colour, on_black, peak))
                start += height * width * channels
        except (ValueError, KeyError, TypeError):
            raise _damaged(path) from None
    if len(entries) != count:
        raise _damaged(path)
    return entries


@lru_cache(maxsize=_OPEN_SHARDS)
def _pixels(path: Path) -> bytes:
    """The pixels of a shard; images are asked for in order, so that each shard is read once or twice."""
    head, _, content = path.read_bytes().partition(b"\n")
    if json.loads(head)["sha256"] != hashlib.sha256(content).hexdigest():
        raise _damaged(path)
    return content


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}, from a pack that was interrupted, is damaged. Delete {path.parent} and pack again.")
