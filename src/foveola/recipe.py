"""Recipe: every choice that shapes training, from TOML, with overrides."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from foveola.errors import RecipeError, unknown
from foveola.layers import LAYERS, Layer

# Strict: `epochs = true` is a mistake, not one epoch
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Augment(BaseModel):
    """Random changes to training images, drawn anew for every image of every step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shift: Whole = Field(default=0, description="up to so many pixels each way")
    rotation: NonNegative = Field(default=0.0, description="up to so many degrees each way")
    zoom: Share = Field(default=0.0, description="up to this share larger or smaller")
    flip: StrictBool | Literal["auto"] = Field(
        default="auto",
        description="mirror half of the images; auto: only if the catalog says that a mirror image keeps its class",
    )
    cutout: Whole = Field(
        default=0, description="side in pixels of a square of the mean colour (DeVries and Taylor, 2017)"
    )
    mixup: NonNegative = Field(default=0.0, description="alpha of the Beta distribution (Zhang et al., 2018)")


class Recipe(BaseModel):
    """Every choice that shapes training. Frozen; unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    description: str = ""

    # Data
    validation: Share = Field(default=0.1, description="share of the training images that selection uses")
    test: Share = Field(default=0.2, description="share held out where the data brings no test split")
    class_weights: Literal["none", "balanced"] = Field(default="none", description="balanced: rare classes weigh more")

    # Preprocessing, kept inside the model
    image_size: Annotated[int, Field(ge=4, le=512, strict=True)] | None = Field(
        default=None, description="side in pixels; unset: the data's own"
    )
    channels: Literal["data", "grey", "rgb"] = "data"
    pad: Annotated[int, Field(ge=0, le=64, strict=True)] = Field(
        default=0, description="black pixels added on each side"
    )
    scaling: Literal["unit", "standard"] = Field(
        default="standard", description="unit: 0 to 1; standard: zero mean and unit variance over the training images"
    )

    # Network
    initialization: Literal["glorot-uniform", "he-normal", "he-uniform", "dirac", "whitened"] = Field(
        default="glorot-uniform",
        description="dirac: he-uniform, but hidden convolutions pass their input through in the first filters; "
        "whitened: so, and the first convolution tells apart what varies in the training images' patches",
    )
    layers: tuple[Layer, ...]

    # Length and batches
    epochs: Count = 10
    steps: Count | None = Field(default=None, description="ends training in the middle of an epoch; set by --budget")
    minimum_steps: Whole = Field(default=0, description="epochs are added on small data until there are so many steps")
    batch_size: Count = 128
    batches: Literal["epoch", "random"] = Field(
        default="epoch", description="epoch: every image once an epoch; random: each batch drawn from all images"
    )
    steps_per_epoch: Count | None = Field(default=None, description="for random batches: how many make an epoch")

    # Optimization
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = Field(
        default="adam", description="muon: for the kernels of hidden convolutions, AdamW for all else"
    )
    learning_rate: Positive = 1e-3
    muon_learning_rate: Positive = Field(default=0.07, description="of the kernels that Muon learns")
    momentum: Share = Field(default=0.9, description="of SGD and Muon (Nesterov's)")
    beta2: Share = Field(default=0.999, description="of Adam and AdamW")
    epsilon: Positive = Field(default=1e-7, description="of Adam and AdamW")
    weight_decay: NonNegative = Field(default=0.0, description="on weight matrices and kernels only; none with Muon's")
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "constant"
    warmup: Share = Field(default=0.25, description="one-cycle: share of the steps before the peak")
    step_epochs: Count = Field(default=10, description="step: epochs between two drops")
    step_factor: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=0.1, description="step: what a drop multiplies by"
    )
    label_smoothing: Share = 0.0
    augment: Augment = Augment()
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the processor computes in it"
    )

    # Selection, on validation images only
    keep: Literal["last", "best"] = Field(default="last", description="the weights of the last or of the best epoch")
    monitor: Literal["val_loss", "val_accuracy", "val_auc"] = "val_loss"
    patience: Count | None = Field(default=None, description="epochs without improvement before an early stop")
    min_delta: NonNegative = Field(default=0.0, description="the least change that counts as an improvement")
    epoch_auc: bool = Field(default=False, description="macro one-vs-rest AUC of the validation images, every epoch")
    reject: Share | None = Field(
        default=None, description="accepted share of wrong answers; less sure ones are called uncertain to keep it"
    )

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if self.batches == "random" and self.steps_per_epoch is None:
            raise ValueError('batches = "random" needs steps_per_epoch, the number of batches between two validations')
        if self.batches == "epoch" and self.steps_per_epoch is not None:
            raise ValueError('steps_per_epoch goes with batches = "random"')
        chooses = self.keep == "best" or self.patience or self.epoch_auc or self.reject is not None
        if self.validation == 0 and chooses:
            raise ValueError(
                'keep = "best", patience, epoch_auc and reject choose by validation images; set validation above 0'
            )
        if self.batch_size == 1 and any(layer.type == "BatchNorm" for layer in self.layers):
            raise ValueError("batch_size = 1 gives batch normalisation nothing to average over; use at least 2")
        if self.monitor == "val_auc" and not self.epoch_auc:
            raise ValueError('monitor = "val_auc" needs epoch_auc = true')
        return self

    def to_toml(self) -> str:
        """The recipe as TOML that `load_recipe` reads back to an equal one."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def recipe_names() -> list[str]:
    """The names of the recipes that come with Foveola."""
    return sorted(entry.name.removesuffix(".toml") for entry in _built_in().iterdir() if entry.name.endswith(".toml"))


