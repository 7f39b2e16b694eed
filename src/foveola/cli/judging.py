"""Commands that judge: how good a model is, and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import DEVICES, Data, DeviceName, Json, Model, Quiet, SkipBad, one_of
from foveola.cli.output import show, to_json
from foveola.errors import OutputError


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Images to measure on: test, validation, train or all.")
    ] = "test",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the JSON document into this file as well.")
    ] = None,
    skip_bad: SkipBad = 0,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on data: accuracy, AUC, log loss and more, with intervals."""
    from foveola.files import write_atomically
    from foveola.workflow.evaluate import evaluate as evaluate_model
    from foveola.workflow.opening import open_model
    from foveola.workflow.splits import SPLITS

    name = one_of("split", split, SPLITS)
    predictor = open_model(model, device=one_of("device", device, DEVICES))
    document = evaluate_model(predictor, data, split=name, skip_bad=skip_bad, verbose=not quiet)
    if out is not None:
        try:
            write_atomically(out, to_json(document) + "\n")
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error}. Choose another file with --out.") from None
    show(document, as_json, lambda tables: tables.evaluation(document))


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page to write; RUN/report.html by default.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Where the run's data is, if its name does not say so.")
    ] = None,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's page: what it learnt from, how good it is, where it fails, what it sees."""
    from foveola.workflow.report import write_report

    page = write_report(run, out=out, data=data, device=one_of("device", device, DEVICES), verbose=not quiet)
    document = {"report": str(page), "size_bytes": page.stat().st_size}
    show(document, as_json, lambda tables: tables.facts(document))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Run directories, trained on the same data.")],
    seeds: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Trainings a side; those that are missing are trained beside the runs."),
    ] = 1,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Where the runs' data is, if its name does not say so.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page, with the images that the models disagree on."),
    ] = None,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs on the same test images: is the difference real, and what does it cost?"""
    from foveola.workflow.compare import compare as compare_runs

    chosen = one_of("device", device, DEVICES)
    document = compare_runs(*runs, data=data, seeds=seeds, out=out, device=chosen, verbose=not quiet)
    show(document, as_json, lambda tables: tables.comparison(document))
