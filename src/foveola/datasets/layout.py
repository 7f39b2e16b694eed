"""Layout of an image folder: its splits, classes, groups and files, by their names only.

root/<class>/*, or root/<split>/<class>/*; with groups, files may lie deeper. A single folder around all of it is passed
through, and what operating systems and network storage put beside the data is ignored.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from foveola.datasets.reader import natural_key
from foveola.errors import DataError
from foveola.files import in_order
from foveola.inputs.find import is_image, is_junk
from foveola.text import class_name

SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "validating", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout", "heldout"),
}
MAX_DEPTH = 8  # of single folders around the data

# Beside the split's word in names such as train_set, seg_test, train-images and val2017
_FILLER = "(?:set|data|dataset|images?|imgs?|pictures?|photos?|pics|files|folder|split|subset|seg|raw|original|resized)"
_SPLITS = {split: re.compile(f"{_FILLER}*(?:{'|'.join(words)}){_FILLER}*") for split, words in SPLIT_NAMES.items()}
_FIRST_WORD = re.compile(r"[^\W\d_]{2,}(?=[-_. ]?\d)")
_TEXT = re.compile(r"(readme|licen[cs]e|copying)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A file of an image folder; `name` is its path from the class folder."""

    path: Path
    split: str
    label: int
    name: str


@dataclass(frozen=True)
class Layout:
    """Splits and classes of an image folder: split → class name → its folders (several if spelt in several ways)."""

    splits: dict[str, dict[str, list[Path]]]
    stray: list[Path]  # images beside the class folders

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes in natural order: "2" before "10"."""
        return tuple(sorted(set(chain.from_iterable(self.splits.values())), key=natural_key))

    def items(self, class_names: tuple[str, ...], *, nested: bool) -> Iterator[Item]:
        """Yield the files of all classes in a fixed order; with `nested`, those in subfolders of a class too.

        Raises
        ------
        DataError
            If a class is empty or missing from a split, or holds folders instead of images without `nested`.
        """
        for split, folders in self.splits.items():
            if missing := [name for name in class_names if name not in folders]:
                raise DataError(
                    f"The {split} split has no folder for {', '.join(map(repr, missing))}. Every split must have the "
                    f"same classes. Add the folder with its images, or remove the class from every split."
                )
            for label, name in enumerate(class_names):
                files = [(file, folder) for folder in folders[name] for file in _files(folder, nested=nested)]
                if not files:
                    raise DataError(
                        f"{_shown(folders[name])} is empty. Add images of this class, or remove the folder."
                    )
                for file, folder in files:
                    inner = unicodedata.normalize("NFC", file.relative_to(folder).as_posix())
                    yield Item(file, split, label, inner)


def find(root: Path, *, nested: bool = False) -> Layout:
    """The splits and classes below a folder.

    Parameters
    ----------
    nested : whether class folders may hold folders

    Raises
    ------
    DataError
        If there are no class folders, or splits without them, or folders whose meaning is unclear.
    """
    inner = _innermost(root, nested)
    folders = _subfolders(inner)
    if not folders:
        raise DataError(_no_classes(inner))
    splits = {folder: split for folder in folders if (split := split_of(folder.name))}
    if not _is_divided(inner, folders, splits):
        return Layout({"train": _by_name(folders)}, _image_files(inner))
    classes, stray = {}, _image_files(inner)
    for split, folder in _split_folders(folders, splits).items():
        inner = _innermost(folder, nested)
        below = _subfolders(inner)
        if not below or all(split_of(one.name) and _is_flat(one) for one in below):
            raise DataError(_split_without_classes(below[0] if below else inner, split))
        classes[split] = _by_name(below)
        stray += _image_files(inner)
    return Layout(classes, stray)


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for, such as "test" for test1, testing, seg_test or Test-Images."""
    letters = "".join(re.findall(r"[^\W\d_]+", name.casefold()))
    return next((split for split, words in _SPLITS.items() if words.fullmatch(letters)), None)


