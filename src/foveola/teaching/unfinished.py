"""A training that was interrupted, by a kill or a closed laptop, and can be gone on with: the images are the same."""

from collections.abc import Sequence
from pathlib import Path

from foveola.claims import has_checkpoint, unfinished_request
from foveola.errors import FoveolaError
from foveola.inputs.find import is_image, is_junk
from foveola.runs import STATUS_FILE, Run
from foveola.teaching.commands import ANNOUNCE
from foveola.teaching.listing import Picture


class Unfinished:
    """An interrupted training.

    Parameters
    ----------
    run : its folder
    snapshot : links to the pictures that it has read

    Attributes
    ----------
    run : as above
    """

    def __init__(self, run: Path, snapshot: Path) -> None:
        self.run = run
        self._inodes = _inodes(snapshot)

    def has_read(self, pictures: Sequence[Picture]) -> bool:
        """Whether these are its pictures, in the same classes, and no others."""
        if len(pictures) != len(self._inodes):
            return False
        return all(self._inodes.get((one.path.parent.name, one.path.name)) == one.inode for one in pictures)


def find_unfinished(runs: Sequence[Path], snapshots: Path) -> Unfinished | None:
    """The newest training that can be gone on with; None if there is none.

    Parameters
    ----------
    runs : folders of trainings, newest first
    snapshots : folder of the links to the pictures of each
    """
    for run in runs:
        snapshot = snapshots / run.name
        if snapshot.is_dir() and can_go_on(snapshot, run):
            return Unfinished(run, snapshot)
    return None


def can_go_on(snapshot: Path, run: Path) -> bool:
    """Whether something of a training of the page is left: a checkpoint, or a finished run without export."""
    try:
        if not has_checkpoint(run):
            return (run / STATUS_FILE).is_file() and Run.open(run).status.status == "done"
        request = unfinished_request(run)
    except FoveolaError:
        return False
    return request is None or (request.data == str(snapshot) and request.callbacks == [ANNOUNCE])


def _inodes(snapshot: Path) -> dict[tuple[str, str], int]:
    """The number of each picture's file in its file system, by class folder and name."""
    found = {}
    for path in snapshot.glob("*/*"):
        if not is_junk(path.name) and is_image(path):
            # A symbolic link may lead to what is not there any more
            found[path.parent.name, path.name] = path.stat().st_ino if path.exists() else 0
    return found
