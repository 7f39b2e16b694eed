"""Commands of the panel Explanation: explain, convolve."""

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
    Plain,
    PredictingThreads,
    Quiet,
    one_of,
    parse_fixes,
    parse_position,
)
from foveola.cli.output import show

# foveola.explanation.cam has them too, but brings torch
CAM_METHODS = ("hires-cam", "grad-cam")


def explain(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Files, folders, patterns such as 'scans/*.png', or - (standard input)."),
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Also explain this class; may be repeated."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(metavar="hires-cam|grad-cam", help="How class activation maps are computed; grad-cam to compare."),
    ] = "hires-cam",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder. Default: explanation, explanation-2, …")
    ] = None,
    grey: Grey = False,
    fix: Fixes = None,
    device: DeviceName = "auto",
    threads: PredictingThreads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Explain predictions: feature maps, filters, HiResCAM and occlusion, as PNG files and one HTML page."""
    from foveola.workflow.explain import explain as explain_images

    place = one_of("device", device, DEVICES)
    document = explain_images(
        model, images, classes=classes or (), method=one_of("method", method, CAM_METHODS), out=out, grey=grey,
        fix=parse_fixes(fix), device=place, threads=threads, verbose=not quiet,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.explanation(document))


def convolve(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="An image file, - (standard input), or letter:A, letter:E.")
    ],
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            help="vertical-edge (default), horizontal-edge, diagonal, sharpen, blur, or rows such as [[1, -1]].",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stride in pixels. Default: 1; for pooling alone, the window's side."),
    ] = None,
    padding: Annotated[
        str, typer.Option(metavar="same|valid", help="same: zeros around the image; valid: no padding.")
    ] = "valid",
    pooling: Annotated[
        str | None,
        typer.Option("--pool", metavar="max|average", help="Pool the image; with --kernel, its output."),
    ] = None,
    size: Annotated[int, typer.Option(metavar="N", help="Side of the pooling window.")] = 2,
    position: Annotated[
        str | None,
        typer.Option(metavar="ROW,COLUMN", help="The output to show, counted from 0,0. Default: the largest."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="An interactive .html page, a .gif animation or a .png image.")
    ] = Path("convolution.html"),
    as_json: Json = False,
    quiet: Plain = False,
) -> None:
    """Show step by step what a convolution or a pooling computes on an image."""
    from foveola.workflow.convolve import convolve as run_lab

    document = run_lab(
        image, kernel, stride=stride, padding=one_of("padding", padding, ("same", "valid")),
        pool=None if pooling is None else one_of("pool", pooling, ("max", "average")),
        size=size, position=None if position is None else parse_position(position), out=out,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.convolution(document))