def _is_divided(root: Path, folders: list[Path], splits: dict[Path, str]) -> bool:
    """Whether the folders are splits, not classes; a class may be called train, beside bus and car."""
    flat = [folder for folder in splits if _is_flat(folder)]
    names = set(splits.values())
    if "train" in names and any(_subfolders(folder) for folder, split in splits.items() if split == "train"):
        return True
    if len(flat) == len(folders) or (len(names) > 1 and "train" in names and flat):
        raise DataError(_splits_without_classes(root, flat))
    if len(splits) == len(folders):
        listed = " and ".join(sorted(folder.name for folder in folders))
        raise DataError(f"{root} holds {listed}, but no training split. Name the folder with training images train.")
    return False


def _split_folders(folders: list[Path], splits: dict[Path, str]) -> dict[str, Path]:
    """The folder of each split."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder not in splits:
            if _holds_images(folder):
                listed = ", ".join(sorted(split.name for split in splits))
                raise DataError(
                    f"{folder} holds images beside the splits ({listed}), but its name is not that of a split. If it "
                    f"is one, call it validation or test; otherwise move it elsewhere."
                )
        elif splits[folder] in found:
            raise DataError(
                f"{found[splits[folder]]} and {folder} are both {splits[folder]} splits by their names. "
                f"Merge them, or move one elsewhere."
            )
        else:
            found[splits[folder]] = folder
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def _by_name(folders: list[Path]) -> dict[str, list[Path]]:
    """Class folders by class name; folders whose names differ in their Unicode form only are one class."""
    classes: dict[str, list[Path]] = {}
    for folder in folders:
        classes.setdefault(class_name(folder.name), []).append(folder)
    return classes


def _innermost(folder: Path, nested: bool) -> Path:
    """The folder that holds the classes or splits: single folders around it are passed through."""
    for _ in range(MAX_DEPTH):
        below = _subfolders(folder)
        if len(below) != 1 or _image_files(folder) or not (inner := _subfolders(below[0])):
            break
        # A single class with groups in it looks the same, but for the depth
        if nested and not any(_subfolders(one) for one in inner):
            break
        folder = below[0]
    return folder


def _subfolders(folder: Path) -> list[Path]:
    return in_order(
        path
        for path in folder.iterdir()
        if not is_junk(path.name) and path.is_dir() and not (_TEXT.fullmatch(path.name) and not _holds_images(path))
    )


def _files(folder: Path, *, nested: bool) -> list[Path]:
    """The files of a class folder, junk left out."""
    if nested:
        return list(_files_below(folder, ()))
    entries = _data_in(folder)
    subfolders = [path for path in entries if path.is_dir()]
    if subfolders and len(subfolders) == len(entries):
        raise DataError(
            f"{folder} holds the folder {subfolders[0].name} instead of images. A class folder must hold its images "
            f"directly: move them up; or, if each of its folders shows one patient, object or series, keep them "
            f"together with --groups folder."
        )
    return entries


def _files_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files at any depth; a link to a folder in which it lies is not followed."""
    above = (*above, folder.resolve())
    for path in _data_in(folder):
        if not path.is_dir():
            yield path
        elif not path.is_symlink() or path.resolve() not in above:
            yield from _files_below(path, above)


def _data_in(folder: Path) -> list[Path]:
    """The members of a folder that are neither junk nor texts about the data."""
    return in_order(path for path in folder.iterdir() if not is_junk(path.name) and not _is_text(path))


def _is_text(path: Path) -> bool:
    """Whether a file is a text about the data, such as LICENSE; license.png is an image."""
    return _TEXT.fullmatch(path.name) is not None and not is_image(path) and not path.is_dir()


def _image_files(folder: Path) -> list[Path]:
    """The images directly in a folder, by their names."""
    return in_order(
        path for path in folder.iterdir() if is_image(path) and not is_junk(path.name) and not path.is_dir()
    )


