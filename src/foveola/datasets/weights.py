"""Pretrained weights on this machine: in $FOVEOLA_DATA, in the cache, or downloaded from the Hugging Face hub.

The hub names the SHA-256 of a file before it sends it. The download is compared with it, and recorded beside the file.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from foveola.datasets.download import TIMEOUT, cache_folder, data_folders, reason, retrieve
from foveola.errors import DownloadError, OutputError, UserError
from foveola.files import has_checksum, record_checksum
from foveola.models.pretrained import ENTRIES, MAX_BYTES, Pretrained, PretrainedWeights, read_pretrained
from foveola.progress import Progress, no_progress
from foveola.recipe import Recipe

FOLDER = "backbones"
ATTEMPTS = 3
RETRY_SECONDS = 2.0
_MAX_REDIRECTS = 5


def find_weights(
    recipe: Recipe, file: str | Path | None = None, progress: Progress = no_progress
) -> PretrainedWeights | None:
    """Read the pretrained weights of a recipe; if they are not on this machine, download them.

    Parameters
    ----------
    file : a file with the tensor names of the published one, instead of that
    progress : called as `progress(done, total, what)` during a download

    Returns
    -------
    The weights; None if the recipe begins with random ones

    Raises
    ------
    UserError
        If the file cannot be used, or the recipe has no pretrained weights for it to replace.
    DownloadError
        If the weights are not on this machine and cannot be downloaded; the message says where to put them.
    OutputError
        If the cache folder cannot be written.

    Examples
    --------
    >>> from foveola.recipe import load_recipe
    >>> find_weights(load_recipe("fast")) is None
    True
    """
    if recipe.pretrained == "none":
        if file is not None:
            raise UserError(
                f"--weights gives pretrained weights, but the recipe {recipe.name} begins with random ones. Use one "
                f"that has pretrained weights: --recipe {' or --recipe '.join(_recipes())}. To begin from a model of "
                f"Foveola's, use --init."
            )
        return None
    entry = ENTRIES[recipe.pretrained]
    if file is not None:
        return read_pretrained(entry, Path(file))
    path = locate_weights(entry.name) or _download(entry, progress)
    return read_pretrained(entry, path, by_name=True, downloaded=_was_downloaded(path, entry))


def locate_weights(name: str) -> Path | None:
    """The file on this machine of pretrained weights by name, or None: $FOVEOLA_DATA first, then the cache."""
    places = (_place(folder, ENTRIES[name]) for folder in data_folders())
    return next((place for place in places if place.is_file()), None)


def _was_downloaded(path: Path, entry: Pretrained) -> bool:
    return path == _place(cache_folder(), entry) and has_checksum(path)


def _recipes() -> list[str]:
    return [entry.recipe for entry in ENTRIES.values()]


def _place(folder: Path, entry: Pretrained) -> Path:
    return folder / FOLDER / entry.name / entry.file


@dataclass(frozen=True)
class _HubFile:
    """A file as the hub describes it: its address by commit, SHA-256, size in bytes."""

    url: str
    sha256: str
    size: int


def _download(entry: Pretrained, progress: Progress) -> Path:
    """Download a file of weights into the cache, verified; begins anew after an interruption."""
    import requests

    path = _place(cache_folder(), entry)
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    url = f"{hub}/{entry.repository}/resolve/{entry.revision}/{entry.file}"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise DownloadError(_failure(entry, url, "HF_HUB_OFFLINE forbids it"))
    for attempt in range(ATTEMPTS):
        try:
            found = _describe(url, entry)
            retrieve(found.url, f"sha256:{found.sha256}", path, progress, found.size)
            record_checksum(path)
            return path
        except (OSError, ValueError) as error:  # from requests, derived from OSError; ValueError: not what it should be
            if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
                raise OutputError(
                    f"The pretrained weights {entry.name} cannot be stored in {path.parent}: {error.strerror}. "
                    f"Free some disk space, or choose another folder with FOVEOLA_CACHE."
                ) from error
            if attempt == ATTEMPTS - 1 or not _is_passing(error):
                raise DownloadError(_failure(entry, url, reason(error))) from None
        time.sleep(RETRY_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later: a connection that broke off, a server that is busy."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, requests.RequestException)


def _describe(url: str, entry: Pretrained) -> _HubFile:
    """Ask the hub for SHA-256, size and commit of a file; it answers before it redirects to where the bytes lie.

    Raises
    ------
    ValueError
        If the answer names no SHA-256, or the file is too large.
    OSError
        If the hub cannot be reached or refuses (requests.RequestException).
    """
    import requests

    asked = url
    for _ in range(_MAX_REDIRECTS):
        answer = requests.head(asked, timeout=TIMEOUT, allow_redirects=False, headers={"Accept-Encoding": "identity"})
        answer.raise_for_status()
        location = answer.headers.get("Location")
        # A repository that was renamed is redirected to within the hub, by a relative address
        if "X-Linked-ETag" in answer.headers or location is None or urlsplit(location).netloc:
            break
        asked = urljoin(asked, location)
    sha256 = answer.headers.get("X-Linked-ETag", "").strip('W/"')
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError("the server names no SHA-256 that the file could be compared with")
    size = int(answer.headers.get("X-Linked-Size", MAX_BYTES))
    if size > MAX_BYTES:
        raise ValueError(f"the file has {size:,} bytes, of at most {MAX_BYTES:,}")
    commit = answer.headers.get("X-Repo-Commit", "")
    if re.fullmatch("[0-9a-f]{40}", commit):  # the file that was described, also if another takes its place meanwhile
        asked = asked.replace(f"/resolve/{entry.revision}/", f"/resolve/{commit}/")
    return _HubFile(asked, sha256, size)


def _failure(entry: Pretrained, url: str, why: str) -> str:
    return (
        f"The pretrained weights {entry.name} could not be downloaded: {url}: {why}.\n"
        f"To provide them by hand, download that file elsewhere and put it at {_place(data_folders()[0], entry)}, or "
        f"give it with --weights FILE. To train without them: --set pretrained=none."
    )
