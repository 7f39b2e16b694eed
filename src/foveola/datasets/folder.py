"""Image folders: root/<class>/*, or root/{train,val,test}/<class>/*."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveola.datasets.entry import Entry
from foveola.datasets.reader import Request, labelled
from foveola.decoding import read_image, resize, to_channels
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".gif"})
DEFAULT_SIZE = 64  # pixels; small images are what Foveola is for
MAX_LISTED = 20

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_NOT_DATA = re.compile(r"\..*|__macosx|thumbs\.db|desktop\.ini|(readme|licen[cs]e)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Item:
    path: Path
    split: str
    label: int


def recognises(path: Path) -> bool:
    return path.is_dir()


def read(path: Path, request: Request, entry: Entry | None = None) -> Dataset:
    """Read an image folder.

    Every folder is a class, in natural order of the names ("2" before "10"), the same in every split. Loose files
    beside the class folders, README, LICENSE and hidden files are no data. Images of other sizes are resized to
    `request.image_size`; without one, they keep their size if they share it and it is at most 64 a side, and become
    64×64 otherwise. Images are grey only if all are.

    Raises
    ------
    DataError
        If a class is empty, missing from a split or nested, or if more than `request.skip_bad` files are unreadable:
        all of them are named.
    """
    splits = _splits(path)
    names = tuple(sorted({folder.name for classes in splits.values() for folder in classes}, key=_natural))
    items = list(_items(splits, names))
    images, offenders = _decode(items, request)
    if len(offenders) > request.skip_bad:
        raise DataError(_offence(offenders, request.skip_bad))
    images = _uniform(images, request.image_size)
    sets = {split: _image_set(path, split, items, images, names) for split in splits}
    return Dataset(
        path.resolve().name,
        sets["train"],
        validation=sets.get("validation"),
        test=sets.get("test"),
        skipped=tuple(str(items[index].path) for index in offenders),
    )


def files(path: Path, class_names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Every file with its split, in the order in which `read` takes them."""
    for item in _items(_splits(path), class_names):
        yield item.split, item.path


def _splits(root: Path) -> dict[str, list[Path]]:
    """The class folders of each split."""
    folders = _folders(root)
    if not folders:
        found = ", ".join(sorted(file.name for file in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{root} has no class folders (found: {found}). Put the images of each class into a folder of its own: "
            f"{root.name}/<class>/<image>. Archives must be unpacked first."
        )
    train = next((folder for folder in folders if folder.name.lower() == "train"), None)
    if train is None or not _folders(train):
        return {"train": folders}
    splits: dict[str, list[Path]] = {}
    for folder in folders:
        split = _SPLITS.get(folder.name.lower())
        if split is None or split in splits:
            raise DataError(
                f"{folder} lies beside {train}, and is no further split. "
                f"Beside train, there may be one of val, valid and validation, and test."
            )
        splits[split] = _folders(folder)
    return splits


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _NOT_DATA.fullmatch(path.name))


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that takes digits as numbers; the name itself breaks ties such as 1 and 01."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name


def _items(splits: dict[str, list[Path]], names: tuple[str, ...]) -> Iterator[_Item]:
    """All files of all classes; every split must have every class."""
    for split, classes in splits.items():
        folders = {folder.name: folder for folder in classes}
        if missing := [name for name in names if name not in folders]:
            raise DataError(
                f"The {split} split has no folder for {', '.join(map(repr, missing))}. Every split must have the same "
                f"classes; add the folder with its images, or remove the class everywhere."
            )
        for label, name in enumerate(names):
            files = sorted(file for file in folders[name].iterdir() if not _NOT_DATA.fullmatch(file.name))
            nested = [file for file in files if file.is_dir()]
            if nested and len(nested) == len(files):
                raise DataError(
                    f"{folders[name]} has no images of its own, but the folder {nested[0].name}. "
                    f"A class folder must hold its images directly; move them up."
                )
            if not files:
                raise DataError(f"{folders[name]} is empty. Add images of this class, or remove the folder.")
            yield from (_Item(file, split, label) for file in files)


def _decode(items: list[_Item], request: Request) -> tuple[list[Images | None], dict[int, str]]:
    """Each image, at most as large as needed, or None with the reason."""
    images: list[Images | None] = []
    offenders: dict[int, str] = {}
    # Threads: Pillow releases the interpreter's lock while it decodes.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        outcomes = pool.map(lambda item: _decode_one(item.path, request.image_size), items)
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, str):
                offenders[index] = outcome
            images.append(None if isinstance(outcome, str) else outcome)
            request.progress(index + 1, len(items), "images")
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    return images, offenders


def _decode_one(path: Path, size: tuple[int, int] | None) -> Images | str:
    if path.is_dir():
        return f"{path} is a folder inside a class folder."
    if path.suffix.lower() not in EXTENSIONS:
        return f"{path} is not named like an image ({', '.join(sorted(EXTENSIONS))})."
    try:
        image = read_image(path)
    except DataError as error:
        return str(error)
    # Resized at once, so that a folder of photographs never fills the memory.
    if size is None and max(image.shape[:2]) > DEFAULT_SIZE:
        size = (DEFAULT_SIZE, DEFAULT_SIZE)
    return resize(image, *size) if size else image


def _offence(offenders: dict[int, str], allowed: int) -> str:
    reasons = list(offenders.values())
    more = f"\n… and {len(reasons) - MAX_LISTED} more" if len(reasons) > MAX_LISTED else ""
    listed = "\n".join(reasons[:MAX_LISTED])
    return (
        f"{len(reasons)} files cannot be used{f' ({allowed} allowed)' if allowed else ''}:\n{listed}{more}\n"
        f"Repair or remove them, or allow up to {len(reasons)} to be left out (--skip-bad {len(reasons)})."
    )


def _uniform(images: list[Images | None], size: tuple[int, int] | None) -> list[Images | None]:
    """All images in one size and with the same channels."""
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
    lost = [name for label, name in enumerate(names) if label not in present]
    if lost:
        raise DataError(
            f"{root}: no image of {', '.join(map(repr, lost))} in the {split} split can be read. Replace them."
        )
    return labelled(
        np.stack([image for image, _ in kept]), np.array([label for _, label in kept]), names, f"{root}, {split}"
    )