def _is_flat(folder: Path) -> bool:
    """Whether images lie directly in the folder, or in a folder of the same split inside it, as Kaggle packs them."""
    below = _subfolders(folder)
    if len(below) == 1 and split_of(below[0].name) == split_of(folder.name) and not _image_files(folder):
        return _is_flat(below[0])
    return not below and bool(_image_files(folder))


def _holds_images(folder: Path) -> bool:
    """Whether there is an image at any depth."""
    return any(is_image(Path(name)) and not is_junk(name) for _, _, names in os.walk(folder) for name in names)


def _no_classes(root: Path) -> str:
    if archives := in_order(path for path in root.iterdir() if path.suffix.lower() == ".npz"):
        return f"{root} holds {archives[0].name}, but no class folders. To load the arrays, give {archives[0]}."
    if tables := _tables(root):
        return f"{root} holds {tables[0].name}, but no class folders. To read its labels, give the table: {tables[0]}."
    found = ", ".join(sorted(path.name for path in root.iterdir())[:5])
    if not found:
        return (
            f"{root} has no class folders: it is empty. Put the images of each class into a folder of its own: "
            f"{root.name}/<class>/<image>."
        )
    images = _image_files(root)
    class_beside = _class_beside(root) if images else None
    hint = "Unpack archives first." if class_beside is None else (
        f"If {root.name} is itself a class, as {class_beside.name} beside it, give the folder of both: {root.parent}."
    )  # fmt: skip
    return f"{root} has no class folders (found: {found}). {_where_labels_may_be(images, root.name)} {hint}"


def _class_beside(folder: Path) -> Path | None:
    """A folder beside this one that holds images only; None where folders are named as splits, or cannot be listed."""
    try:
        beside = [path for path in _subfolders(folder.absolute().parent) if path.name != folder.absolute().name]
        if any(split_of(path.name) for path in (folder, *beside)):
            return None
        return next(filter(_is_flat, beside), None)
    except OSError:
        return None


def _tables(root: Path) -> list[Path]:
    """The tables in a folder, those of training images first."""
    found = [path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".parquet", ".tar")]
    return sorted(found, key=lambda path: (split_of(path.stem) != "train", path.name))


def _splits_without_classes(root: Path, flat: list[Path]) -> str:
    listed = ", ".join(folder.name for folder in flat)
    train = next((folder for folder in flat if split_of(folder.name) == "train"), flat[0])
    where = _where_labels_may_be(_deep_image_files(train), train.name)
    if tables := _tables(root):
        where = f"To read labels from {tables[0].name}, give the table: {tables[0]}."
    return (
        f"{root} holds {listed}: by their names splits, not classes, but with images directly in them, so that no "
        f"image has a label. {where} If these are your classes, rename the folders."
    )


def _split_without_classes(folder: Path, split: str) -> str:
    if split == "train" or not _image_files(folder):
        return (
            f"{folder} has no class folders, so that its images have no labels. "
            f"{_where_labels_may_be(_image_files(folder), folder.name)}"
        )
    return (
        f"{folder} has no class folders, so that its images have no labels and nothing can be measured on them. Sort "
        f"them into {folder.name}/<class>/, or move the folder elsewhere and let `foveola predict` name the classes."
    )


def _where_labels_may_be(images: list[Path], folder: str) -> str:
    """What to do with images that no folder labels; with the words that their names begin with, if they are classes."""
    words = {match[0].casefold() for image in images if (match := _FIRST_WORD.match(image.name))}
    if 2 <= len(words) <= min(100, len(images) // 2):
        listed = ", ".join(sorted(words)[:5]) + (", …" if len(words) > 5 else "")
        hint = f"The file names begin with {listed}: if these are the classes, move each image into a folder of its own"
        return f"{hint} class ({folder}/{sorted(words)[0]}/…)."
    return (
        f"If the file names or a table say the class of each image, move it into a folder of its class: "
        f"{folder}/<class>/<image>."
    )


def _deep_image_files(folder: Path) -> list[Path]:
    return _image_files(folder) or [image for below in _subfolders(folder) for image in _image_files(below)]


def _shown(folders: list[Path]) -> str:
    return " and ".join(map(str, folders))