def load_recipe(source: "str | Path | Recipe", overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    source : the name of a recipe that comes with Foveola, the path of a TOML file, or a recipe
    overrides : values by key; `augment.shift` reaches into a table

    Raises
    ------
    RecipeError
        If there is no such recipe, or a key or value is wrong.
    """
    document, where = _read(source)
    if overrides and "epochs" in overrides:  # who names the epochs means them
        document |= {"minimum_steps": 0}
        document.pop("steps", None)
    for key, value in (overrides or {}).items():
        table = document
        *tables, last = key.split(".")
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise RecipeError(f"{key!r} reaches into {part!r}, which is no table of settings.")
        table[last] = value
    return parse_recipe(document, where)


def parse_recipe(document: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe's keys and values; `where` names it in the error."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error, document)}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is TOML, and plain words need no quotes."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set takes key=value; got {text!r}. Example: --set learning_rate=0.002")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _built_in() -> Any:
    return resources.files("foveola") / "recipes"


def _read(source: str | Path | Recipe) -> tuple[dict[str, Any], str]:
    if isinstance(source, Recipe):
        return source.model_dump(exclude_none=True), f"recipe {source.name}"
    names = recipe_names()
    if str(source) in names:
        text, where = (_built_in() / f"{source}.toml").read_text("utf-8"), f"recipe {source}"
    elif (path := Path(source)).suffix == ".toml" or path.is_file():
        try:
            text, where = path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error}. Give the path of a TOML file.") from None
    else:
        raise RecipeError(unknown("recipe", str(source), names) + " Or give the path of a TOML file.")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is no valid TOML: {error}.") from None
    return {"name": Path(source).stem, **document}, where


def _explain(error: ValidationError, document: Mapping[str, Any]) -> str:
    """One sentence a key, in the words of the recipe's author."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_key(problem["loc"], document), []).append(problem)
    return " ".join(_explain_one(key, alternatives) for key, alternatives in problems.items())


def _key(place: tuple[int | str, ...], document: Mapping[str, Any]) -> str:
    """What the author wrote there, without the names that pydantic gives to types."""
    if place[:1] == ("layers",) and len(place) > 1:
        layer = document["layers"][place[1]]
        name = layer.get("type") if isinstance(layer, dict) else None
        return " ".join([f"layer {int(place[1]) + 1}", *([f"({name})"] if name else []), *map(str, place[3:4])])
    return ".".join(map(str, place[: 2 if place[:1] == ("augment",) else 1]))


def _explain_one(key: str, problems: list[Any]) -> str:
    """Why a key cannot be used; `problems` has one entry for each type that its value could have had."""
    place, kind, found = (problems[0][part] for part in ("loc", "type", "input"))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"Layer {place[1] + 1}: " + unknown("layer", str(found.get("type", "")), LAYERS)
    if kind == "extra_forbidden" and place[0] == "layers":
        return f"Layer {place[1] + 1}: " + unknown(
            f"{place[2]} setting", str(place[3]), LAYERS[place[2]].model_fields.keys() - {"type"}
        )
    if kind == "extra_forbidden":
        known = Augment.model_fields if place[0] == "augment" else Recipe.model_fields
        return unknown("key", str(place[-1]), known)
    if kind == "missing":
        return f"{key} is missing."
    reasons = [problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for problem in problems]
    if not place:
        return f"{reasons[0][0].upper()}{reasons[0][1:]}."
    return f"{key} is {found!r}; it should be {' or '.join(reasons)}."
