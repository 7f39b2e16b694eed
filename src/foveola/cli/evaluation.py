"""Commands of the panel Evaluation: evaluate, report, compare."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import (
    DEVICES,
    Data,
    DeviceName,
    Fixes,
    Grey,
    GroupColumn,
    ImageColumn,
    ImageRoot,
    Json,
    LabelColumn,
    LabelSeparator,
    Model,
    PredictingThreads,
    Quiet,
    SkipBad,
    SplitColumn,
    Threads,
    WeightColumn,
    one_of,
    parse_fixes,
    table_columns,
)
from foveola.cli.output import show, to_json


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Images to measure on: test, validation, train or all.")
    ] = "test",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON document to this file.")] = None,
    grey: Grey = False,
    fix: Fixes = None,
    skip_bad: SkipBad = 0,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    weight_column: WeightColumn = None,
    image_root: ImageRoot = None,
    device: DeviceName = "auto",
    threads: PredictingThreads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on data: accuracy, AUC, log loss and more, with intervals."""
    from foveola.datasets.splits import SPLITS
    from foveola.files import write_atomically, writing
    from foveola.workflow.evaluate import evaluate as evaluate_model
    from foveola.workflow.open import open_model

    name = one_of("split", split, SPLITS)
    predictor = open_model(model, device=one_of("device", device, DEVICES), threads=threads)
    document = evaluate_model(
        predictor, data, split=name, grey=grey, fix=parse_fixes(fix), skip_bad=skip_bad,
        columns=table_columns(
            image_column, label_column, group_column, split_column, weight_column, image_root, label_separator
        ),
        verbose=not quiet,
    )  # fmt: skip
    if out is not None:
        with writing(out):
            write_atomically(out, to_json(document) + "\n")
    show(document, as_json, lambda tables: tables.evaluation(document))


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML file to write. Default: RUN/report.html.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="The run's data, if it has moved.")] = None,
    device: DeviceName = "auto",
    threads: PredictingThreads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's HTML report: data, metrics, mistakes, explanations, and how to repeat it."""
    from foveola.workflow.report import report as report_run

    page = report_run(
        run, out=out, data=data, device=one_of("device", device, DEVICES), threads=threads, verbose=not quiet
    )
    document = {"report": str(page), "size_bytes": page.stat().st_size}
    show(document, as_json, lambda tables: tables.facts(document))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Run directories, trained on the same data.")],
    seeds: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Seeds per run; missing ones are trained and kept beside it."),
    ] = 1,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="The runs' data, if it has moved.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Also write an HTML page, with the images that the models disagree on."),
    ] = None,
    device: DeviceName = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs on the same test images: paired tests, intervals, and what each network costs."""
    from foveola.workflow.compare import compare as compare_runs

    chosen = one_of("device", device, DEVICES)
    document = compare_runs(*runs, data=data, seeds=seeds, out=out, device=chosen, threads=threads, verbose=not quiet)
    show(document, as_json, lambda tables: tables.comparison(document))
