"""Make, check and claim the folder of a project: an image folder without splits, open in one process."""

import os
from pathlib import Path

from foveola import files
from foveola.datasets import layout
from foveola.errors import DataError, OutputError
from foveola.files import flush_folder, writing
from foveola.inputs.find import is_junk


def open_folder(folder: Path) -> Path:
    """The folder, made if there is none, without links."""
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder} is a file, but images are collected in a folder with a folder for each class. Give such a "
            f"folder, or the name of a new one."
        )
    with writing(folder, "Choose another folder."):
        if not folder.exists():
            folder.mkdir(parents=True)
            flush_folder(folder.parent)
    folder = folder.resolve()
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder} cannot be written, but images are added there. Change its permissions, or copy it."
        )
    _check_layout(folder)
    return folder


def _check_layout(folder: Path) -> None:
    """Refuse what `foveola train` would read as something else than class folders with pictures."""
    inside = [path for path in sorted(folder.iterdir()) if not is_junk(path.name)]
    folders = [path for path in inside if path.is_dir()]
    if tables := [path for path in inside if path.suffix.lower() in (".csv", ".tsv", ".parquet", ".npz", ".tar")]:
        raise DataError(
            f"{folder} holds {tables[0].name}, so that its labels may be in a table. Give a folder of class folders "
            f"only, or train from the command line: foveola train {tables[0]}"
        )
    if links := [path for path in folders if path.is_symlink()]:
        raise DataError(
            f"{links[0]} is a link, which may lead out of the project; links are not followed. Give the folder to "
            f"which it leads, or put a copy in its place."
        )
    if not folders:
        return
    found = layout.find(folder)
    if tuple(found.splits) != ("train",) or any(layout.split_of(path.name) and _subfolders(path) for path in folders):
        listed = ", ".join(path.name for path in folders[:5])
        raise DataError(
            f"{folder} has splits ({listed}), but a project is one folder of classes, which a training splits itself. "
            f"Give the training images, such as {folder / 'train'}."
        )
    if nested := [inner for path in folders for inner in _subfolders(path)]:
        raise DataError(
            f"{nested[0]} is a folder within a class folder. A class folder must hold its images directly: move them "
            f"up; or give {nested[0].parent}, if its folders are the classes."
        )


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if not is_junk(entry.name) and entry.is_dir())


def claim(hidden: Path) -> int:
    """The project's own folder, made and locked until the process ends."""
    with writing(hidden, "Choose another folder."):
        if hidden.is_symlink() or any(path.is_symlink() for path in (hidden / "bin", hidden / "thumbnails")):
            raise OutputError(f"{hidden} is or holds a link, which may lead out of the project. Remove the link.")
        hidden.mkdir(exist_ok=True)
        for name in ("bin", "thumbnails"):
            (hidden / name).mkdir(exist_ok=True)
        flush_folder(hidden)
        claim = files.lock(hidden / "lock")
    if claim is None:
        raise OutputError(f"Another `foveola teach` has {hidden.parent} open. Use its page, or end it first.")
    return claim
