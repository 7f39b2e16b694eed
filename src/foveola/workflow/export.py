"""A run's model written for elsewhere, compared with the live one on real images."""

from pathlib import Path

from foveola.datasets import CATALOG, Progress, load
from foveola.errors import DataError, DownloadError, require
from foveola.export import ExportReport, check, export_run, format_named
from foveola.images import Dataset
from foveola.models.card import ModelCard
from foveola.run import Run
from foveola.workflow.opening import model_path
from foveola.workflow.progress import console, reading
from foveola.workflow.splits import choose_split


def export(
    run: str | Path,
    format: str = "onnx",
    *,
    out: str | Path | None = None,
    data: str | Path | Dataset | None = None,
    skip_bad: int = 0,
    verbose: bool = True,
) -> ExportReport:
    """Write a run's model in another format, and compare the two on the training images.

    Parameters
    ----------
    run : run directory
    format : a key of `foveola.export.FORMATS`
    out : the file to write; by default RUN/exports/model with the format's suffix
    data : images to compare on; by default what the run has learnt from, if that is known by name
    skip_bad : how many unreadable images of a folder may be left out
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If run, format, data or file cannot be used.
    ExportError
        If the export does not answer as the model does; nothing is kept of it then.
    """
    run = Run.open(run).path
    source = model_path(run)
    target = Path(out) if out is not None else run / "exports" / f"model{format_named(format).SUFFIX}"
    check(source, target, format)
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    live = open_classifier(source)
    if not isinstance(data, Dataset):
        with reading(console(verbose)) as progress:
            data = _load(live.card, data, skip_bad, progress)
    # Not the test images: only what measures a model looks at them
    images, _, _ = choose_split(data, live.card, "train")
    return export_run(source, live, images.images, target, format)


def _load(card: ModelCard, data: str | Path | None, skip_bad: int, progress: Progress) -> Dataset:
    """Data in the shape that the model takes: what is given, or what it has learnt from."""
    origin = card.data
    source = data or (origin.name if origin is not None and origin.name in CATALOG else None)
    if source is None:
        raise DataError(
            f"The export is compared with the model on real images, but the run's own "
            f"({origin.name if origin else 'unknown'}) have no name in the catalog. Say with --data where they are."
        )
    channels = None if card.channels == "data" else card.image_shape[2]
    try:
        return load(source, image_size=card.image_shape[:2], channels=channels, skip_bad=skip_bad, progress=progress)
    except DownloadError as error:
        raise DataError(
            f"The export is compared with the model on real images, but {source} is not on this machine, and could not "
            f"be downloaded: {error} Say with --data where images of the same kind are."
        ) from None
