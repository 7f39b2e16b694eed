"""Commands that put a model to use."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import (
    DEVICES,
    DeviceName,
    Fixes,
    Grey,
    Json,
    Model,
    Quiet,
    SkipBad,
    one_of,
    parse_fixes,
)
from foveola.cli.output import show


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Picture files of any size.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to name.")] = 3,
    grey: Grey = False,
    fix: Fixes = None,
    seen: Annotated[
        Path | None,
        typer.Option("--show", metavar="FOLDER", help="Write what the network sees, before and after fixing, as PNG."),
    ] = None,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Classify pictures; what looks unlike the training images is reported, never silently changed."""
    from foveola.answering import answer_document
    from foveola.workflow.opening import open_model
    from foveola.workflow.predict import predict as predict_images

    predictor = open_model(model, device=one_of("device", device, DEVICES))
    fixes = parse_fixes(fix)
    answers = predict_images(predictor, images, grey=grey, fix=fixes, show=seen, top=top, verbose=not quiet)
    document = {"predictions": [{"image": answer.image, **answer_document(answer)} for answer in answers]}
    show(document, as_json, lambda tables: tables.answers(answers))


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="onnx, safetensors, or web: a page for any static host.")
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8-bit integers; kept only if faster here and as accurate.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file or folder to write; in RUN/exports by default.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Images to compare on; what the run has learnt from by default."),
    ] = None,
    skip_bad: SkipBad = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's model for elsewhere; it is kept only if it answers as the model does."""
    from foveola.workflow.export import export as export_model

    report = export_model(run, format, int8=int8, out=out, data=data, skip_bad=skip_bad, verbose=not quiet)
    document = {
        "path": str(report.path),
        "format": report.format,
        "size_bytes": report.size_bytes,
        "parity": {
            "largest_difference": report.parity.largest_difference,
            "images": report.parity.images,
            "batch_sizes": list(report.parity.batch_sizes),
        },
        "int8": None if report.gain is None else asdict(report.gain),
    }
    show(document, as_json, lambda tables: tables.exported(report))
