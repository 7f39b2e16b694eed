"""Command of the panel Training: tune."""

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
    Overrides,
    Quiet,
    SkipBad,
    SplitColumn,
    Threads,
    WeightColumn,
    complete,
    one_of,
    parse_duration,
    parse_overrides,
    recipe_names,
    table_columns,
)
from foveola.cli.output import show, to_json


def tune(
    data: Data,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            metavar="RECIPE",
            help="Recipe to start from; it is the first trial.",
            autocompletion=complete(recipe_names),
        ),
    ] = "fast",
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with a range or choices by recipe key. Default: learning rates, weight decay, label "
            "smoothing and augmentation around the recipe's values.",
        ),
    ] = None,
    show_space: Annotated[
        bool, typer.Option("--show-space", help="Print the search space as TOML, or with --json, and exit.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time limit for everything, such as 10m, the last training included."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials of the study in all. Default: 30, with --budget no limit."),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(metavar="log_loss|accuracy", help="Metric to optimise on validation images."),
    ] = "log_loss",
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="K",
            help="Score recipes by K-fold cross-validation. Default: held-out images, or 5 folds if these are fewer "
            "than 1,000.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="R", help="With --folds: draw the folds R times.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for study, report and run. Default: tunings/DATA-RECIPE."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="SQLAlchemy URL of a database, which several machines can share. Default: OUT/study.db."
        ),
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study in the database. Default: DATA-RECIPE.")
    ] = None,
    overrides: Overrides = None,
    groups: Groups = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    weight_column: WeightColumn = None,
    image_root: ImageRoot = None,
    skip_bad: SkipBad = 0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of folds, search and trainings.")] = 0,
    device: DeviceName = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for a better recipe on validation images; train the best one once, and measure it on test images."""
    from foveola.workflow.tune import starting_space
    from foveola.workflow.tune import tune as tune_recipe

    values = parse_overrides(overrides)
    if show_space:
        searched = starting_space(recipe, values, space)
        typer.echo(to_json({"space": searched.to_document()}) if as_json else searched.to_toml().rstrip())
        return
    document = tune_recipe(
        data, recipe, space=space, out=out, overrides=values, trials=trials,
        budget=None if budget is None else parse_duration(budget),
        objective=one_of("objective", objective, ("log_loss", "accuracy")), folds=folds, repeats=repeats,
        study=study, study_name=study_name, seed=seed, device=one_of("device", device, DEVICES), threads=threads,
        skip_bad=skip_bad, groups=groups,
        columns=table_columns(
            image_column, label_column, group_column, split_column, weight_column, image_root, label_separator
        ),
        verbose=not quiet,
    )  # fmt: skip
    show(document, as_json, lambda tables: tables.tuning(document))
