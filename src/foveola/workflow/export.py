"""A run's model written for elsewhere, compared with the live one on real images."""

from pathlib import Path

from foveola.errors import require
from foveola.export import ExportReport, check, export_run, format_named
from foveola.images import Dataset
from foveola.run import Run
from foveola.workflow.opening import model_path
from foveola.workflow.origin import find_again
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
    data : images to compare on; by default what the run has learnt from
    skip_bad : how many unreadable images of a folder may be left out
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If run, format, data or file cannot be used.
    ExportError
        If the export does not answer as the model does; nothing is kept of it then.
    """
    opened = Run.open(run)
    source = model_path(opened.path)
    target = Path(out) if out is not None else opened.path / "exports" / f"model{format_named(format).SUFFIX}"
    check(source, target, format)
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    live = open_classifier(source)
    if not isinstance(data, Dataset):
        purpose = "The export is compared with the model on real images"
        with reading(console(verbose)) as progress:
            data = find_again(opened, live.card, data, purpose, progress, skip_bad=skip_bad)
    # Not the test images: only what measures a model looks at them
    images, _, _ = choose_split(data, live.card, "train")
    return export_run(source, live, images.images, target, format)
