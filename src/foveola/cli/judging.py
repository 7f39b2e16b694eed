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
