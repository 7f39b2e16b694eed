"""Load a data set: by its catalog name, from a path in one of the supported formats, or from Python objects."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from foveola.datasets import cifar, digits, download, folder, folder_cache, idx, npz, objects, packed, table
from foveola.datasets.catalog import CATALOG
from foveola.datasets.columns import columns_of
from foveola.datasets.download import cache_folder, data_folders
from foveola.datasets.entry import Entry
from foveola.datasets.objects import Source as Source
from foveola.datasets.objects import as_source as as_source
from foveola.datasets.reader import Prepare, Reader, ReadOptions, originals_of
from foveola.errors import DataError, unknown
from foveola.files import expanded
from foveola.images import Dataset, Images, ImageSet, Resize
from foveola.inputs.find import is_image
from foveola.inputs.resize import CommonShape, choose_fill, choose_resize, describe_resize, to_channels
from foveola.lazy import Indices, LazyImages, as_images, as_lazy, select
from foveola.progress import Progress, no_progress

__all__ = ["CATALOG", "READERS", "Entry", "Progress", "cache_folder", "load", "locate"]

# The first reader that recognises a path reads it. Any folder could be an image folder, so that reader comes last.
READERS: dict[str, Reader] = {
    "packed": packed, "idx": idx, "npz": npz, "cifar": cifar, "table": table, "folder": folder,
}  # fmt: skip

SUPPORTED = (
    "Supported are a folder with IDX files (train-images-idx3-ubyte and so on, raw or .gz), an .npz file (x_train, "
    "y_train, …), a folder with one subfolder of images per class, a table (.csv, .tsv, .parquet: an image path or "
    "pixels, and a label), a WebDataset (.tar), a folder that `foveola pack` wrote, and these names: "
    + ", ".join(CATALOG)
    + "."
)

# Images without a brighter value are probably of another range, such as 0 to 16
MAX_DARK = 63


def load(
    source: object,
    y: object = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    white_level: int | None = None,
    resize: Literal["auto"] | Resize = "auto",
    fill: int | None = None,
    skip_bad: int = 0,
    groups: str | None = None,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    weight_column: str | None = None,
    label_separator: str | None = None,
    label_names: Sequence[str] = (),
    image_root: str | Path | None = None,
    prepare: Prepare | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set; one given by name is downloaded if it is not on this machine.

    Parameters
    ----------
    source : catalog name as str, or a path; write ./name for a path that is also a catalog name. Or Python objects:
        images with `y`; (images, labels); a dictionary of such pairs with the keys "train", "validation" and "test"; an
        ImageSet or a Dataset; a PyTorch or Hugging Face data set; a data frame. Images are N×H×W or N×H×W×C with C = 1
        (grey) or 3 (RGB): uint8, whole numbers from 0 to 255, floats from 0 to 1, which are scaled to 0 to 255, or
        booleans; or a list of arrays or Pillow images
    y : labels, N, of images given as `source`: whole numbers, or names of classes
    image_size : side, or (height, width), in pixels; images of another size are resized. None keeps the size of the
        data, except that image folders with larger or differing images become 64×64, or a rectangle of their common
        aspect with about as many pixels
    channels : 1 (grey) or 3 (RGB); None: 1 if every image is grey, otherwise 3
    white_level : value that becomes 255 in image files of 16 bits per pixel, such as 4095 for 12 bits; None: the
        largest value of 8, 10, 12, 14 or 16 bits, whichever the training images use
    resize : "stretch" to the size, or "letterbox": keep each image's aspect ratio, and fill the rest; "auto"
        letterboxes if more than 5 % of the images would be stretched by more than a factor of 1.25
    fill : grey level beside letterboxed images, 0 to 255; None: their background, or 0 if they have no common one
    skip_bad : maximum number of unreadable files of an image folder to leave out; `skipped` lists them
    groups : what keeps images of one patient, object or writer together when an image folder is split: "folder" for a
        subfolder below the class, or a regular expression with one capturing group, searched in each file's path from
        its class folder. An .npz file needs none: it may hold the arrays groups_train, groups_val and groups_test
    class_names : names of the classes, if labels are numbers from 0 or 1 on; None: each number is its class's name
    channels_first : True if arrays are N×C×H×W; None: PyTorch tensors of that shape are read so, arrays are refused
    name : name of data given as objects; by default "arrays", or the data set's own name
    image_column, label_column, group_column, split_column, weight_column : what the columns of a table hold; None:
        guessed by names and values, as `notes` of the data set say. Several columns of labels hold zeros and ones, and
        give several labels an image, as lists in one column do
    label_separator : text between several labels in a cell, such as ";"; None: a cell holds one class
    label_names : all labels that lists or texts can name, in this order; empty: those that occur, sorted
    image_root : the folder that a table's paths are relative to and may not leave; None: the table's folder
    prepare : called with the first frame and the name of each image file, instead of resizing; returns pixels, uint8
        H×W×C, of `image_size`. Arrays are not prepared
    progress : called as `progress(done, total, what)` while files are downloaded or decoded

    Returns
    -------
    Dataset of uint8 images, N×H×W×C

    Raises
    ------
    DataError
        If the data does not exist or cannot be used.
    DownloadError
        If a named data set is not on this machine and cannot be downloaded from any source.
    OutputError
        If the cache folder cannot be written.

    Examples
    --------
    >>> data = foveola.load("digits")
    >>> data.train.images.shape, data.train.images.dtype, data.class_names[:2]
    ((1797, 8, 8, 1), dtype('uint8'), ('0', '1'))

    >>> same = foveola.load(data.train.images[..., 0] / 255, data.train.labels)
    >>> same.fingerprint == data.fingerprint
    True
    """
    options = ReadOptions(
        height_and_width(image_size),
        skip_bad,
        progress or no_progress,
        groups,
        white_level,
        None if resize == "auto" else resize,
        fill,
        prepare,
        columns=columns_of({
            "image": image_column, "label": label_column, "group": group_column, "split": split_column,
            "weight": weight_column, "separator": label_separator, "root": image_root,
        }),
        label_names=tuple(label_names),
    )  # fmt: skip
    given = as_source(source, y, class_names=class_names, channels_first=channels_first, name=name)
    return read(given, options, channels)


