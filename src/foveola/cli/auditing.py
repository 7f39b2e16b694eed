"""The command that looks through data."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import DEVICES, Data, DeviceName, Json, Quiet, Seed, SkipBad, one_of
from foveola.cli.output import show


def audit(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the findings go; audits/NAME by default.")
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", metavar="RECIPE", help="Of the networks that judge the labels.")
    ] = "fast",
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each network; the recipe's by default, 5 of fast.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, metavar="N", help="Parts; each is judged by networks that learn from the others.")
    ] = 3,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Measure accuracy with and without the likely label errors as well.")
    ] = False,
    skip_bad: SkipBad = 0,
    seed: Seed = 0,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look through data: duplicates, leaks, likely label errors, odd images, class balance."""
    from foveola.workflow.audit import audit as audit_data

    document = audit_data(
        data, out=out, recipe=recipe, epochs=epochs, folds=folds, seed=seed, retrain=retrain,
        device=one_of("device", device, DEVICES), skip_bad=skip_bad, verbose=not quiet,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.audited(document))
