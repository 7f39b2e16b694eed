"""Reader of image folders: root/<class>/*, or root/{train,val,test}/<class>/*."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.entry import Entry
from foveola.datasets.image_files import ImageFiles, decode_files
from foveola.datasets.layout import Item, Layout, find
from foveola.datasets.reader import ReadOptions, image_set
from foveola.datasets.series import compile_groups, group_name
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet
from foveola.inputs.find import is_image
from foveola.lazy import LazyImages, as_images

MAX_LISTED_FILES = 20


def recognises(path: Path) -> bool:
    return path.is_dir()


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read an image folder.

    Every folder is a class; classes are in natural order of their names ("2" before "10"), the same in every split.
    README, LICENSE and hidden files are ignored, as are thumbnails of network storage. Images are resized to
    `options.image_size`. If that is None, they keep their size if all have the same one, of at most 64 pixels a side;
    otherwise they get about as many pixels as 64×64, in a square or in their common aspect. Images are letterboxed if
    that would stretch many of them. They are grey only if all of them are. In files of 16 bits per pixel, white is the
    largest value of 8, 10, 12, 14 or 16 bits, whichever the training images use.

    Raises
    ------
    DataError
        If a class is empty, nested or missing from a split, if `options.groups` does not fit the files, or if more
        than `options.skip_bad` files are unusable; the message lists these files.
    """
    layout, items = find_items(path, options.groups)
    names = layout.class_names
    groups = _groups(items, options.groups)
    decoded = decode_files([item.path for item in items], [item.split == "train" for item in items], options)
    unusable = decoded.unusable
    stray = [f"{image} lies beside the class folders, so that it has no label." for image in layout.stray]
    reasons = [*stray, *unusable.values()]
    if len(reasons) > options.skip_bad:
        raise DataError(unusable_message(reasons, options.skip_bad, removable=not _emptied(layout, items, unusable)))
    if emptied := _emptied(layout, items, unusable):
        raise DataError(f"{path}: no image of {emptied} can be read. Replace them.")
    lazy = options.decode is not None
    sets = {split: _image_set(path, split, items, decoded, groups, names, lazy=lazy) for split in layout.splits}
    return Dataset(
        path.resolve().name,
        sets["train"],
        validation=sets.get("validation"),
        test=sets.get("test"),
        skipped=(*map(str, layout.stray), *(str(items[index].path) for index in unusable)),
        originals=decoded.originals,
        resize=decoded.shape.resize,
        fill=decoded.shape.fill,
        picture_polarity=decoded.polarity,
        notes=decoded.notes,
    )


def find_items(path: Path, groups: str | None) -> tuple[Layout, list[Item]]:
    """The layout of a folder, and its files in the order in which `read` reads them.

    Raises
    ------
    DataError
        If a class is empty, nested or missing from a split.
    """
    nested = groups is not None
    layout = find(path, nested=nested)
    return layout, list(layout.items(layout.class_names, nested=nested))


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


def _emptied(layout: Layout, items: list[Item], unusable: dict[int, str]) -> str:
    """The classes and splits of which no image can be used."""
    all_classes = {(item.split, item.label) for item in items}
    left = {(item.split, item.label) for index, item in enumerate(items) if index not in unusable}
    names = layout.class_names
    return ", ".join(f"{names[label]!r} in the {split} split" for split, label in sorted(all_classes - left))


def unusable_message(reasons: list[str], allowed: int, *, removable: bool) -> str:
    """The unusable files, and what to do; `removable`: every class has images without them."""
    more = f"\n… and {len(reasons) - MAX_LISTED_FILES} more" if len(reasons) > MAX_LISTED_FILES else ""
    listed = "\n".join(reasons[:MAX_LISTED_FILES])
    count, them = ("1 file", "it") if len(reasons) == 1 else (f"{len(reasons)} files", "them")
    cure = f", or leave {them} out with --skip-bad {len(reasons)}" if removable else ""
    return (
        f"{count} cannot be used{f' ({allowed} allowed)' if allowed else ''}:\n{listed}{more}\n"
        f"Repair or remove {them}{cure}."
    )


def _image_set(
    root: Path,
    split: str,
    items: list[Item],
    decoded: ImageFiles,
    groups: NDArray[np.int64] | None,
    names: tuple[str, ...],
    *,
    lazy: bool,
) -> ImageSet:
    rows = [index for index, item in enumerate(items) if item.split == split and index not in decoded.unusable]
    labels = np.array([items[index].label for index in rows], np.int64)
    images = as_images(LazyImages(decoded.images, np.array(rows)))
    where, own_groups = f"{root}, {split}", None if groups is None else groups[rows]
    return image_set(images if lazy else images[:], labels, names, where, own_groups)
