"""Data sets: a name of the catalog, or a path in one of the formats of the readers' table."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs

from foveola.datasets import cifar, digits, download, folder, idx, npz
from foveola.datasets.catalog import CATALOG
from foveola.datasets.entry import Entry
from foveola.datasets.reader import Progress, Reader, Request, silent
from foveola.decoding import resize, to_channels
from foveola.errors import DataError, unknown
from foveola.images import Dataset, ImageSet

__all__ = ["CATALOG", "READERS", "Entry", "Progress", "cache_folder", "load", "locate"]

# The first that recognises a path reads it. An image folder has no marks of its own, so it comes last.
READERS: dict[str, Reader] = {"idx": idx, "npz": npz, "cifar": cifar, "folder": folder}

ACCEPTED = (
    "Accepted are a folder with IDX files (train-images-idx3-ubyte and so on, raw or .gz), an .npz file (x_train, "
    "y_train, …), a folder with one folder of images for each class, and these names: " + ", ".join(CATALOG) + "."
)


def load(
    source: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    skip_bad: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set, downloading it if it has a name and lies nowhere on this machine.

    Parameters
    ----------
    source : a name of the catalog, as str, or a path; for a path that is called like a name, write ./name
    image_size : side, or (height, width), in pixels; images of another size are resized. None keeps the size of the
        data; image folders with larger or differing sizes become 64×64
    channels : 1 (grey) or 3 (RGB); None: 1 if every image is grey, otherwise 3
    skip_bad : how many unreadable files of an image folder to leave out; they are named in `skipped`
    progress : called as `progress(done, total, what)` while files arrive or are decoded

    Returns
    -------
    Dataset of uint8 images, N×H×W×C

    Raises
    ------
    DataError
        If there is no such data, or it cannot be used.
    DownloadError
        If a named data set is not on this machine and no source delivers it.
    OutputError
        If the cache folder cannot be written.
    """
    request = Request(_size(image_size), skip_bad, progress or silent)
    if channels not in (None, 1, 3):
        raise DataError(f"Images cannot have {channels} channels; choose 1 (grey) or 3 (RGB).")
    try:
        # A Path is always a path: Path("./mnist") has lost its "./" already.
        if isinstance(source, str) and source in CATALOG:
            dataset = _by_name(CATALOG[source], request)
        else:
            dataset = _by_path(Path(source), request)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}. Check the path and its permissions.") from error
    return replace(
        dataset,
        train=_fit(dataset.train, request.image_size, channels),
        validation=dataset.validation and _fit(dataset.validation, request.image_size, channels),
        test=dataset.test and _fit(dataset.test, request.image_size, channels),
    )


def locate(name: str) -> Path | None:
    """The folder on this machine that has all files of a named data set, or None.

    Looked at in turn: $FOVEOLA_DATA/<name>, then the cache. `digits` has no files: it comes inside scikit-learn.
    """
    if name not in CATALOG:
        raise DataError(unknown("data set", name, CATALOG))
    entry = CATALOG[name]
    places = [root / part for root in _roots() for part in dict.fromkeys((entry.name, entry.folder))]
    return next((place for place in places if entry.lies_in(place)), None)


def cache_folder() -> Path:
    """Where downloads go: $FOVEOLA_CACHE, or the user's cache by the rules of the system."""
    given = os.environ.get("FOVEOLA_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("foveola")


def _roots() -> list[Path]:
    given = os.environ.get("FOVEOLA_DATA")
    return [*([Path(given).expanduser()] if given else []), cache_folder()]


def _size(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1:
        raise DataError(f"Images cannot be {height}×{width} pixels; give an image size of at least 1.")
    return height, width


def _by_name(entry: Entry, request: Request) -> Dataset:
    if not entry.files:
        return digits.read()
    place = locate(entry.name)
    if place is None:
        place = download.fetch(entry, cache_folder() / entry.folder, request.progress)
    return READERS[entry.reader].read(place, request, entry)


def _by_path(path: Path, request: Request) -> Dataset:
    if not path.exists():
        raise DataError(f"{unknown('data set', str(path), CATALOG)} There is no file or folder of that path either.")
    for reader in READERS.values():
        if reader.recognises(path):
            return reader.read(path, request)
    raise DataError(f"{path} {_kind(path)}. {ACCEPTED}")


def _kind(path: Path) -> str:
    """What a file is that no reader takes, and what to do about it."""
    name = path.name.lower()
    if "-ubyte" in name:
        return f"is a single IDX file; give the folder that has the images and their labels ({path.parent})"
    if name.endswith((".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")):
        return "is an archive; unpack it, and give the folder"
    if name.endswith((".csv", ".tsv", ".parquet", ".json")):
        return "is a table; save its images as an .npz file, or as an image folder"
    if path.suffix.lower() in folder.EXTENSIONS:
        return "is a single image; give a folder with one folder of images for each class"
    return "is a file of a format that is not read"


def _fit(images: ImageSet, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    height, width = size or images.image_shape[:2]
    wanted = (height, width, channels or images.image_shape[2])
    if images.image_shape == wanted:
        return images
    fitted = np.empty((len(images), *wanted), np.uint8)
    for index, image in enumerate(images.images):
        fitted[index] = resize(to_channels(image, wanted[2]), height, width)
    return ImageSet(fitted, images.labels, images.class_names)
