"""Commands that train: from data to a run directory."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import (
    DEVICES,
    Data,
    DeviceName,
    Json,
    Overrides,
    Quiet,
    Seed,
    SkipBad,
    one_of,
    parse_overrides,
)
from foveola.cli.output import show
from foveola.errors import UserError


def train(
    data: Data,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="RECIPE",
            help="A recipe's name, or the path of a TOML file; fast by default, or what suits the budget best.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How often to go through the images; the recipe's by default."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End within this time, such as 60s or 5m, reading and measuring included."),
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR", help="Call answers uncertain so that of the others at most this share is wrong: 0.01."
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run's folder; a new one under runs/ by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is already there.")] = False,
    init: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Start from the weights of this run, where layers agree.")
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Keep the layers that --init gave as they are.")] = False,
    report: Annotated[
        bool, typer.Option(help="Write report.html into the run at the end; with --budget, `foveola report` does.")
    ] = True,
    skip_bad: SkipBad = 0,
    seed: Seed = 0,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier, measure it once on held-out images, and write it all into a run directory."""
    from foveola.workflow.budget import parse_duration
    from foveola.workflow.train import train as train_run

    if budget is not None and epochs is not None:
        raise UserError("--budget and --epochs both say how long to train. Give one of them.")
    values = parse_overrides(overrides)
    if epochs is not None:
        values["epochs"] = epochs
    if reject is not None:
        values["reject"] = reject
    run = train_run(
        data, recipe, out=out, overrides=values, seed=seed, device=one_of("device", device, DEVICES), force=force,
        budget=None if budget is None else parse_duration(budget),
        init=init, freeze=freeze, skip_bad=skip_bad, report=report, verbose=not quiet,
    )  # fmt: skip
    status = run.status
    document = {"run": str(run.path), **status, "evaluation": run.evaluation if status["data"]["test"] else None}
    show(document, as_json, lambda tables: tables.trained(run.path, document))