def read(source: Source, options: ReadOptions, channels: int | None = None) -> Dataset:
    """As `load`, with its options in one object."""
    if channels not in (None, 1, 3):
        raise DataError(f"Images cannot have {channels} channels. Choose 1 (grey) or 3 (RGB).")
    if isinstance(source, Dataset | objects.Objects):
        _refuse_groups(source.name, options)
        if not objects.frame_columns(source):
            _refuse_columns(source.name, options)
        dataset = source if isinstance(source, Dataset) else objects.read(source, options)
        return _convert(_with_note_of_darkness(dataset), options, channels)
    if source == "":
        raise DataError("The name of the data is empty. Give a name or a path; . is this folder.")
    try:
        # A Path is never a catalog name: Path("./mnist") equals Path("mnist").
        if isinstance(source, str) and source in CATALOG:
            _refuse_groups(source, options)
            _refuse_columns(source, options)
            dataset = _load_by_name(CATALOG[source], options)
        elif isinstance(source, str) and source.startswith(table.HUB):
            dataset = table.of_hub(source, options)
        else:
            dataset = _load_from_path(expanded(source), options)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}. Check the path and its permissions.") from error
    return _convert(_with_note_of_darkness(dataset), options, channels)


def _with_note_of_darkness(dataset: Dataset) -> Dataset:
    """The data, with a note if its values are probably of another range, such as 0 to 16, or 0 and 1."""
    images = dataset.train.images
    brightest = 0 if as_lazy(images) is not None or not images.size else int(images.max())
    if not 0 < brightest <= MAX_DARK:
        return dataset
    note = (
        f"No value of the training images is above {brightest}, and 255 is white: all images are dark. If {brightest} "
        f"is white, multiply them by 255{f' / {brightest}' if brightest > 1 else ''}."
    )
    return replace(dataset, notes=tuple(dict.fromkeys((*dataset.notes, note))))


def locate(name: str) -> Path | None:
    """The folder on this machine that holds all files of a named data set, or None.

    $FOVEOLA_DATA/<name> is searched first, then the cache. `digits` has none there: it is part of Foveola.
    """
    if name not in CATALOG:
        raise DataError(unknown("data set", name, CATALOG))
    entry = CATALOG[name]
    folders = [root / name for root in data_folders() for name in dict.fromkeys((entry.name, entry.folder))]
    return next((folder for folder in folders if entry.is_in(folder)), None)


