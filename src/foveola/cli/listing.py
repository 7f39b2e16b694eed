"""Commands that show what there is: data sets, recipes, a recipe's layers, this machine."""

from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import Json, Overrides, parse_image_shape, parse_overrides
from foveola.cli.output import show


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
    show({"datasets": rows}, as_json, lambda tables: tables.data_sets(rows))


def recipes(as_json: Json = False) -> None:
    """List the recipes that come with Foveola."""
    from foveola.recipe import load_recipe, recipe_names

    rows = [load_recipe(name).model_dump(mode="json", exclude_none=True) for name in recipe_names()]
    show({"recipes": rows}, as_json, lambda tables: tables.recipes(rows))


def summary(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or the path of a TOML file.")],
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

    loaded = load_recipe(recipe, parse_overrides(overrides))
    height, width, channels = parse_image_shape(image)
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
    show(document, as_json, lambda tables: tables.summary(title, steps))


def info(as_json: Json = False) -> None:
    """Show versions, folders and what this machine computes with."""
    from foveola.workflow.machine import describe

    document = describe()
    show(document, as_json, lambda tables: tables.facts(document))


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
