"""The page of a run, written beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveola.errors import OutputError, require
from foveola.files import write_atomically
from foveola.images import Dataset, ImageSet
from foveola.predictions import Predictions
from foveola.run import Run
from foveola.workflow.opening import Device, open_model
from foveola.workflow.origin import check_same, find_again
from foveola.workflow.progress import console, reading
from foveola.workflow.splits import Parts, split_again

if TYPE_CHECKING:
    from torch import nn

    from foveola.models.classifier import Classifier

ENOUGH_TO_LOOK_INTO = 1500


def write_report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    data: str | Path | Dataset | None = None,
    network: "nn.Module | None" = None,
    device: Device = "auto",
    verbose: bool = True,
) -> Path:
    """Write a run's page: one HTML file, complete in itself.

    Parameters
    ----------
    run : run directory
    out : the file to write; RUN/report.html by default
    data : what the run has learnt from; by default looked for by its name, or where it lay then
    network : the user's own module, where the run was trained with one
    device : where to compute
    verbose : report progress on standard error

    Returns
    -------
    The file.

    Raises
    ------
    UserError
        If run, data or file cannot be used, or the data is not what the run has learnt from.
    """
    require("torch", "train")
    from foveola.models.classifier import Classifier

    written = Run.open(run)
    classifier = open_model(written.path, network=network, device=device)
    assert isinstance(classifier, Classifier), "a run holds a model in PyTorch"  # exports lie in files of their own
    if not isinstance(data, Dataset):
        with reading(console(verbose)) as progress:
            data = find_again(written, classifier.card, data, "The report shows images", progress)
    check_same(written, data)
    assert classifier.card.data is not None, "a run's model says what it has learnt from"
    parts = split_again(data, classifier.card.data)
    predictions = None
    if parts.test is not None and (written.path / "evaluation.json").is_file():
        logits = classifier.predict_logits(parts.test.images)
        predictions = Predictions(logits, parts.test.labels, parts.test.class_names, held_out=True)
    return write_page(written, classifier, parts, predictions, out=out)


def write_page(
    run: Run,
    classifier: "Classifier",
    parts: Parts,
    predictions: Predictions | None,
    *,
    out: str | Path | None = None,
) -> Path:
    """Write the page of a run whose images and predictions are at hand.

    Parameters
    ----------
    run : written completely: status, history, evaluation
    classifier : calibrated
    parts : the images that the run has learnt from, selected by, and was measured on
    predictions : of the test images; None where nothing was measured
    out : the file to write; RUN/report.html by default
    """
    from foveola.evaluation.curves import curves
    from foveola.report.run_material import Material
    from foveola.report.run_page import render_run

    splits = {name: part for name, part in vars(parts).items() if part is not None}
    if predictions is not None:
        evaluation = run.evaluation
        if "roc" not in evaluation:  # measured by a Foveola that drew no reports
            evaluation |= curves(predictions, classifier.card.temperature)
            run.write_evaluation(evaluation)
        material = Material(run, classifier, splits, "test", splits["test"], predictions, evaluation)
    else:
        material = Material(run, classifier, splits, *_unmeasured(classifier, parts), None)
    path = Path(out) if out is not None else run.path / "report.html"
    try:
        write_atomically(path, render_run(material))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}. Choose another file with --out.") from None
    return path


def _unmeasured(classifier: "Classifier", parts: Parts) -> tuple[str, ImageSet, Predictions]:
    """What the page can look into without test images: some of the validation, or some that were learnt from."""
    name, images = ("validation", parts.validation) if parts.validation is not None else ("training", parts.train)
    some = images.take(np.random.default_rng(0).permutation(len(images))[:ENOUGH_TO_LOOK_INTO])
    logits = classifier.predict_logits(some.images)
    return name, some, Predictions(logits, some.labels, some.class_names, held_out=name == "validation")