def height_and_width(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1:
        raise DataError(f"Images cannot be {height}×{width} pixels. Choose an image size of at least 1.")
    return height, width


def _load_by_name(entry: Entry, options: ReadOptions) -> Dataset:
    if not entry.files:
        return digits.read()
    folder = locate(entry.name)
    if folder is None:
        folder = download.fetch(entry, cache_folder() / entry.folder, options.progress)
    return READERS[entry.reader].read(folder, options, entry)


def _load_from_path(path: Path, options: ReadOptions) -> Dataset:
    if not path.exists():
        raise DataError(_not_found(path))
    reader = reader_of(path)
    if reader is None:
        raise DataError(f"{path} {_unsupported_reason(path)}. {SUPPORTED}")
    if reader is table:
        return table.read(path, options)
    _refuse_columns(str(path), options)
    if reader is folder:
        return folder_cache.read(path, options)
    if reader is not packed:
        _refuse_groups(str(path), options)
    return reader.read(path, options)


def _not_found(path: Path) -> str:
    bare = len(path.parts) == 1 and not path.suffix
    if (near := _near_path(path, CATALOG if bare else ())) is not None:
        return f"There is no file or folder {path}. Did you mean {near}?"
    if bare:
        return f"{unknown('data set', str(path), CATALOG)} There is no file or folder at that path either."
    hub = len(path.parts) == 2 and not path.is_absolute() and not path.suffix
    return f"There is no file or folder {path}. Check the path" + (
        f"; of a data set of the Hugging Face hub, the name is {table.HUB}{path.as_posix()}." if hub else "."
    )


def _near_path(path: Path, names: Collection[str]) -> Path | None:
    """What lies beside a missing path and is spelt almost like it; None if one of these names is spelt more alike."""
    try:
        beside = {entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")}
    except OSError:  # there is no such folder, or it cannot be read
        return None
    near = difflib.get_close_matches(path.name, sorted({*beside, *names}), n=1, cutoff=0.7)
    return path.with_name(near[0]) if near and near[0] in beside else None


def is_named(source: object) -> bool:
    """Whether a data set is given by its name, of the catalog or of the hub, and not by a path."""
    return isinstance(source, str) and (source in CATALOG or source.startswith(table.HUB))


def reader_of(path: Path) -> Reader | None:
    """The reader of what is at a path; None if it is nothing that is supported."""
    return next((reader for reader in READERS.values() if reader.recognises(path)), None)


def _refuse_groups(source: str, options: ReadOptions) -> None:
    if options.groups is not None:
        raise DataError(
            f"--groups {options.groups!r} reads the groups from file names, and the images of {source} have none. Give "
            f"an image folder; or save an .npz file with groups_train, one number or string for each image. From "
            f"Python, groups may be an array."
        )


def _refuse_columns(source: str, options: ReadOptions) -> None:
    if options.columns.given:
        name = next(iter(options.columns.given))
        option = {"root": "--image-root", "separator": "--label-separator"}.get(name, f"--{name}-column")
        raise DataError(f"{option} is for tables (.csv, .tsv, .parquet, .tar), and {source} is none. Leave it out.")


def _unsupported_reason(path: Path) -> str:
    """What a file is that no reader recognises, and what to give instead."""
    if not path.is_file():
        return "is not a file or folder with data"
    name = path.name.lower()
    if "-ubyte" in name:
        return f"is a single IDX file; give the folder that holds the images and their labels ({path.parent})"
    if name.endswith((".zip", ".tar.gz", ".tgz", ".7z", ".rar")):
        return "is an archive; unpack it and give the folder"
    if name.endswith((".csv.gz", ".tsv.gz")):
        return "is a compressed table; unpack it: gunzip"
    if name.endswith((".json", ".jsonl", ".xlsx", ".feather")):
        return "is a table of another kind; save it as CSV or Parquet"
    if is_image(path):
        return "is a single image; give a folder with one subfolder of images per class"
    return "is in an unsupported format"


def _convert(dataset: Dataset, options: ReadOptions, channels: int | None) -> Dataset:
    """The data in the size and with the channels that were asked for."""
    size = dataset.image_shape[:2]
    shape = CommonShape(*(options.image_size or size), dataset.resize, dataset.fill)
    notes, polarity = dataset.notes, dataset.picture_polarity
    # Image folders are already as they were asked for
    if options.image_size not in (None, size) or options.resize not in (None, dataset.resize):
        kept = dataset.resize if dataset.resize == "letterbox" else None
        chosen = options.resize or kept or choose_resize([size], (shape.height, shape.width))
        shape = replace(shape, resize=chosen)
        if shape.resize == "letterbox":
            fill, polarity = (dataset.fill, polarity) if kept else choose_fill(dataset.train.images)
            shape = replace(shape, fill=fill if options.fill is None else options.fill)
        notes += describe_resize([size] * len(dataset.train), shape, chosen=False)
    unchanged = options.image_size in (None, size)
    return replace(
        dataset,
        originals=dataset.originals or (None if unchanged else originals_of(dataset.train)),
        train=_convert_images(dataset.train, shape, channels),
        validation=dataset.validation and _convert_images(dataset.validation, shape, channels),
        test=dataset.test and _convert_images(dataset.test, shape, channels),
        resize=shape.resize,
        fill=shape.fill,
        picture_polarity=polarity,
        notes=notes,
    )


def _convert_images(images: ImageSet, shape: CommonShape, channels: int | None) -> ImageSet:
    new_shape = (shape.height, shape.width, channels or images.image_shape[2])
    if images.image_shape == new_shape:
        return images
    converted = as_images(LazyImages(_Converted(images.images, shape, new_shape), np.arange(len(images))))
    return replace(images, images=converted if as_lazy(images.images) else converted[:])


class _Converted:
    """Images that are resized and converted when they are read."""

    hashes = None

    def __init__(self, images: Images, shape: CommonShape, image_shape: tuple[int, int, int]) -> None:
        self.images, self.shape, self.image_shape = images, shape, image_shape

    def read(self, rows: Indices) -> Images:
        """The images with these numbers, uint8 N×H×W×C."""
        converted = np.empty((len(rows), *self.image_shape), np.uint8)
        for target, image in zip(converted, select(self.images, rows), strict=True):
            target[:] = self.shape.fit(to_channels(image, self.image_shape[2]))
        return converted
