"""Reader of image folders: root/<class>/*, or root/{train,val,test}/<class>/*."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveola.datasets.entry import Entry
from foveola.datasets.reader import ReadOptions, image_set
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet
from foveola.inputs.decode import read_image
from foveola.inputs.find import EXTENSIONS
from foveola.inputs.resize import resize, to_channels

DEFAULT_SIZE = 64  # pixels a side
MAX_LISTED_FILES = 20

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_NOT_DATA = re.compile(r"\..*|__macosx|thumbs\.db|desktop\.ini|(readme|licen[cs]e)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Item:
    path: Path
    split: str
    label: int


def recognises(path: Path) -> bool:
    return path.is_dir()


def read(path: Path, options: ReadOptions, entry: Entry | None = None) -> Dataset:
    """Read an image folder.

    Every folder is a class; classes are in natural order of their names ("2" before "10"), the same in every split.
    Files beside the class folders, README, LICENSE and hidden files are ignored. Images are resized to
    `options.image_size`. If that is None, they keep their size if all have the same one, of at most 64 pixels a side;
    otherwise they become 64×64. Images are grey only if all of them are.

    Raises
    ------
    DataError
        If a class is empty, nested or missing from a split, or if more than `options.skip_bad` files are unreadable;
        the message lists these files.
    """
    splits = _class_folders(path)
    names = tuple(sorted({folder.name for folders in splits.values() for folder in folders}, key=_natural_key))
    items = list(_items(splits, names))
    images, unreadable = _decode_all(items, options)
    if len(unreadable) > options.skip_bad:
        raise DataError(_unreadable_message(unreadable, options.skip_bad))
    images = _to_common_shape(images, options.image_size)
    sets = {split: _image_set(path, split, items, images, names) for split in splits}
    return Dataset(
        path.resolve().name,
        sets["train"],
        validation=sets.get("validation"),
        test=sets.get("test"),
        skipped=tuple(str(items[index].path) for index in unreadable),
    )


def files(path: Path, class_names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield (split, path) of every file, in the order in which `read` reads them."""
    for item in _items(_class_folders(path), class_names):
        yield item.split, item.path


def _class_folders(root: Path) -> dict[str, list[Path]]:
    """The class folders of each split."""
    folders = _subfolders(root)
    if not folders:
        found = ", ".join(sorted(file.name for file in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{root} has no class folders (found: {found}). Put the images of each class into a separate folder: "
            f"{root.name}/<class>/<image>. Unpack archives first."
        )
    train = next((folder for folder in folders if folder.name.lower() == "train"), None)
    if train is None or not _subfolders(train):
        return {"train": folders}
    splits: dict[str, list[Path]] = {}
    for folder in folders:
        split = _SPLITS.get(folder.name.lower())
        if split is None or split in splits:
            raise DataError(
                f"{folder} is beside {train}, but is not another split. Only one folder called val, valid or "
                f"validation and one called test may be beside train; move or rename it."
            )
        splits[split] = _subfolders(folder)
    return splits


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _NOT_DATA.fullmatch(path.name))


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that compares runs of digits as numbers; the name itself breaks ties such as 1 and 01."""
    runs = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(run), "") if run[0] in "0123456789" else (1, 0, run) for run in runs], name


def _items(splits: dict[str, list[Path]], names: tuple[str, ...]) -> Iterator[_Item]:
    """Yield the files of all classes; every split must have every class."""
    for split, class_folders in splits.items():
        folders = {folder.name: folder for folder in class_folders}
        if missing := [name for name in names if name not in folders]:
            raise DataError(
                f"The {split} split has no folder for {', '.join(map(repr, missing))}. Every split must have the same "
                f"classes. Add the folder with its images, or remove the class from every split."
            )
        for label, name in enumerate(names):
            files = sorted(file for file in folders[name].iterdir() if not _NOT_DATA.fullmatch(file.name))
            nested = [file for file in files if file.is_dir()]
            if nested and len(nested) == len(files):
                raise DataError(
                    f"{folders[name]} holds the folder {nested[0].name} instead of images. "
                    f"A class folder must hold its images directly; move them up."
                )
            if not files:
                raise DataError(f"{folders[name]} is empty. Add images of this class, or remove the folder.")
            yield from (_Item(file, split, label) for file in files)


def _decode_all(items: list[_Item], options: ReadOptions) -> tuple[list[Images | None], dict[int, str]]:
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


def _unreadable_message(unreadable: dict[int, str], allowed: int) -> str:
    reasons = list(unreadable.values())
    more = f"\n… and {len(reasons) - MAX_LISTED_FILES} more" if len(reasons) > MAX_LISTED_FILES else ""
    listed = "\n".join(reasons[:MAX_LISTED_FILES])
    return (
        f"{len(reasons)} files cannot be used{f' ({allowed} allowed)' if allowed else ''}:\n{listed}{more}\n"
        f"Repair or remove them, or leave them out with --skip-bad {len(reasons)}."
    )


def _to_common_shape(images: list[Images | None], size: tuple[int, int] | None) -> list[Images | None]:
    """All images with the same size and channels."""
    sizes = {image.shape[:2] for image in images if image is not None}
    size = size or (sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE))
    channels = max((image.shape[2] for image in images if image is not None), default=1)
    return [None if image is None else to_channels(resize(image, *size), channels) for image in images]


def _image_set(
    root: Path, split: str, items: list[_Item], images: list[Images | None], names: tuple[str, ...]
) -> ImageSet:
    kept = [
        (image, item.label)
        for item, image in zip(items, images, strict=True)
        if item.split == split and image is not None
    ]
    present = {label for _, label in kept}
    missing = [name for label, name in enumerate(names) if label not in present]
    if missing:
        raise DataError(
            f"{root}: no image of {', '.join(map(repr, missing))} in the {split} split can be read. Replace them."
        )
    return image_set(
        np.stack([image for image, _ in kept]), np.array([label for _, label in kept]), names, f"{root}, {split}"
    )
