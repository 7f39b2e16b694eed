"""The pictures of a training as they were when it began: links, which stay while the project goes on changing.

A training reads them, and reports, exports and the pictures of mistakes need the very same ones. A hard link costs no
room, and still leads to the picture after it was moved or deleted in the project.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from foveola.files import writing
from foveola.inputs.find import is_junk

SNAPSHOTS = "trained"
"""In the project's own folder, each with the name of its run."""


def take_snapshot(project: Path, folder: Path) -> dict[str, int]:
    """Link the pictures of a project into a new folder; how many each class has.

    Empty classes are left out. Where the file system has no links, pictures are copied.

    Raises
    ------
    OutputError
        If the folder cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> Path("pictures/cup").mkdir(parents=True)
    >>> Path("pictures/cup/1.png").touch()
    >>> take_snapshot(Path("pictures"), Path("pictures/.foveola/trained/pictures-1"))
    {'cup': 1}
    """
    counts = {}
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder, "Make room, or check who may write there."):
        for class_folder in sorted(path for path in project.iterdir() if path.is_dir() and not is_junk(path.name)):
            files = [entry for entry in os.scandir(class_folder) if not is_junk(entry.name) and entry.is_file()]
            if files:
                (folder / class_folder.name).mkdir(parents=True)
                for file in files:
                    _link(Path(file.path), folder / class_folder.name / file.name)
                counts[class_folder.name] = len(files)
        folder.mkdir(parents=True, exist_ok=True)
    return counts


def keep_snapshot(folder: Path) -> None:
    """Remove all snapshots beside this one, with what is written about them."""
    for other in folder.parent.iterdir():
        if other.name not in (folder.name, f"{folder.name}.json"):
            shutil.rmtree(other, ignore_errors=True)
            with suppress(OSError):
                other.unlink(missing_ok=True)


def _link(file: Path, target: Path) -> None:
    with suppress(OSError, NotImplementedError):
        os.link(file.resolve(), target)
        return
    with suppress(OSError, NotImplementedError):
        target.symlink_to(file.resolve())
        return
    try:
        shutil.copyfile(file, target)
    except FileNotFoundError:  # deleted meanwhile
        return
