"""The data that a run has learnt from, found again."""

from pathlib import Path

from foveola.datasets import CATALOG, Progress, load
from foveola.errors import DataError, DownloadError
from foveola.images import Dataset
from foveola.models.card import ModelCard
from foveola.run import Run


def load_for(card: ModelCard, data: str | Path, skip_bad: int, progress: Progress) -> Dataset:
    """Read data in the shape that a model takes; colour for a grey model only if its recipe said so."""
    channels = None if card.channels == "data" else card.image_shape[2]
    return load(data, image_size=card.image_shape[:2], channels=channels, skip_bad=skip_bad, progress=progress)


def find_again(
    run: Run, card: ModelCard, data: str | Path | None, purpose: str, progress: Progress, *, skip_bad: int | None = None
) -> Dataset:
    """Read the data that is given, or else what the run has learnt from: by its name, or where it lay then.

    Parameters
    ----------
    card : of the run's model
    data : catalog name or path, or None
    purpose : what the images are for, such as "The report shows images", to begin an error message with
    skip_bad : unreadable images that may be left out; None: as many as in the training

    Raises
    ------
    DataError
        If the data is not found again, or cannot be used.
    """
    origin = run.status["data"]
    source = data or _place(origin.get("name"), origin.get("path"))
    if source is None:
        raise DataError(
            f"{purpose}, but what {run.path} has learnt from ({origin.get('path') or origin.get('name')}) is no longer "
            f"there, and no name that Foveola knows. Say with --data where it is."
        )
    if skip_bad is None:
        skip_bad = len(origin.get("skipped", ()))
    try:
        return load_for(card, source, skip_bad, progress)
    except DownloadError as error:
        raise DataError(
            f"{purpose}, but {source} is not on this machine, and could not be downloaded: {error} "
            f"Say with --data where it is."
        ) from None


def check_same(run: Run, dataset: Dataset) -> None:
    """Refuse data that the run has not learnt from.

    Raises
    ------
    DataError
        If the fingerprints differ.
    """
    origin = run.status["data"]
    if dataset.fingerprint != origin["fingerprint"]:
        raise DataError(
            f"{dataset.name} (fingerprint {dataset.fingerprint[:12]}) is not what {run.path} has learnt from "
            f"({origin['name']}, fingerprint {origin['fingerprint'][:12]}): its images, labels or class names are "
            f"others. Give the run's own data with --data."
        )


def _place(name: str | None, path: str | None) -> str | None:
    """Where the data of a run may lie; its fingerprint says later whether it is the same."""
    if name in CATALOG:
        return name
    return next((place for place in (path, name) if place is not None and Path(place).exists()), None)
