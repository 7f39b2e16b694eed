"""Recipes: all settings of a training, read from TOML, with overrides."""

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from foveola.errors import ModelError, RecipeError, unknown
from foveola.files import verify_checksum
from foveola.models.layers import LAYERS, Layer, plain_layers
from foveola.models.pretrained import ENTRIES

# Strict: `epochs = true` is a mistake, not one epoch
Fraction = Annotated[float, Field(ge=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]

MIN_SIDE, MAX_SIDE = 4, 512


def _parse_image_size(value: Any) -> int | tuple[int, int] | None:
    """A side, or height and width, of a number, a text such as 48x96, or a list; equal sides become one."""
    if value is None:
        return None
    if isinstance(value, str) and (text := re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", value)):
        value = tuple(map(int, text.groups()))
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(type(side) is int for side in sides):
        raise ValueError(f"a side from {MIN_SIDE} to {MAX_SIDE} pixels, or height x width such as 48x96")
    if min(sides) < MIN_SIDE:
        raise ValueError(f"greater than or equal to {MIN_SIDE}")
    if max(sides) > MAX_SIDE:
        raise ValueError(f"less than or equal to {MAX_SIDE}")
    height, width = sides
    return height if height == width else (height, width)


ImageSize = Annotated[int | tuple[int, int] | None, BeforeValidator(_parse_image_size)]


def _check_pretrained(name: str) -> str:
    if name not in ("none", *ENTRIES):
        raise ValueError(" or ".join(map(repr, ("none", *ENTRIES))))
    return name


class Augment(BaseModel):
    """Random changes to training images, drawn anew for every image in every training step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shift: Whole = Field(default=0, description="maximum shift in each direction, in pixels")
    rotation: NonNegative = Field(default=0.0, description="maximum rotation in each direction, in degrees")
    zoom: Fraction = Field(default=0.0, description="maximum change of size: 0.1 is up to 10 % larger or smaller")
    flip: StrictBool | Literal["auto"] = Field(
        default="auto",
        description="mirror half of the images; auto: from 9 epochs on, if the catalog says that mirrored images keep "
        "their class",
    )
    cutout: Whole | Fraction = Field(
        default=0,
        description="side of a random square that is blanked, in pixels or, below 1, as a fraction of the image's "
        "shorter side (DeVries and Taylor, 2017); 0: none",
    )
    mixup: NonNegative = Field(
        default=0.0,
        description="alpha of the Beta distribution by which images are mixed (Zhang et al., 2018); 0: none",
    )
    strength: Annotated[float, Field(ge=0, le=1, strict=True)] = Field(
        default=0.0,
        description="for photographs: sets crop, brightness, contrast and colour where they are unset, from no change "
        "at 0 to those that networks for ImageNet are trained with at 1",
    )
    crop: Fraction | None = Field(
        default=None,
        description="smallest fraction of the area that a random crop keeps, resized to the whole; 0: no crops; unset: "
        "1 - 0.92 × strength (Szegedy et al., 2015)",
    )
    crop_size: Count | None = Field(
        default=None,
        description="side in pixels of random crops; smaller ones than the network's images train faster, and networks "
        "see objects as large as they are in whole images (Touvron et al., 2019); unset: the size of the images",
    )
    brightness: Fraction | None = Field(
        default=None,
        description="maximum change of brightness: 0.2 is up to 20 % darker or lighter; unset: 0.4 × strength (Gross "
        "and Wilber, 2016)",
    )
    contrast: Fraction | None = Field(
        default=None, description="maximum change of contrast: 0.2 is up to 20 % less or more; unset: 0.4 × strength"
    )
    colour: Fraction | None = Field(
        default=None,
        description="maximum change of saturation: 0.2 is up to 20 % less or more; hues turn by up to a quarter of it, "
        "in turns; unset: 0.4 × strength, or 0 if colour alone tells two of the classes apart",
    )

    def settled(self, *, colour: bool) -> Self:
        """With a number for every setting that is unset, by the strength; `colour` says whether colours may change.

        >>> from foveola.recipe import Augment
        >>> settled = Augment(strength=0.5, contrast=0.1).settled(colour=False)
        >>> settled.crop, settled.brightness, settled.contrast, settled.colour
        (0.54, 0.2, 0.1, 0.0)
        """
        change = round(0.4 * self.strength, 4)
        by_strength = {
            "crop": round(1 - 0.92 * self.strength, 4) if self.strength else 0.0,
            "brightness": change,
            "contrast": change,
            "colour": change if colour else 0.0,
        }
        return self.model_copy(update={key: value for key, value in by_strength.items() if getattr(self, key) is None})


class Distill(BaseModel):
    """How a training learns from a teacher besides the labels, if it has one (Hinton et al., 2015)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: Annotated[float, Field(ge=0, le=1, strict=True)] = Field(
        default=0.5,
        description="weight of the teacher's probabilities in the loss; the labels have the rest",
    )
    temperature: Positive = Field(
        default=4.0,
        description="divides the logits of teacher and student before they are compared: the higher, the more the "
        "unlikely classes count",
    )


class Recipe(BaseModel):
    """All settings of a training. Frozen; unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name of the recipe; the file name if missing")
    description: str = Field(default="", description="one line about the recipe, shown in lists")

    # Data
    validation: Fraction = Field(
        default=0.1, description="fraction of the training images used for validation, if the data has no such split"
    )
    test: Fraction = Field(default=0.2, description="fraction held out for testing, if the data has no test split")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: weight the loss so that all classes count equally"
    )

    # Preprocessing, stored in the model
    image_size: ImageSize = Field(
        default=None,
        description="side in pixels, or height x width such as 48x96, to which images are resized; unset: the size of "
        "the data",
    )
    resize: Literal["auto", "stretch", "letterbox"] = Field(
        default="auto",
        description="letterbox: keep the aspect of images and fill what is left; stretch: do not; auto: letterbox if "
        "stretching would change the aspect of more than 5 % of the images by more than a factor of 1.25",
    )
    channels: Literal["data", "grey", "rgb"] = Field(
        default="data", description="grey or rgb: convert all images; data: keep the channels of the data"
    )
    pad: Annotated[int, Field(ge=0, le=64, strict=True)] = Field(
        default=0, description="black pixels added on each side"
    )
    scaling: Literal["unit", "signed", "standard", "imagenet"] = Field(
        default="standard",
        description="unit: values from 0 to 1; signed: from -1 to 1; standard: zero mean and unit variance over the "
        "training images; imagenet: the same over ImageNet's, for networks that were trained on it",
    )

    # Network
    initialization: Literal["glorot-uniform", "he-normal", "he-uniform", "dirac", "whitened"] = Field(
        default="glorot-uniform",
        description="initial weights; dirac: he-uniform, but the first filters of hidden convolutions copy their "
        "input; whitened: as dirac, and the first convolution whitens the patches of the training images",
    )
    pretrained: Annotated[str, AfterValidator(_check_pretrained)] = Field(
        default="none",
        description="published weights that training begins with, all but the last layer's; `foveola recipes` names "
        "their source and licence; none: random weights",
    )
    layers: tuple[Layer, ...] = Field(description="layers of the network, in order; the last gives one value per class")

    # Length and batches
    epochs: Whole = Field(
        default=10, description="passes over the training images; 0: only the last layer is fitted, see head_views"
    )
    steps: Whole | None = Field(
        default=None, description="number of steps of the whole training, instead of epochs; set by --budget"
    )
    minimum_steps: Whole = Field(
        default=0, description="minimum number of steps: on small data, epochs are added to reach it"
    )
    batch_size: Count = Field(default=128, description="images per training step")
    batches: Literal["epoch", "random"] = Field(
        default="epoch", description="epoch: every image once per epoch; random: each batch drawn from all images"
    )
    steps_per_epoch: Count | None = Field(default=None, description="with random batches: number of steps in an epoch")

    # Optimization
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = Field(
        default="adam",
        description="adam, adamw, sgd or muon; muon: Muon for the kernels of hidden convolutions, AdamW for everything "
        "else",
    )
    learning_rate: Positive = Field(default=1e-3, description="peak learning rate of the schedule")
    muon_learning_rate: Positive = Field(
        default=0.07, description="muon: peak learning rate of the kernels that Muon trains"
    )
    momentum: Fraction = Field(default=0.9, description="Nesterov momentum of SGD and Muon")
    beta2: Fraction = Field(default=0.999, description="decay of the second moment in Adam and AdamW")
    epsilon: Positive = Field(default=1e-7, description="added to the denominator in Adam and AdamW")
    weight_decay: NonNegative = Field(
        default=0.0, description="weight decay of weight matrices and kernels, except kernels that Muon trains"
    )
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = Field(
        default="constant", description="learning-rate schedule: constant, cosine, one-cycle or step"
    )
    warmup: Fraction = Field(default=0.25, description="one-cycle: fraction of the steps before the peak")
    step_epochs: Count = Field(default=10, description="step: epochs between two drops of the learning rate")
    step_factor: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=0.1, description="step: factor by which each drop multiplies the learning rate"
    )
    head_views: Whole = Field(
        default=0,
        description="fit the last layer first, by logistic regression on the features of so many views of each image: "
        "the image, and randomly changed ones; 0: do not",
    )
    first_layer_rate: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=1.0,
        description="learning rate of the first layer, as a fraction of the last one's; in between, it grows by the "
        "same factor from layer to layer",
    )
    unfreeze: Fraction = Field(
        default=0.0,
        description="fraction of the steps during which layers begin to train, from the last to the first; 0: all "
        "train from the first step on",
    )
    freeze_statistics: StrictBool = Field(
        default=False,
        description="batch normalisation keeps the statistics it has; small batches would blur them",
    )
    label_smoothing: Fraction = Field(
        default=0.0, description="probability taken from the true class and spread over all classes; 0: none"
    )
    augment: Augment = Field(default=Augment(), description="random changes to the training images")
    distill: Distill = Field(default=Distill(), description="how to learn from a teacher, with --teacher")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="number format of the computation; auto: bf16 if the processor supports it natively"
    )

    # Selection, by validation images only
    keep: Literal["last", "best"] = Field(
        default="last", description="weights to keep: of the last epoch, or of the best one by the monitored metric"
    )
    monitor: Literal["val_loss", "val_accuracy", "val_auc"] = Field(
        default="val_loss", description="validation metric for keep and patience"
    )
    patience: Count | None = Field(
        default=None, description="epochs without improvement before training stops early; unset: never"
    )
    min_delta: NonNegative = Field(default=0.0, description="minimum change that counts as an improvement")
    epoch_auc: bool = Field(
        default=False, description="compute the macro one-vs-rest AUC of the validation images in every epoch"
    )
    reject: Fraction | None = Field(
        default=None,
        description="target error rate, such as 0.01: less confident predictions are reported as uncertain; unset: off",
    )
    reject_mode: Literal["guaranteed", "average"] = Field(
        default="guaranteed",
        description="guaranteed: the error rate stays below the target with the confidence below; average: only on "
        "average over trainings",
    )
    reject_confidence: Annotated[float, Field(gt=0, lt=1, strict=True)] = Field(
        default=0.9, description="guaranteed: how probable it is that the error rate stays below the target"
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.batches == "random" and self.steps_per_epoch is None:
            raise ValueError('batches = "random" needs steps_per_epoch, the number of batches in an epoch')
        if self.batches == "epoch" and self.steps_per_epoch is not None:
            raise ValueError('steps_per_epoch is only used with batches = "random"; remove it or set batches')
        uses_validation = self.keep == "best" or self.patience or self.epoch_auc or self.reject is not None
        if self.validation == 0 and uses_validation:
            raise ValueError(
                'keep = "best", patience, epoch_auc and reject need validation images; set validation above 0'
            )
        if self.epochs == 0 and not self.head_views:
            raise ValueError(
                "nothing would be trained: with epochs = 0, the last layer is fitted as head_views says; set it"
            )
        if self.batch_size == 1 and any(layer.type == "BatchNorm" for layer in plain_layers(self.layers)):
            raise ValueError("batch normalisation needs more than one image per batch; set batch_size to at least 2")
        if self.monitor == "val_auc" and not self.epoch_auc:
            raise ValueError('monitor = "val_auc" needs epoch_auc = true')
        return self

    def count_steps(self, per_epoch: int) -> int:
        """The steps of the whole training, with so many in an epoch."""
        if self.steps is not None:
            return self.steps
        return max(self.epochs * per_epoch, self.minimum_steps) if self.epochs else 0

    def to_toml(self) -> str:
        """The recipe as TOML; `load_recipe` reads it back unchanged."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def settings(self) -> list["Setting"]:
        """Every setting except name, description and layers, with its value and meaning.

        >>> from foveola.recipe import load_recipe
        >>> setting = load_recipe("west").settings()[0]
        >>> setting.key, setting.value
        ('validation', '0.2')
        """
        apart = ("name", "description", "layers", *TABLES)
        rows = [(name, getattr(self, name), field) for name, field in Recipe.model_fields.items() if name not in apart]
        for table, model in TABLES.items():
            values = getattr(self, table)
            rows += [(f"{table}.{name}", getattr(values, name), field) for name, field in model.model_fields.items()]
        return [Setting(key, _value_text(value), field.description or "") for key, value, field in rows]


# Settings that are tables of settings
TABLES: dict[str, type[Augment] | type[Distill]] = {"augment": Augment, "distill": Distill}


def _value_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe: its key, its value as text, and its meaning."""

    key: str
    value: str
    meaning: str


def recipe_names() -> list[str]:
    """The names of the recipes that come with Foveola.

    Examples
    --------
    >>> foveola.recipe_names()[:3]
    ['best', 'eduonix', 'efficientnet-lite0']
    """
    return sorted(
        entry.name.removesuffix(".toml") for entry in _recipes_folder().iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(source: "str | Path | Recipe", overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    source : the name of a recipe that comes with Foveola, the path of a TOML file, or a recipe
    overrides : values by key; `augment.shift` is the key shift in the table augment

    Raises
    ------
    RecipeError
        If the recipe does not exist, or a key or value is wrong.

    Examples
    --------
    >>> foveola.load_recipe("fast", {"epochs": 3, "augment.shift": 2}).augment.shift
    2
    """
    document, where = _read(source)
    if overrides and "epochs" in overrides:  # an explicit number of epochs is used as it is
        document |= {"minimum_steps": 0}
        document.pop("steps", None)
    for key, value in (overrides or {}).items():
        table = document
        *table_names, last = key.split(".")
        for name in table_names:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise RecipeError(f"{key!r} cannot be set: {name!r} is a value, not a table of settings.")
        table[last] = value
    return parse_recipe(document, where)


def merge_settings(
    overrides: Mapping[str, Any] | None, settings: Mapping[str, Any], function: Callable[..., Any]
) -> dict[str, Any]:
    """The overrides of a recipe, with the settings that a function was given as keywords.

    Parameters
    ----------
    settings : values by key; a dictionary, such as augment={"shift": 2}, sets the keys of a table and leaves the others
    function : the one that was called; its parameters are named beside the keys if one is unknown

    Raises
    ------
    RecipeError
        If a keyword is neither a parameter nor a key, or a key is given both ways.

    Examples
    --------
    >>> merge_settings({"epochs": 3}, {"augment": {"shift": 2}}, load_recipe)
    {'epochs': 3, 'augment.shift': 2}
    """
    merged = dict(overrides or {})
    for name, value in settings.items():
        if name not in Recipe.model_fields:
            every = inspect.signature(function).parameters.values()
            parameters = [each.name for each in every if each.kind is not each.VAR_KEYWORD]
            known = [*parameters, *(key for key in Recipe.model_fields if key not in ("name", "description", "layers"))]
            raise RecipeError(unknown(f"keyword of foveola.{function.__name__}", name, known))
        is_table = name in TABLES and isinstance(value, Mapping)
        entries = {f"{name}.{key}": each for key, each in value.items()} if is_table else {name: value}
        for key, each in entries.items():
            if key in merged or name in merged:
                raise RecipeError(f"{key} is given as a keyword and in overrides. Give it once.")
            merged[key] = each
    return merged


def parse_recipe(document: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate the keys and values of a recipe; `where` names the recipe in error messages."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_describe_errors(error)}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value` into key and value; the value is TOML, except that plain words need no quotes."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set takes key=value; got {text!r}. Example: --set learning_rate=0.002")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return key.strip(), value.strip()


def _recipes_folder() -> Any:
    return resources.files("foveola") / "recipes"


def _read(source: str | Path | Recipe) -> tuple[dict[str, Any], str]:
    if isinstance(source, Recipe):
        return source.model_dump(exclude_none=True), f"recipe {source.name}"
    names = recipe_names()
    if str(source) in names:
        text, where = (_recipes_folder() / f"{source}.toml").read_text("utf-8"), f"recipe {source}"
    elif (path := Path(source)).suffix == ".toml" or path.is_file():
        try:
            if path.exists() and not path.is_file():
                raise RecipeError(f"The recipe {path} is not a file. Give the path of a TOML file.")
            content = path.read_bytes()
            verify_checksum(path, content, "Copy the run again, or edit a copy of its recipe")
            text, where = content.decode(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error}. Give the path of a TOML file.") from None
        except ModelError as altered:  # of a finished run, which lists it in SHA256SUMS
            raise RecipeError(str(altered)) from None
    else:
        raise RecipeError(unknown("recipe", str(source), names) + " Or give the path of a TOML file.")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers with too many digits, and of too many brackets
        raise RecipeError(f"{where} is not valid TOML: {error}. Correct the file.") from None
    return {"name": Path(source).stem, **document}, where


def _describe_errors(error: ValidationError) -> str:
    """One sentence per invalid key, in the terms of the TOML file."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_key_in_file(problem["loc"]), []).append(problem)
    return " ".join(_describe_error(key, alternatives) for key, alternatives in problems.items())


def _layer_at(location: tuple[int | str, ...]) -> tuple[str, tuple[int | str, ...]]:
    """The layer in the file that a pydantic error location points into; and the rest of the location: type, setting."""
    if len(location) > 4 and location[2] == "Residual":
        return f"layers[{location[1]}].{location[3]}[{location[4]}]", location[5:]
    return f"layer {int(location[1]) + 1}", location[2:]


def _key_in_file(location: tuple[int | str, ...]) -> str:
    """The key that a pydantic error location points to, without pydantic's names of types."""
    if location[:1] == ("layers",) and len(location) > 1:
        place, rest = _layer_at(location)
        return " ".join([place, *(f"({name})" for name in rest[:1]), *map(str, rest[1:2])])
    return ".".join(map(str, location[: 2 if location and location[0] in TABLES else 1]))


def _describe_error(key: str, problems: list[Any]) -> str:
    """Why a key cannot be used; `problems` has one entry for each type that its value may have."""
    location, kind, value = (problems[0][item] for item in ("loc", "type", "input"))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        place, name = _layer_at(location)[0].replace("layer ", "Layer "), str(value.get("type", ""))
        if name == "Residual":
            return f"{place} is a Residual inside a Residual. Put the layers of both into one, or one after the other."
        return f"{place}: " + unknown("layer", name, LAYERS)
    if kind == "extra_forbidden" and location[0] == "layers":
        place, (kind, setting) = _layer_at(location)
        settings = LAYERS[str(kind)].model_fields.keys() - {"type"}
        return f"{place.replace('layer ', 'Layer ')}: " + unknown(f"{kind} setting", str(setting), settings)
    if kind == "extra_forbidden":
        known = TABLES.get(str(location[0]), Recipe).model_fields if len(location) > 1 else Recipe.model_fields
        return unknown("key", str(location[-1]), known)
    if kind == "missing":
        return f"{key} is missing."
    reasons = [problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for problem in problems]
    if not location:
        return f"{reasons[0][0].upper()}{reasons[0][1:]}."
    return f"{key} is {value!r}; it should be {' or '.join(dict.fromkeys(reasons))}."
