"""Export: a run's model in another format, compared with the live model on real images."""

from pathlib import Path

import numpy as np

from foveola.datasets.reload import check_fingerprint, reload_data
from foveola.datasets.splits import select_split
from foveola.errors import DataError, ModelError, UserError
from foveola.exports import (
    INT8_NAME,
    ExportReport,
    Parity,
    check_target,
    default_name,
    export_int8,
    export_run,
    web_runtime,
)
from foveola.exports.onnx import OnnxModel
from foveola.exports.parity import BATCH_SIZES, synthetic_images
from foveola.images import Dataset, Images, ImageSet, check_one_class
from foveola.models.metadata import ModelMetadata
from foveola.progress import console, show_progress
from foveola.runs import Run
from foveola.workflow.evaluate import match_classes
from foveola.workflow.open import model_path, open_model


def export(
    run: str | Path | Run,
    format: str = "onnx",
    *,
    int8: bool = False,
    out: str | Path | None = None,
    data: str | Path | Dataset | None = None,
    skip_bad: int | None = None,
    threads: int | None = None,
    verbose: bool = True,
) -> ExportReport:
    """Write a run's model in another format, and compare the two on the training images.

    Parameters
    ----------
    run : run, or its directory
    format : a key of `foveola.exports.FORMATS`
    int8 : compute in 8-bit integers, calibrated on the validation images; kept only if that is faster on this machine
        and loses at most 0.2 points of accuracy on them, or with few images one standard error, at most 1 point. An
        imported model is calibrated on the validation images of `data`, or its training images if it has none
    out : the file or folder to write; by default RUN/exports/model with the format's suffix (model.int8.onnx with
        int8), or RUN/exports/FORMAT for a folder
    data : images to compare on; by default the run's own data, and random images for an imported model
    skip_bad : maximum number of unreadable images of a folder to skip; by default as many as the training skipped
    threads : number of threads, from now on in this process; by default one per core
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If run, format, data or file cannot be used.
    ExportError
        If the export does not give the model's logits, or int8 is not faster; it is then not kept.

    Examples
    --------
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 1}, verbose=False)
    >>> report = foveola.export(run, verbose=False)
    >>> report.path.name, report.parity.largest_difference < 1e-3
    ('model.onnx', True)
    """
    if int8 and format != "onnx":
        raise UserError(
            f"8-bit integers are available for the format onnx, not for {format}. Leave out --int8, or choose onnx."
        )
    opened = Run.open(run)
    source = model_path(opened.path)
    name = INT8_NAME if int8 else default_name(format)
    target = Path(out) if out is not None else opened.path / "exports" / name
    check_target(source, target, format)
    if format == "web":
        with show_progress(console(verbose)) as progress:
            web_runtime.fetch_runtime(progress)  # a missing network connection is reported before the work
    live = open_model(source, threads=threads)
    imported = opened.status.status == "imported"
    if imported and int8 and data is None:
        raise UserError(
            f"8-bit integers are calibrated and measured on labelled images, and {opened.path}, which was imported, "
            f"has none. Give some with --data, or export in float32."
        )
    if imported and data is None:
        return export_run(source, live, _random_images(live.metadata), target, format)
    if isinstance(live, OnnxModel) and not int8:
        return export_run(source, live, None, target, format, _compared(opened))
    if not isinstance(data, Dataset):
        purpose = "The export is compared with the model on real images"
        with show_progress(console(verbose)) as progress:
            data = reload_data(
                opened.status.data, opened.path, live.metadata, data, purpose, progress, skip_bad=skip_bad
            )
    # Only an evaluation reads the test images
    images = select_split(data, live.metadata, "all" if imported else "train").images
    if int8:
        check_one_class(data, "8-bit integers are measured")
        chosen = _labelled_images(data, live.metadata) if imported else _validation_images(opened, data, live.metadata)
        return export_int8(source, live, images.images, chosen, target)
    return export_run(source, live, images.images, target, format)


def _compared(run: Run) -> Parity:
    """How the graph of a network that the user has written was compared with it, at the end of its training."""
    graph = run.status.graph
    if graph is None or graph.largest_difference is None:
        raise ModelError(f"{run.path} does not say how its model.onnx was compared with its network. Train it again.")
    return Parity(graph.largest_difference, graph.images, BATCH_SIZES)


def _random_images(metadata: ModelMetadata) -> Images:
    """Noise of several grains in the model's shape: for a model whose training images are not known."""
    return np.concatenate([synthetic_images(metadata.image_shape, seed) for seed in range(1, 17)])


def _labelled_images(data: Dataset, metadata: ModelMetadata) -> ImageSet:
    """Images that int8 is calibrated and measured on for a model whose own data is not known."""
    images = data.validation or data.train
    return ImageSet(images.images, match_classes(images, metadata, data.name), metadata.class_names)


def _validation_images(run: Run, data: Dataset, metadata: ModelMetadata) -> ImageSet:
    check_fingerprint(run.status.data, run.path, data)
    try:
        return select_split(data, metadata, "validation").images
    except DataError:
        raise DataError(
            f"8-bit integers are calibrated and measured on validation images, but {run.path} was trained without any. "
            f"Export in float32, or train with --set validation=0.1."
        ) from None
