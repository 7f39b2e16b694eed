"""Write docs/recipes.md from the schema of recipes and layers: `make docs`."""

import inspect
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from foveola.models.layers import LAYERS
from foveola.models.shapes import infer_shapes
from foveola.recipe import Recipe, load_recipe, recipe_names
from foveola.recipe_parts import TABLES, Augment, Distill

PAGE = Path(__file__).with_suffix(".md")
APART = ("name", "description", "layers", *TABLES)


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Recipes",
        "A recipe is a TOML file with all settings of a training: preprocessing, layers, length, optimizer, selection "
        "of the best weights. `foveola recipes NAME` prints one with its values, `--set key=value` changes a value, "
        "and `--recipe my.toml` uses a file of your own. This page is generated from the code (`make docs`).",
        "## Recipes that come with Foveola",
        _table(("name", "description", "parameters", "epochs"), _recipes()),
        "Parameters are counted for 28×28 grey images and ten classes. Recipes with `minimum_steps` train for more "
        "epochs on small data.",
        "## Settings",
        _table(("setting", "values", "default", "meaning"), _settings(Recipe, "")),
        "Augmentation: random changes to the training images, such as `augment.shift`:",
        _table(("setting", "values", "default", "meaning"), _settings(Augment, "augment.")),
        "How a training with `--teacher RUN` learns from the teacher:",
        _table(("setting", "values", "default", "meaning"), _settings(Distill, "distill.")),
        "## Augmentation for photographs",
        "`augment.strength`, from 0 to 1, sets crops, brightness, contrast and colour where they are unset. At 1 they "
        "are those with which ResNets were trained on ImageNet (Gross and Wilber, 2016): crops down to 8 % of the "
        "area, everything else up to ±40 %. Settings of their own take precedence: `--set augment.strength=0.5 --set "
        "augment.crop=0`. `foveola train` prints which changes are on.",
        "**Colours are changed only where they do not tell classes apart.** Before a training with `augment.strength`, "
        "a classifier of colour histograms, without brightness, is cross-validated on the training images. If it tells "
        "any two classes apart in 90 % of their images, colours are not changed, and the training names the classes "
        "and the accuracy. With few images a class, chance alone can reach 90 %; colours are then not changed either. "
        "The test misses a colour that fills less than about half a percent of the image, such as a small lamp: set "
        "`augment.colour=0` there. `--set augment.colour=0.2` changes colours in any case. Measurements: [lab "
        "notes](lab/augmentation.md).",
        "## Learning from a teacher",
        "`foveola train DATA --recipe fast --teacher RUN` learns from the probabilities of an earlier run (or model "
        "file) besides the labels: distillation (Hinton et al., 2015). The loss is the mean of the losses on both, "
        "weighted by `distill.weight`. The teacher predicts each training image once, without augmentation. It needs "
        "the same classes in the same order. A teacher for images of another size reads the files in its own size. A "
        "teacher that has learnt from validation or test images is refused, because the student's metrics would be too "
        "high: train both on the same data with the same `--seed`. The run records the teacher's file and checksum. On "
        "Fashion-MNIST, `fast` gained 0.3 to 0.6 points of accuracy from `strong`, and its calibration got worse (ECE "
        "0.010 to 0.020). On photographs (trashnet-150), `fast` gained 0.06 in log loss from `efficientnet-lite0`. "
        "Where probabilities matter, compare trainings with and without a teacher. Measurements: [lab "
        "notes](lab/distillation.md).",
        "## Finding a learning rate",
        "`foveola train DATA --recipe RECIPE --find-rate` trains for 210 batches while the learning rate grows from "
        "10⁻⁶ to 10, or until the loss diverges (the range test of Smith, 2017), plots the training loss over the rate "
        "into `rates/DATA-RECIPE/learning_rate.html` and `.png`, and prints a suggestion with the `--set` options to "
        "use it; `--json` gives the curve. It reads training images only, and writes no run. The suggestion is a tenth "
        "of "
        'the rate with the lowest smoothed loss; with `schedule = "one-cycle"`, that rate itself. How good it is: '
        "[benchmarks.md](benchmarks.md#learning-rate-finder).",
        "## Layers",
        "Each entry of `layers` is a table with a `type` and its settings.",
        _table(("type", "meaning", "settings (default)"), _layers()),
        "## Example",
        f"```toml\n{_source('lenet5')}```",
    ]
    return "\n\n".join(parts) + "\n"


def _recipes() -> list[tuple[str, ...]]:
    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        infos = infer_shapes(recipe.layers, (28 + 2 * recipe.pad, 28 + 2 * recipe.pad, 1), 10)
        parameters = sum(info.parameters for info in infos)
        rows.append((f"`{name}`", recipe.description, f"{parameters:,}", str(recipe.epochs)))
    return rows


def _settings(model: type[Recipe] | type[Augment] | type[Distill], prefix: str) -> list[tuple[str, ...]]:
    return [
        (f"`{prefix}{name}`", _values(field.annotation), _default(field), field.description or "")
        for name, field in model.model_fields.items()
        if name not in APART
    ]


def _layers() -> list[tuple[str, ...]]:
    rows = []
    for name, layer in LAYERS.items():
        fields = {key: field for key, field in layer.model_fields.items() if key != "type"}
        settings = ", ".join(f"`{key}` ({_default(field)})" for key, field in fields.items())
        rows.append((f"`{name}`", (inspect.getdoc(layer) or "").partition("\n")[0], settings))
    return rows


def _values(annotation: Any) -> str:
    names = {"int": "whole number", "float": "number", "bool": "true, false", "str": "text", "NoneType": "not set"}
    options = get_args(annotation)
    if get_origin(annotation) is tuple:
        return "`HxW`"
    if not options:
        return names.get(getattr(annotation, "__name__", ""), str(annotation))
    if all(isinstance(option, str) for option in options):
        return ", ".join(f"`{option}`" for option in options)
    if any(hasattr(option, "strict") or type(option).__module__.startswith("pydantic") for option in options[1:]):
        return _values(options[0])
    return ", ".join(dict.fromkeys(_values(option) for option in options))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is None:
        return "not set"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _source(name: str) -> str:
    import foveola

    return (Path(foveola.__file__).parent / "recipes" / f"{name}.toml").read_text("utf-8")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
