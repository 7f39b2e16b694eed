"""Downloads: checked against the published checksums, cached."""

import errno
import os
from pathlib import Path

import platformdirs

from foveola.datasets.entry import Entry, File
from foveola.errors import DownloadError, OutputError
from foveola.progress import Progress


def cache_folder() -> Path:
    """The folder for downloads: $FOVEOLA_CACHE, or else the operating system's cache folder for this user."""
    override = os.environ.get("FOVEOLA_CACHE")
    return Path(override).expanduser() if override else platformdirs.user_cache_path("foveola")


def data_folders() -> list[Path]:
    """The folders in which files are looked for by name: $FOVEOLA_DATA, if it is set, then the folder for downloads."""
    data_folder = os.environ.get("FOVEOLA_DATA")
    return [*([Path(data_folder).expanduser()] if data_folder else []), cache_folder()]


TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two chunks
_DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def fetch(entry: Entry, folder: Path, progress: Progress) -> Path:
    """Download the missing files of a data set.

    Parameters
    ----------
    folder : where to put the files; intact files already there are kept

    Returns
    -------
    `folder`

    Raises
    ------
    DownloadError
        If no source delivers the published file. The message gives the reason for each source, and says how to place
        the files by hand.
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
            f"Free some disk space, or choose another folder with FOVEOLA_CACHE."
        ) from error
    return folder


def _try_sources(entry: Entry, file: File, folder: Path, progress: Progress) -> list[str]:
    """Download a file from the first source that has it; returns why each source failed, or nothing on success."""
    reasons = []
    for source in entry.sources:
        known_hash = f"sha256:{file.sha256}" if file.sha256 else f"md5:{file.md5}"
        try:
            retrieve(source + file.name, known_hash, folder / file.name, progress)
            return []
        except (OSError, ValueError) as error:  # from requests, derived from OSError; from pooch, for a wrong checksum
            if getattr(error, "errno", None) in _DISK_ERRORS:
                raise
            reasons.append(f"{source}{file.name}: {reason(error)}")
    return reasons


def retrieve(url: str, known_hash: str, path: Path, progress: Progress, max_bytes: int | None = None) -> Path:
    """Download one file to `path`, unless an intact copy is already there.

    Parameters
    ----------
    known_hash : `algorithm:hexadecimal digits`
    max_bytes : more than these are not downloaded

    Raises
    ------
    OSError
        If the file cannot be stored, or cannot be downloaded (requests.RequestException).
    ValueError
        If the checksum differs, or the file is too large; nothing is left behind.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # otherwise it prints a line for each file
    downloader = pooch.HTTPDownloader(
        progressbar=_ProgressAdapter(progress, path.name, max_bytes),
        chunk_size=2**16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # otherwise some servers send .gz files decompressed
    )
    return Path(pooch.retrieve(url, known_hash, fname=path.name, path=path.parent, downloader=downloader))


def reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    import requests

    match error:
        case requests.HTTPError(response=response) if response is not None:
            return f"HTTP {response.status_code}"
        case requests.Timeout():
            return "no response in time"
        case requests.exceptions.ChunkedEncodingError():
            return "the connection was interrupted"
        case requests.ConnectionError():
            return "no response in time" if "timed out" in str(error) else "cannot be reached"
        case ValueError() if "hash" in str(error):
            return "the checksum differs from the published one"
    return str(error)


def _failure(entry: Entry, file: File, reasons: list[str], folder: Path) -> str:
    attempts = "\n".join(f"  {reason}" for reason in reasons)
    names = ", ".join(file.name for file in entry.files)
    return (
        f"{entry.title} could not be downloaded. Sources tried for {file.name}:\n{attempts}\n"
        f"To provide the data by hand, put {names} into {folder}, or into the folder {entry.name} inside the folder "
        f"that FOVEOLA_DATA names. Then try again."
    )


class _ProgressAdapter:
    """Progress bar in the form that pooch expects; forwards to a Progress."""

    def __init__(self, progress: Progress, name: str, max_bytes: int | None) -> None:
        self.total = 0
        self._progress, self._name, self._done, self._max_bytes = progress, name, 0, max_bytes

    def update(self, count: int) -> None:
        # Pooch counts whole chunks: the last one would exceed the total.
        self._done = min(self._done + count, self.total) if self.total else self._done + count
        if self._max_bytes is not None and max(self.total, self._done - count) > self._max_bytes:
            raise ValueError(f"the file is larger than {self._max_bytes:,} bytes")
        self._progress(self._done, self.total or None, self._name)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass
