"""Reader of image folders: root/<class>/*, or root/{train,val,test}/<class>/*."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.entry import Entry
from foveola.datasets.layout import Item, Layout, find
from foveola.datasets.reader import ReadOptions, image_set
from foveola.datasets.series import compile_groups, group_name
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet
from foveola.inputs.decode import read_image
from foveola.inputs.find import EXTENSIONS, is_image
from foveola.inputs.resize import resize, to_channels

DEFAULT_SIZE = 64  # pixels a side
MAX_LISTED_FILES = 20


def recognises(path: Path) -> bool:
    return path.is_dir()


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read an image folder.

    Every folder is a class; classes are in natural order of their names ("2" before "10"), the same in every split.
    README, LICENSE and hidden files are ignored, as are thumbnails of network storage. Images are resized to
    `options.image_size`. If that is None, they keep their size if all have the same one, of at most 64 pixels a side;
    otherwise they become 64×64. Images are grey only if all of them are.

    Raises
    ------
    DataError
        If a class is empty, nested or missing from a split, if `options.groups` does not fit the files, or if more
        than `options.skip_bad` files are unusable; the message lists these files.
    """
    nested = options.groups is not None
    layout = find(path, nested=nested)
    names = layout.class_names
    items = list(layout.items(names, nested=nested))
    groups = _groups(items, options.groups)
    images, unreadable = _decode_all(items, options)
    stray = [f"{image} lies beside the class folders, so that it has no label." for image in layout.stray]
    reasons = [*stray, *unreadable.values()]
    if len(reasons) > options.skip_bad:
        raise DataError(_unusable_message(reasons, options.skip_bad, removable=not _emptied(layout, items, unreadable)))
    if emptied := _emptied(layout, items, unreadable):
        raise DataError(f"{path}: no image of {emptied} can be read. Replace them.")
    images = _to_common_shape(images, options.image_size)
    sets = {split: _image_set(path, split, items, images, groups, names) for split in layout.splits}
    return Dataset(
        path.resolve().name,
        sets["train"],
        validation=sets.get("validation"),
        test=sets.get("test"),
        skipped=(*map(str, layout.stray), *(str(items[index].path) for index in unreadable)),
    )


def files(path: Path, class_names: tuple[str, ...], *, nested: bool) -> Iterator[tuple[str, Path]]:
    """Yield (split, path) of every file, in the order in which `read` reads them; `nested`: with groups."""
    for item in find(path, nested=nested).items(class_names, nested=nested):
        yield item.split, item.path


def _groups(items: list[Item], groups: str | None) -> NDArray[np.int64] | None:
    """The number of each image's group, the same in all splits and classes."""
    if groups is None:
        return None
    pattern = compile_groups(groups)
    names = [group_name(pattern, item.name, str(item.path)) if is_image(item.path) else "" for item in items]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _decode_all(items: list[Item], options: ReadOptions) -> tuple[list[Images | None], dict[int, str]]:
    """Every image, or None where it cannot be used, and the reasons by index."""
    images: list[Images | None] = []
    unreadable: dict[int, str] = {}
    # Threads suffice: Pillow releases the interpreter lock while it decodes.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        results = pool.map(lambda item: _decode_one(item.path, options.image_size), items)
        for index, image_or_reason in enumerate(results):
            if isinstance(image_or_reason, str):
                unreadable[index] = image_or_reason
            images.append(None if isinstance(image_or_reason, str) else image_or_reason)
            options.progress(index + 1, len(items), "images")
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, do not decode the rest
    return images, unreadable


def _decode_one(path: Path, size: tuple[int, int] | None) -> Images | str:
    """The image, or why it cannot be used."""
    if path.is_dir():
        return f"{path} is a folder inside a class folder."
    if path.suffix.lower() not in EXTENSIONS:
        return f"{path} does not have the file extension of an image ({', '.join(sorted(EXTENSIONS))})."
    try:
        image = read_image(path)
    except DataError as error:
        return str(error)
    # Resized immediately: a folder of full-size photographs would not fit in memory.
    if size is None and max(image.shape[:2]) > DEFAULT_SIZE:
        size = (DEFAULT_SIZE, DEFAULT_SIZE)
    return resize(image, *size) if size else image


def _emptied(layout: Layout, items: list[Item], unreadable: dict[int, str]) -> str:
    """The classes and splits of which no image can be used."""
    all_classes = {(item.split, item.label) for item in items}
    left = {(item.split, item.label) for index, item in enumerate(items) if index not in unreadable}
    names = layout.class_names
    return ", ".join(f"{names[label]!r} in the {split} split" for split, label in sorted(all_classes - left))


def _unusable_message(reasons: list[str], allowed: int, *, removable: bool) -> str:
    """The unusable files, and what to do; `removable`: every class has images without them."""
    more = f"\n… and {len(reasons) - MAX_LISTED_FILES} more" if len(reasons) > MAX_LISTED_FILES else ""
    listed = "\n".join(reasons[:MAX_LISTED_FILES])
    count, them = ("1 file", "it") if len(reasons) == 1 else (f"{len(reasons)} files", "them")
    cure = f", or leave {them} out with --skip-bad {len(reasons)}" if removable else ""
    return (
        f"{count} cannot be used{f' ({allowed} allowed)' if allowed else ''}:\n{listed}{more}\n"
        f"Repair or remove {them}{cure}."
    )


def _to_common_shape(images: list[Images | None], size: tuple[int, int] | None) -> list[Images | None]:
    """All images with the same size and channels."""
    sizes = {image.shape[:2] for image in images if image is not None}
    size = size or (sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE))
    channels = max((image.shape[2] for image in images if image is not None), default=1)
    return [None if image is None else to_channels(resize(image, *size), channels) for image in images]


def _image_set(
    root: Path,
    split: str,
    items: list[Item],
    images: list[Images | None],
    groups: NDArray[np.int64] | None,
    names: tuple[str, ...],
) -> ImageSet:
    kept = [index for index, item in enumerate(items) if item.split == split and images[index] is not None]
    labels = np.array([items[index].label for index in kept], np.int64)
    pixels = np.stack([image for index in kept if (image := images[index]) is not None])
    return image_set(pixels, labels, names, f"{root}, {split}", None if groups is None else groups[kept])
