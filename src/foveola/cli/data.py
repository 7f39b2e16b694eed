"""Commands of the panel Data: datasets, audit, pack."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import (
    DEVICES,
    Data,
    DeviceName,
    GroupColumn,
    Groups,
    ImageColumn,
    ImageRoot,
    Json,
    LabelColumn,
    LabelSeparator,
    Plain,
    Quiet,
    Seed,
    SkipBad,
    SplitColumn,
    Threads,
    WeightColumn,
    complete,
    one_of,
    parse_image_size,
    recipe_names,
    table_columns,
)
from foveola.cli.output import show


def datasets(as_json: Json = False, quiet: Plain = False) -> None:
    """List the data sets known by name, and whether they are on this machine."""
    from foveola.workflow.catalog import catalog

    document = catalog()
    show(document, as_json, lambda tables: tables.datasets(document))


def audit(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the findings. Default: audits/NAME.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            metavar="RECIPE",
            help="Recipe of the networks that predict the labels, or auto: a pretrained network for photographs.",
            autocompletion=complete(lambda: ["auto", *recipe_names()]),
        ),
    ] = "fast",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes over the training data, for each network. Default: the recipe's (5 for fast); of a "
            "pretrained network, only the last layer is trained.",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, metavar="N", help="Number of cross-validation folds.")] = 3,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="Also train with and without the first label suspects, and compare the accuracies.",
        ),
    ] = False,
    groups: Groups = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    weight_column: WeightColumn = None,
    image_root: ImageRoot = None,
    skip_bad: SkipBad = 0,
    seed: Seed = 0,
    device: DeviceName = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find duplicates, leaks between splits, placeholders, outliers and class imbalance, and rank suspicious labels."""
    from foveola.workflow.audit import audit as audit_data

    document = audit_data(
        data, out=out, recipe=recipe, epochs=epochs, folds=folds, seed=seed, retrain=retrain,
        device=one_of("device", device, DEVICES), threads=threads, groups=groups, skip_bad=skip_bad,
        columns=table_columns(
            image_column, label_column, group_column, split_column, weight_column, image_root, label_separator
        ),
        verbose=not quiet,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.audit(document))


def pack(
    data: Data,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder to write. Default: packed/NAME.")] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Size of the images: 64, or height x width, 48x64. Default: as `train`."),
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Convert colour images to grey.")] = False,
    groups: Groups = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    weight_column: WeightColumn = None,
    image_root: ImageRoot = None,
    skip_bad: SkipBad = 0,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that decode images. Default: one per core.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the packed data set in --out, once the new one is whole.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Pack nothing: compare all images of the packed DATA with checksums.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode a data set once into a folder that is read whole, or image by image if it exceeds memory."""
    from foveola.workflow.pack import pack as pack_data

    document = pack_data(
        data, out, image_size=None if image_size is None else parse_image_size(image_size),
        channels=1 if grey else None, groups=groups, skip_bad=skip_bad, processes=processes, force=force,
        columns=table_columns(
            image_column, label_column, group_column, split_column, weight_column, image_root, label_separator
        ),
        verify=verify, verbose=not quiet,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.packed(document))
