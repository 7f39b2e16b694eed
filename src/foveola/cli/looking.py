"""Commands that look inside: what a model sees in pictures, what a convolution does."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import DEVICES, DeviceName, Fixes, Grey, Json, Model, Quiet, one_of, parse_fixes
from foveola.cli.output import show
from foveola.errors import UserError


def explain(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Picture files of any size.")],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Explain this class as well; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder; explanation, or the next number, by default.")
    ] = None,
    grey: Grey = False,
    fix: Fixes = None,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a model sees in pictures: feature maps, filters, Grad-CAM, occlusion; PNGs and one HTML page."""
    from foveola.workflow.explain import explain as explain_images

    place = one_of("device", device, DEVICES)
    document = explain_images(
        model, images, classes=classes or (), out=out, grey=grey, fix=parse_fixes(fix), device=place, verbose=not quiet
    )
    show(document, as_json, lambda tables: tables.explained(document))


def convolve(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture file, or letter:A, letter:E.")],
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            help="vertical-edge (the default), horizontal-edge, diagonal, sharpen, blur, or rows such as [[1, -1]].",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pixels from one place to the next; 1, of pooling alone the window's side."),
    ] = None,
    padding: Annotated[str, typer.Option(metavar="same|valid", help="Zeros around the image, or none.")] = "valid",
    pooling: Annotated[
        str | None,
        typer.Option("--pool", metavar="max|average", help="Pool: with --kernel what it gives, else the image."),
    ] = None,
    size: Annotated[int, typer.Option(metavar="N", help="Side of the pooling window.")] = 2,
    position: Annotated[
        str | None, typer.Option(metavar="ROW,COLUMN", help="The output to show, from 0,0; the largest by default.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="An interactive .html page, a .gif animation or a .png picture.")
    ] = Path("convolution.html"),
    as_json: Json = False,
) -> None:
    """Show step by step what a convolution or a pooling does to an image."""
    from foveola.workflow.convolve import convolve as run_lab

    document = run_lab(
        image, kernel, stride=stride, padding=one_of("padding", padding, ("same", "valid")),
        pool=None if pooling is None else one_of("pool", pooling, ("max", "average")),
        size=size, position=None if position is None else parse_position(position), out=out,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.convolved(document))


def parse_position(text: str) -> tuple[int, int]:
    """Row and column of a text such as 2,3.

    Raises
    ------
    UserError
        If it is something else.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--position is {text!r}; it should be row,column of the output, counted from 0, such as 2,3.")
    row, column = map(int, parts)
    return row, column
