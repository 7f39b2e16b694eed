"""Commands of the panel Training: recipes, summary, train."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveola.cli.defaults import is_given
from foveola.cli.options import (
    DEVICES,
    DeviceName,
    GroupColumn,
    Groups,
    ImageColumn,
    ImageRoot,
    Json,
    LabelColumn,
    LabelSeparator,
    Overrides,
    Plain,
    Quiet,
    Seed,
    SkipBad,
    SplitColumn,
    Threads,
    WeightColumn,
    complete,
    data_names,
    one_of,
    parse_duration,
    parse_image_shape,
    parse_overrides,
    recipe_names,
    table_columns,
    tracker_names,
)
from foveola.cli.output import show
from foveola.errors import UserError

if TYPE_CHECKING:
    from foveola.runs import Run


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Show every setting of this recipe, its value and meaning.",
            autocompletion=complete(recipe_names),
        ),
    ] = None,
    as_json: Json = False,
    quiet: Plain = False,
) -> None:
    """List the recipes that come with Foveola, or show the settings of one."""
    from foveola.models.pretrained import ENTRIES
    from foveola.recipe import load_recipe

    loaded = [load_recipe(known) for known in ([name] if name is not None else recipe_names())]
    used = {recipe.pretrained for recipe in loaded}
    document = {
        "recipes": [recipe.model_dump(mode="json", exclude_none=True) for recipe in loaded],
        "pretrained": [entry.description() for entry in ENTRIES.values() if entry.name in used],
    }
    if name is None:
        show(document, as_json, lambda tables: tables.recipes(loaded))
    else:
        show(document, as_json, lambda tables: tables.settings(loaded[0]))


def summary(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's name, or the path of a TOML file.",
            autocompletion=complete(recipe_names),
        ),
    ],
    image: Annotated[str, typer.Option(metavar="HxWxC", help="Height, width and channels of the images.")] = "28x28x1",
    classes: Annotated[int, typer.Option(min=2, metavar="K", help="Number of classes.")] = 10,
    diagram: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the network into this .svg, .png or .pdf file.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Plain = False,
) -> None:
    """Show a recipe's layers, their output shapes, parameters and multiply-adds."""
    from foveola.models.shapes import infer_shapes
    from foveola.recipe import load_recipe
    from foveola.workflow.summary import summary as summarize

    loaded = load_recipe(recipe, parse_overrides(overrides))
    document = summarize(loaded, parse_image_shape(image), classes, diagram=diagram)
    infos = infer_shapes(loaded.layers, tuple(document.input_shape), classes)
    title = f"{loaded.name} on {'×'.join(map(str, document.input_shape))}, {classes} classes"
    show(document, as_json, lambda tables: tables.summary(title, infos))


TrainingData = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]",
        help="A name that `foveola datasets` lists, or a path: image folder, table, .npz, IDX, packed.",
        autocompletion=complete(data_names),
    ),
]


def train(
    context: typer.Context,
    data: TrainingData = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="RECIPE",
            help="A recipe's name, the path of a TOML file, or auto: a pretrained network for photographs. "
            "Default: fast; with --budget, the most suitable one.",
            autocompletion=complete(lambda: ["auto", *recipe_names()]),
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Passes over the training data. Default: the recipe's."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Time limit for everything, such as 60s or 5m, reading and measuring included."
        ),
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR",
            help="Target error rate, such as 0.01: less confident predictions are reported as uncertain.",
        ),
    ] = None,
    reject_on_average: Annotated[
        bool,
        typer.Option(
            "--reject-on-average",
            help="With --reject: keep the target only on average over trainings, instead of with 90 % confidence.",
        ),
    ] = False,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run's folder. Default: a new one under runs/.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that is in --out already, once the new one is whole.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Continue an interrupted training with its settings; only --threads and --device may differ. Give its "
            "--callback again.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME", help="Time between checkpoints, from which --resume continues.")
    ] = "30s",
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Initialise from the weights of this run or model file, layer by layer while they agree.",
        ),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Do not train the layers that --init gave.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pretrained weights, .safetensors, instead of the published ones of the recipe.",
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Also learn from the probabilities of this run or model file; it needs the same classes and splits.",
        ),
    ] = None,
    find_rate: Annotated[
        bool,
        typer.Option(
            "--find-rate",
            help="Suggest a learning rate instead of training: plots the training loss while the rate grows.",
        ),
    ] = False,
    callback: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:CLASS",
            help="Add a training callback of your own: a subclass of foveola.Callback, such as stopping:StopAt in "
            "stopping.py here; may be repeated.",
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Log metrics, settings, pictures and model with tensorboard, mlflow or wandb, in the run's folder "
            "unless the tracker's environment variables say otherwise; may be repeated.",
            autocompletion=complete(tracker_names),
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(help="Write report.html at the end; with --budget, `foveola report` writes it later."),
    ] = True,
    skip_bad: SkipBad = 0,
    groups: Groups = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    weight_column: WeightColumn = None,
    image_root: ImageRoot = None,
    seed: Seed = 0,
    device: DeviceName = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier, measure it once on held-out test images, and write everything into a run directory."""
    from foveola.documents import TRACKERS
    from foveola.workflow.load_callbacks import load_callbacks
    from foveola.workflow.train import resume as resume_run
    from foveola.workflow.train import train as train_run

    if find_rate:
        _check_only(context, _WITH_FIND_RATE, "--find-rate does not train")
    elif resume is not None:
        _check_only(context, _WITH_RESUME, "--resume takes everything from the run")
        run = resume_run(
            resume, device=one_of("device", device, DEVICES) if is_given(context, "device") else None,
            threads=threads if is_given(context, "threads") else None,
            callbacks=load_callbacks(callback or ()), verbose=not quiet,
        )  # fmt: skip
        _show_training(run, as_json)
        return
    if data is None:
        raise UserError(
            "DATA is missing. Name it: foveola train digits; or go on with a run: foveola train --resume RUN."
        )
    budget, values = _length_and_settings(context, budget, epochs, reject, reject_on_average, overrides)
    columns = table_columns(
        image_column, label_column, group_column, split_column, weight_column, image_root, label_separator
    )
    if find_rate:
        from foveola.workflow.find_rate import find_rate as find

        curve = find(
            data, recipe or "fast", out=out, overrides=values, seed=seed, device=one_of("device", device, DEVICES),
            threads=threads, init=init, freeze=freeze, weights=weights, skip_bad=skip_bad, groups=groups,
            columns=columns, verbose=not quiet,
        )  # fmt: skip
        show(curve, as_json, lambda tables: tables.learning_rate(curve))
        return
    run = train_run(
        data, recipe, out=out, overrides=values, seed=seed, device=one_of("device", device, DEVICES),
        threads=threads, force=force,
        budget=None if budget is None else parse_duration(budget),
        init=init, freeze=freeze, weights=weights, teacher=teacher, skip_bad=skip_bad, groups=groups,
        callbacks=load_callbacks(callback or ()), log=[one_of("log", name, TRACKERS) for name in log or ()],
        report=report, columns=columns, checkpoint_every=parse_duration(checkpoint_every), verbose=not quiet,
    )  # fmt: skip
    _show_training(run, as_json)


def _length_and_settings(
    context: typer.Context,
    budget: str | None,
    epochs: int | None,
    reject: float | None,
    reject_on_average: bool,
    overrides: list[str] | None,
) -> tuple[str | None, dict[str, Any]]:
    """The time budget, if it counts, and values by recipe key."""
    if budget is not None and epochs is not None:
        if is_given(context, "budget") == is_given(context, "epochs"):
            raise UserError("--budget and --epochs both say how long to train. Give one of them.")
        budget, epochs = (budget, None) if is_given(context, "budget") else (None, epochs)  # the other is a default
    values = parse_overrides(overrides)
    if epochs is not None:
        values["epochs"] = epochs
    if reject is not None:
        values["reject"] = reject
    if reject_on_average and reject is None:
        raise UserError("--reject-on-average says how --reject is meant, but there is no --reject. Add --reject 0.01.")
    if reject_on_average:
        values["reject_mode"] = "average"
    return budget, values


# What may be given beside an option with which nothing is trained from the start
_WITH_RESUME = ("resume", "callback", "device", "threads", "as_json", "quiet")
_WITH_FIND_RATE = (
    "find_rate", "data", "recipe", "epochs", "overrides", "out", "init", "freeze", "weights", "skip_bad", "groups",
    "image_column", "label_column", "label_separator", "group_column", "split_column", "weight_column", "image_root",
    "seed", "device", "threads", "as_json", "quiet",
)  # fmt: skip


def _check_only(context: typer.Context, accepted: Sequence[str], reason: str) -> None:
    """Refuse options that do not fit another one, which the reason names."""
    for parameter in context.command.params:
        if parameter.name not in accepted and is_given(context, str(parameter.name)):
            name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else "DATA"
            raise UserError(
                f"{reason}, so that {name} cannot be given, too. Leave it out; or train anew, without "
                f"{reason.partition(' ')[0]}."
            )


def _show_training(run: "Run", as_json: bool) -> None:
    from foveola.documents import TrainedRun
    from foveola.training.distributed import leads

    if not leads():
        return
    status = run.status
    document = TrainedRun(**vars(status), run=str(run.path), evaluation=run.evaluation if status.data.test else None)
    show(document, as_json, lambda tables: tables.training(document))
