"""Recipes: all settings of a training, read from TOML, with overrides."""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from foveola.errors import ModelError, RecipeError, unknown
from foveola.files import verify_checksum
from foveola.models.layers import Layer, plain_layers
from foveola.recipe_errors import describe_errors
from foveola.recipe_parts import (
    TABLES,
    Augment,
    Count,
    Distill,
    Fraction,
    ImageSize,
    NonNegative,
    Positive,
    PretrainedName,
    Whole,
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
        description="letterbox: keep the aspect ratio of images and fill the rest; stretch: change it; auto: letterbox "
        "if stretching would change the aspect ratio of more than 5 % of the images by more than a factor of 1.25",
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
        "training images; imagenet: zero mean and unit variance over ImageNet's, for networks that were trained on it",
    )

    # Network
    initialization: Literal["glorot-uniform", "he-normal", "he-uniform", "dirac", "whitened"] = Field(
        default="glorot-uniform",
        description="initial weights; dirac: he-uniform, but the first filters of hidden convolutions copy their "
        "input; whitened: as dirac, and the first convolution whitens the patches of the training images",
    )
    pretrained: PretrainedName = Field(
        default="none",
        description="published weights from which the training starts, except the last layer's; `foveola recipes` "
        "names their source and licence; none: random weights",
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
        description="fit the last layer first, by logistic regression on the features of this many views of each "
        "image: the image itself, and augmented copies; 0: off",
    )
    first_layer_rate: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=1.0,
        description="learning rate of the first layer, as a fraction of the last layer's; in between, it grows by the "
        "same factor from layer to layer",
    )
    unfreeze: Fraction = Field(
        default=0.0,
        description="fraction of the steps over which layers are unfrozen one by one, from the last to the first; 0: "
        "all layers train from the first step on",
    )
    freeze_statistics: StrictBool = Field(
        default=False,
        description="keep the running statistics of batch normalisation as they are; those of small batches are noisy",
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
        description="guaranteed: with the probability reject_confidence, the error rate stays below the target; "
        "average: only on average over trainings",
    )
    reject_confidence: Annotated[float, Field(gt=0, lt=1, strict=True)] = Field(
        default=0.9, description="with guaranteed: probability that the error rate stays below the target"
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
        """Number of steps of the whole training, given the steps per epoch."""
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
        raise RecipeError(f"{where}: {describe_errors(error, Recipe.model_fields)}") from None


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
            text, where = content.decode("utf-8-sig"), str(path)
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
