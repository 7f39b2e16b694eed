"""A run's model written for elsewhere, compared with the live one on real images."""

from pathlib import Path

from foveola.errors import DataError, UserError, require
from foveola.export import INT8_NAME, ExportReport, check, default_name, export_int8, export_run, web_runtime
from foveola.images import Dataset, ImageSet
from foveola.models.card import ModelCard
from foveola.run import Run
from foveola.workflow.opening import model_path
from foveola.workflow.origin import check_same, find_again
from foveola.workflow.progress import console, reading
from foveola.workflow.splits import choose_split


def export(
    run: str | Path,
    format: str = "onnx",
    *,
    int8: bool = False,
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
    int8 : compute in 8-bit integers, calibrated on the validation images; kept only where that is faster on this
        machine and loses at most 0.2 points of accuracy on them

    out : the file or folder to write; by default RUN/exports/model with the format's suffix (model.int8.onnx with
        int8), or RUN/exports/FORMAT if it is a folder

    data : images to compare on; by default what the run has learnt from
    skip_bad : how many unreadable images of a folder may be left out
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If run, format, data or file cannot be used.
    ExportError
        If the export does not answer as the model does, or int8 is no gain; nothing is kept of it then.
    """
    if int8 and format != "onnx":
        raise UserError(f"8-bit integers are for the format onnx, not {format}. Leave out one of the two.")
    opened = Run.open(run)
    source = model_path(opened.path)
    name = INT8_NAME if int8 else default_name(format)
    target = Path(out) if out is not None else opened.path / "exports" / name
    check(source, target, format)
    if format == "web":
        with reading(console(verbose)) as progress:
            web_runtime.fetch(progress)  # now, so that a missing network is known before the work
    require("torch", "train")
    from foveola.models.classifier import open_classifier

    live = open_classifier(source)
    if not isinstance(data, Dataset):
        purpose = "The export is compared with the model on real images"
        with reading(console(verbose)) as progress:
            data = find_again(opened, live.card, data, purpose, progress, skip_bad=skip_bad)
    # Not the test images: only what measures a model looks at them
    images, _, _ = choose_split(data, live.card, "train")
    if int8:
        return export_int8(source, live, images.images, _validation_images(opened, data, live.card), target)
    return export_run(source, live, images.images, target, format)


def _validation_images(run: Run, data: Dataset, card: ModelCard) -> ImageSet:
    check_same(run, data)
    try:
        return choose_split(data, card, "validation")[0]
    except DataError:
        raise DataError(
            f"8-bit integers are calibrated and judged on validation images, but {run.path} was trained without any. "
            f"Export in float32, or train with --set validation=0.1."
        ) from None
