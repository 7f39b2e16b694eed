"""Fetch a data set of the catalog: every source in turn, checked, under its final name only when whole.

The checksums catch accidents, not attackers.
"""

import errno
from pathlib import Path

from foveola.datasets.entry import Entry, File
from foveola.datasets.reader import Progress
from foveola.errors import DownloadError, OutputError

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def fetch(entry: Entry, folder: Path, progress: Progress) -> Path:
    """Download what is missing of a data set.

    Parameters
    ----------
    folder : where to put the files; whole ones that are there already stay

    Returns
    -------
    `folder`

    Raises
    ------
    DownloadError
        If no source answers with the published bytes: names each with its reason, and says how to place files by hand.
    OutputError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in entry.files:
            if reasons := _try_sources(entry, file, folder, progress):
                raise DownloadError(_failure(entry, file, reasons, folder))
    except OSError as error:
        raise OutputError(
            f"{entry.title} cannot be stored in {folder}: {error.strerror}. "
            f"Make room or choose another folder with FOVEOLA_CACHE."
        ) from error
    return folder


def _try_sources(entry: Entry, file: File, folder: Path, progress: Progress) -> list[str]:
    """Empty once the file is there; otherwise why each source failed."""
    reasons = []
    for source in entry.sources:
        known = f"sha256:{file.sha256}" if file.sha256 else f"md5:{file.md5}"
        try:
            retrieve(source + file.name, known, folder / file.name, progress)
            return []
        except (OSError, ValueError) as error:  # what requests raises derives from OSError; ValueError: the checksum
            if getattr(error, "errno", None) in _DISK:
                raise
            reasons.append(f"{source}{file.name}: {_reason(error)}")
    return reasons


def retrieve(url: str, known_hash: str, path: Path, progress: Progress) -> Path:
    """One file, downloaded to `path` unless it lies there whole already.

    Parameters
    ----------
    known_hash : as `algorithm:hexadecimal digits`

    Raises
    ------
    OSError
        If it cannot be stored, or, as requests.RequestException, not be had.
    ValueError
        If it differs from its hash; nothing is left behind.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it prints a line for each file
    downloader = pooch.HTTPDownloader(
        progressbar=_Bar(progress, path.name),
        chunk_size=2**16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # or .gz files arrive unwrapped from some servers
    )
    return Path(pooch.retrieve(url, known_hash, fname=path.name, path=path.parent, downloader=downloader))


def _reason(error: Exception) -> str:
    import requests

    match error:
        case requests.HTTPError(response=response) if response is not None:
            return f"HTTP {response.status_code}"
        case requests.Timeout():
            return "no answer in time"
        case requests.exceptions.ChunkedEncodingError():
            return "the connection broke off"
        case requests.ConnectionError():
            return "no answer in time" if "timed out" in str(error) else "cannot be reached"
        case ValueError() if "hash" in str(error):
            return "the checksum differs from the published one"
    return str(error)


def _failure(entry: Entry, file: File, reasons: list[str], folder: Path) -> str:
    tried = "\n".join(f"  {reason}" for reason in reasons)
    names = ", ".join(file.name for file in entry.files)
    return (
        f"{entry.title} could not be downloaded; {file.name} was asked for at\n{tried}\n"
        f"To place the data by hand, put {names} into {folder}, or into a folder "
        f"{entry.name} where FOVEOLA_DATA points to, and try again."
    )


class _Bar:
    """What pooch drives as a progress bar."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.total = 0
        self._progress, self._name, self._done = progress, name, 0

    def update(self, count: int) -> None:
        # Pooch counts whole pieces, so that the last would exceed the total.
        self._done = min(self._done + count, self.total) if self.total else self._done + count
        self._progress(self._done, self.total or None, self._name)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass
