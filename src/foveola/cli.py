"""The command line: one short function a command."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from foveola.errors import FoveolaError, OutputError, UserError, unknown

app = typer.Typer(
    help="Small labelled images in, a classifier you can trust out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEVICES = ("auto", "cpu", "cuda")

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A name that `foveola datasets` lists, or a path: IDX folder, .npz, image folder."
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run directory or a model file.")]
RecipeSource = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or the path of a TOML file.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, all else on standard error.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Seed = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of validation split, weights, order, augmentation and dropout.")
]
DeviceName = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute; auto takes a GPU if there is one.")
]
SkipBad = Annotated[int, typer.Option(min=0, metavar="N", help="Leave out up to N unreadable images.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value; may be repeated.")
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="foveola")
    except SystemExit as end:  # how Typer always ends; it has worded wrong usage itself, and ends 130 on an interrupt
        return _complain("Interrupted.", 130) if end.code == 130 else int(end.code or 0)
    except FoveolaError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        return _complain(f"The operating system refused: {error}", 1)
    except MemoryError:
        return _complain("Memory ran out. Use a smaller image_size (--set image_size=32) or fewer images.", 1)
    return 0


@app.command(epilog="Example: foveola datasets --json")
def datasets(as_json: Json = False) -> None:
    """List the data sets known by name, and where they lie."""
    from foveola.datasets import CATALOG, locate

    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "train": entry.train_images,
            "test": entry.test_images,
            "image_shape": list(entry.image_shape),
            "classes": list(entry.class_names),
            "licence": entry.licence,
            "citation": entry.citation,
            "path": "embedded" if not entry.files else _text(locate(entry.name)),
        }
        for entry in CATALOG.values()
    ]
    _show({"datasets": rows}, as_json, lambda tables: tables.data_sets(rows))


@app.command(epilog="Example: foveola recipes")
def recipes(as_json: Json = False) -> None:
    """List the recipes that come with Foveola."""
    from foveola.recipe import load_recipe, recipe_names

    rows = [load_recipe(name).model_dump(mode="json", exclude_none=True) for name in recipe_names()]
    _show({"recipes": rows}, as_json, lambda tables: tables.recipes(rows))


@app.command(epilog="Example: foveola summary west --image 28x28x1 --diagram west.svg")
def summary(
    recipe: RecipeSource,
    image: Annotated[str, typer.Option(metavar="HxWxC", help="Height, width and channels of the images.")] = "28x28x1",
    classes: Annotated[int, typer.Option(min=2, metavar="K", help="Number of classes.")] = 10,
    diagram: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the network into this .svg, .png or .pdf file.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show a recipe's layers, their output shapes, parameters and multiply-adds."""
    from foveola.architecture import trace
    from foveola.recipe import load_recipe

    loaded = load_recipe(recipe, _overrides(overrides))
    height, width, channels = _image_shape(image)
    input_shape = (height + 2 * loaded.pad, width + 2 * loaded.pad, channels)
    steps = trace(loaded.layers, input_shape, classes)
    if diagram is not None:
        from foveola.report.diagram import draw

        draw(loaded.name, input_shape, steps, diagram)
    rows = [
        {
            "name": step.name,
            "type": step.layer.type,
            "output_shape": list(step.output_shape),
            "parameters": step.parameters,
            "multiply_adds": step.multiply_adds,
        }
        for step in steps
    ]
    document = {
        "recipe": loaded.name,
        "input_shape": list(input_shape),
        "layers": rows,
        "parameters": sum(step.parameters for step in steps),
        "non_trainable": sum(step.state for step in steps),
        "multiply_adds": sum(step.multiply_adds for step in steps),
        "diagram": _text(diagram),
    }
    title = f"{loaded.name} on {'×'.join(map(str, input_shape))}, {classes} classes"
    _show(document, as_json, lambda tables: tables.summary(title, steps))


@app.command(
    epilog="Examples: foveola train digits · foveola train mnist --recipe lenet5 --seed 98 · "
    "foveola train fashion-mnist --budget 60s · "
    "foveola train my-pictures --epochs 20 --set augment.flip=true --out runs/mine"
)
def train(
    data: Data,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", metavar="RECIPE", help="A recipe's name, or the path of a TOML file.")
    ] = "fast",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How often to go through the images; the recipe's by default."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End within this time, such as 60s or 5m, reading and measuring included."),
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
    values = _overrides(overrides)
    if epochs is not None:
        values["epochs"] = epochs
    run = train_run(
        data, recipe, out=out, overrides=values, seed=seed, device=_one_of("device", device, DEVICES), force=force,
        budget=None if budget is None else parse_duration(budget),
        init=init, freeze=freeze, skip_bad=skip_bad, verbose=not quiet,
    )  # fmt: skip
    status = run.status
    document = {"run": str(run.path), **status, "evaluation": run.evaluation if status["data"]["test"] else None}
    _show(document, as_json, lambda tables: tables.trained(run.path, document))


@app.command(epilog="Example: foveola evaluate runs/mnist-fast mnist")
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

    name = _one_of("split", split, SPLITS)
    predictor = open_model(model, device=_one_of("device", device, DEVICES))
    document = evaluate_model(predictor, data, split=name, skip_bad=skip_bad, verbose=not quiet)
    if out is not None:
        try:
            write_atomically(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error}. Choose another file with --out.") from None
    _show(document, as_json, lambda tables: tables.evaluation(document))


@app.command(epilog="Example: foveola predict runs/mnist-fast seven.png photo.jpg")
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Picture files of any size.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to name.")] = 3,
    grey: Annotated[bool, typer.Option("--grey", help="Convert colour pictures for a model of grey images.")] = False,
    device: DeviceName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Classify pictures; what looks unlike the training images is reported, never silently changed."""
    from foveola.workflow.opening import open_model
    from foveola.workflow.predict import predict as predict_images

    predictor = open_model(model, device=_one_of("device", device, DEVICES))
    answers = predict_images(predictor, images, grey=grey, top=top, verbose=not quiet)
    document = {
        "predictions": [
            {
                "image": answer.image,
                "class": answer.class_name,
                "probability": answer.probability,
                "top": [{"class": name, "probability": probability} for name, probability in answer.top],
                "findings": answer.findings,
            }
            for answer in answers
        ]
    }
    _show(document, as_json, lambda tables: tables.answers(answers))


@app.command(epilog="Example: foveola info")
def info(as_json: Json = False) -> None:
    """Show versions, folders and what this machine computes with."""
    from foveola.workflow.machine import describe

    document = describe()
    _show(document, as_json, lambda tables: tables.facts(document))


def _show(document: dict[str, Any], as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print the document as JSON, or as the table that `render` makes of it."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    from foveola.report import tables

    # A pipe has no width of its own; a table that is folded at 80 columns cannot be searched
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)
    console.print(render(tables))


def _complain(message: str, code: int) -> int:
    typer.echo(f"foveola: {message}", err=True)
    return code


def _overrides(settings: list[str] | None) -> dict[str, Any]:
    from foveola.recipe import parse_override

    return dict(parse_override(setting) for setting in settings or [])


def _image_shape(text: str) -> tuple[int, int, int]:
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f"--image is {text!r}; it should be height x width x channels, such as 28x28x1.")
    height, width, channels = map(int, sides)
    return height, width, channels


def _one_of(option: str, value: str, known: Sequence[str]) -> Any:
    if value not in known:
        raise UserError(unknown(f"--{option}", value, known))
    return value


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
