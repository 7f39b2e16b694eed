"""Report: the HTML page of a run, written beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveola.datasets.reload import check_fingerprint, reload_data
from foveola.datasets.splits import Splits, restore_splits
from foveola.errors import ModelError, require
from foveola.files import write_atomically, writing
from foveola.images import ImageSet
from foveola.predictions import Exported, Predictions
from foveola.progress import console, show_progress
from foveola.runs import Run
from foveola.workflow.open import Device, open_model

if TYPE_CHECKING:
    from torch import nn

    from foveola.models.classifier import Classifier

MAX_EXPLAINED_IMAGES = 1500


def report(
    run: str | Path | Run,
    *,
    out: str | Path | None = None,
    data: object = None,
    network: "nn.Module | None" = None,
    device: Device = "auto",
    threads: int | None = None,
    verbose: bool = True,
) -> Path:
    """Write a run's report: one self-contained HTML file.

    Parameters
    ----------
    run : run, or its directory
    out : the file to write; RUN/report.html by default
    data : the run's data, as for `foveola.load`; by default found by its name or its recorded path
    network : your own module, if the run was trained with one: for HiResCAM and filters
    device : where to compute
    threads : number of threads, from now on in this process; by default one per core
    verbose : report progress on standard error

    Returns
    -------
    The path of the file.

    Raises
    ------
    UserError
        If run, data or file cannot be used, or the data is not the run's.

    Examples
    --------
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 1}, report=False, verbose=False)
    >>> foveola.report(run.path, verbose=False).name
    'report.html'
    """
    require("torch", "train")
    written = Run.open(run)
    if written.status.status == "imported":
        raise ModelError(
            f"{run} was imported, so that there is no training to report on. Measure it on data of your own "
            f"(foveola evaluate {run} DATA), or see what it looks at (foveola explain {run} IMAGE…)."
        )
    classifier = open_model(written.path, network=network, device=device, threads=threads)
    with show_progress(console(verbose)) as progress:
        purpose = "The report shows images"
        dataset = reload_data(written.status.data, written.path, classifier.metadata, data, purpose, progress)
    check_fingerprint(written.status.data, written.path, dataset)
    assert classifier.metadata.data is not None, "a run's model says what it has learnt from"
    splits = restore_splits(dataset, classifier.metadata.data)
    predictions = None
    if splits.test is not None and written.evaluation_path.is_file():
        logits = classifier.predict_logits(splits.test.images)
        predictions = Predictions(
            logits, splits.test.labels, splits.test.class_names, held_out=True, weights=splits.test.weights,
            thresholds=classifier.metadata.thresholds,
        )  # fmt: skip
    return write_page(written, classifier, splits, predictions, out=out)


def write_page(
    run: Run,
    classifier: "Classifier | Exported",
    splits: Splits,
    predictions: Predictions | None,
    *,
    out: str | Path | None = None,
) -> Path:
    """Write the page of a run whose images and predictions are at hand.

    Parameters
    ----------
    run : written completely: status, history, evaluation
    classifier : calibrated
    splits : the run's training, validation and test images
    predictions : of the test images; None if nothing was measured
    out : the file to write; RUN/report.html by default
    """
    from foveola.evaluation.curves import curves
    from foveola.reports.run import run_page
    from foveola.reports.run_data import ReportData

    by_name = splits.by_name
    if predictions is not None:
        evaluation = run.evaluation
        if evaluation.curves is None and evaluation.labels is None:  # written before there were reports
            evaluation.curves = curves(predictions, classifier.metadata.temperature)
            run.write_evaluation(evaluation)
        report_data = ReportData(run, classifier, by_name, "test", by_name["test"], predictions, evaluation)
    else:
        report_data = ReportData(run, classifier, by_name, *_unmeasured(classifier, splits), None)
    path = Path(out) if out is not None else run.path / "report.html"
    with writing(path):
        write_atomically(path, run_page(report_data))
    return path


def _unmeasured(classifier: "Classifier | Exported", splits: Splits) -> tuple[str, ImageSet, Predictions]:
    """Images for the page of a run without test images: some validation images, or else some training images."""
    name, images = ("validation", splits.validation) if splits.validation is not None else ("training", splits.train)
    some = images.take(np.random.default_rng(0).permutation(len(images))[:MAX_EXPLAINED_IMAGES])
    logits = classifier.predict_logits(some.images)
    return (
        name,
        some,
        Predictions(
            logits, some.labels, some.class_names, held_out=name == "validation", weights=some.weights,
            thresholds=classifier.metadata.thresholds,
        ),
    )  # fmt: skip
