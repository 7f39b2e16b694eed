"""Summary: the layers of a network, their output shapes and costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foveola.documents import LayerRow, Summary
from foveola.errors import ModelError, UserError
from foveola.models.model_file import read_metadata
from foveola.models.shapes import LayerInfo, infer_shapes
from foveola.recipe import Recipe, load_recipe
from foveola.runs import Run
from foveola.workflow.open import model_path


def summary(
    recipe: str | Path | Recipe | Run,
    image_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    overrides: Mapping[str, Any] | None = None,
    diagram: str | Path | None = None,
) -> Summary:
    """The layers of a recipe's network, their output shapes, parameters and multiply-adds.

    Parameters
    ----------
    recipe : name, path of a TOML file, or a Recipe; or a Run, whose own network is described, so that the next three
        are not used
    image_shape : height, width and channels of the images
    classes : number of classes
    overrides : values by recipe key, as of `foveola.train`
    diagram : an .svg, .png or .pdf file, into which the network is drawn

    Returns
    -------
    The document of `foveola summary --json`; notebooks show it as a table.

    Raises
    ------
    UserError
        If the recipe cannot be used on such images, the run's network is your own, or the file cannot be written.

    Examples
    --------
    >>> foveola.summary("lenet5")
    Summary(lenet5 on 32×32×1: 8 layers, 61,706 parameters, 416,520 multiply-adds)
    """
    if isinstance(recipe, Run):
        name, input_shape, infos = _of_run(recipe)
    else:
        loaded = load_recipe(recipe, overrides)
        name, input_shape, infos = loaded.name, *_of_recipe(loaded, image_shape, classes)
    if diagram is not None:
        from foveola.reports.diagram import draw

        draw(name, input_shape, infos, Path(diagram))
    return Summary(
        recipe=name,
        input_shape=list(input_shape),
        layers=_layer_rows(infos),
        parameters=sum(info.parameters for info in infos),
        non_trainable=sum(info.buffers for info in infos),
        multiply_adds=sum(info.multiply_adds for info in infos),
        diagram=None if diagram is None else str(diagram),
    )


def _of_recipe(
    recipe: Recipe, image_shape: tuple[int, int, int], classes: int
) -> tuple[tuple[int, int, int], Sequence[LayerInfo]]:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise UserError(f"image_shape is {image_shape}; give height, width and channels, such as (28, 28, 1).")
    height, width, channels = image_shape
    input_shape = (height + 2 * recipe.pad, width + 2 * recipe.pad, channels)
    return input_shape, infer_shapes(recipe.layers, input_shape, classes)


def _of_run(run: Run) -> tuple[str, tuple[int, int, int], Sequence[LayerInfo]]:
    metadata = read_metadata(model_path(run.path))
    if metadata.layers is None:
        raise ModelError(f"The network of {run.path} is your own, not made of a recipe's layers. Print the module.")
    infos = infer_shapes(metadata.layers, metadata.network_shape, len(metadata.class_names))
    return run.recipe.name, metadata.network_shape, infos


def _layer_rows(infos: Sequence[LayerInfo]) -> list[LayerRow]:
    return [
        LayerRow(
            name=info.name,
            type=info.layer.type,
            output_shape=list(info.output_shape),
            parameters=info.parameters,
            multiply_adds=info.multiply_adds,
            layers=[row for branch in info.branches.values() for row in _layer_rows(branch)],
        )
        for info in infos
    ]
