"""The search space of a tuning: recipe keys with ranges or choices, read from TOML, checked by the recipe itself.

learning_rate = { low = 0.001, high = 0.1, log = true }
batch_size = { choices = [64, 128, 256] }

[augment]
shift = { low = 0, high = 3 }
zoom = { low = 0.0, high = 0.2, step = 0.05 }
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import tomli_w

from foveola.errors import RecipeError, unknown
from foveola.recipe import Recipe, load_recipe
from foveola.recipe_parts import Augment

Value = str | int | float | bool

_NOT_TUNED = {
    "name": "it only names the recipe",
    "description": "it only describes the recipe",
    "layers": "networks are compared with `foveola compare`",
    "validation": "all trials are measured on the same images",
    "test": "all trials leave out the same test images",
    "image_size": "data is read once for all trials",
    "resize": "data is read once for all trials",
    "channels": "data is read once for all trials",
    "distill": "trials have no teacher",
    "reject": "it is chosen after training, and does not change the objective",
    "reject_mode": "it is chosen after training, and does not change the objective",
    "reject_confidence": "it is chosen after training, and does not change the objective",
}
_FIELDS = Recipe.model_fields | {f"augment.{name}": field for name, field in Augment.model_fields.items()}
TUNABLE = sorted(_FIELDS.keys() - _NOT_TUNED.keys() - {"augment"})

_RANGE_KEYS, _CHOICE_KEYS = {"low", "high", "log", "step"}, {"choices"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both bounds are integers."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_multiple(value - self.low, self.step)


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    choices: tuple[Value, ...]

    def contains(self, value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in self.choices)


@dataclass(frozen=True)
class SearchSpace:
    """Recipe keys, such as "augment.shift", each with its range or choices."""

    dimensions: Mapping[str, Range | Choices]

    def apply(self, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
        """The recipe with a value for each key.

        Raises
        ------
        RecipeError
            If the values do not fit together.
        """
        return load_recipe(recipe, values)

    def start(self, recipe: Recipe) -> dict[str, Value]:
        """The recipe's own values.

        Raises
        ------
        RecipeError
            If one of them is outside the space, which therefore does not hold the recipe.
        """
        values = {key: _value_of(recipe, key) for key in self.dimensions}
        for key, dimension in self.dimensions.items():
            if not dimension.contains(values[key]):
                found = "not set" if values[key] is None else f"{values[key]!r}"
                raise RecipeError(
                    f"{key} of recipe {recipe.name} is {found}, which is not in the search space "
                    f"({_dimension_text(dimension)}), but the recipe is the first trial. Widen the space, or start "
                    f"from a value in it with --set {key}=…"
                )
        return values

    def check(self, recipe: Recipe, where: str) -> None:
        """Refuse bounds and choices that the recipe refuses.

        Raises
        ------
        RecipeError
            Naming the key and what it should be.
        """
        for key, dimension in self.dimensions.items():
            ends = (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension.choices
            for value in ends:
                try:
                    load_recipe(recipe, {key: value})
                except RecipeError as error:
                    raise RecipeError(f"{where}: {error} Correct the search space.") from None

    def to_document(self) -> dict[str, Any]:
        """The space as nested tables, as in TOML."""
        document: dict[str, Any] = {}
        for key, dimension in self.dimensions.items():
            *tables, last = key.split(".")
            table = document
            for name in tables:
                table = table.setdefault(name, {})
            settings = {
                name: value for name, value in asdict(dimension).items() if value is not None and value is not False
            }
            table[last] = {name: list(value) if name == "choices" else value for name, value in settings.items()}
        return document

    def to_toml(self) -> str:
        """The space as TOML; `read_space` reads it back unchanged."""
        return tomli_w.dumps(self.to_document())


def default_space(recipe: Recipe) -> SearchSpace:
    """A space around a recipe: learning rates, weight decay, label smoothing and augmentation.

    None of them changes how long a training takes.
    """
    augment = recipe.augment
    space: dict[str, Range | Choices] = {"learning_rate": _around(recipe.learning_rate, 4)}
    if recipe.optimizer == "muon":
        space["muon_learning_rate"] = _around(recipe.muon_learning_rate, 4)
    if recipe.weight_decay > 0:
        space["weight_decay"] = _around(recipe.weight_decay, 10)
    space["label_smoothing"] = Range(0.0, max(0.1, recipe.label_smoothing))
    space["augment.shift"] = Range(0, max(3, augment.shift))
    space["augment.rotation"] = Range(0.0, max(15.0, augment.rotation))
    space["augment.zoom"] = Range(0.0, max(0.2, augment.zoom))
    if augment.strength:
        space["augment.strength"] = Range(0.0, 1.0)
    return SearchSpace(space)


def read_space(path: Path) -> SearchSpace:
    """Read a search space from a TOML file.

    Raises
    ------
    RecipeError
        If the file cannot be read, a key is unknown or cannot be tuned, or a range is none.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The search space {path} cannot be read: {error}. Give the path of a TOML file.") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}. Correct the file.") from None
    return parse_space(document, str(path))


def parse_space(document: Mapping[str, Any], where: str = "search space") -> SearchSpace:
    """A search space from nested tables.

    Raises
    ------
    RecipeError
        If a key is unknown or cannot be tuned, or a range is none.

    Examples
    --------
    >>> parse_space({"augment": {"shift": {"low": 0, "high": 3}}}).dimensions
    {'augment.shift': Range(low=0, high=3, log=False, step=None)}
    """
    tables: dict[str, Any] = {}
    for key, value in document.items():
        inner = {f"augment.{name}": entry for name, entry in value.items()} if _is_table(key, value) else {key: value}
        tables |= inner
    if not tables:
        raise RecipeError(f"{where} is empty. Give a recipe key with a range: learning_rate = {_EXAMPLE}")
    return SearchSpace({key: _parse_dimension(key, value, where) for key, value in tables.items()})


_EXAMPLE = "{ low = 0.001, high = 0.1, log = true }"


def _is_table(key: str, value: Any) -> bool:
    return key == "augment" and isinstance(value, dict)


def _parse_dimension(key: str, value: Any, where: str) -> Range | Choices:
    if key in _NOT_TUNED:
        raise RecipeError(f"{where}: {key} cannot be tuned: {_NOT_TUNED[key]}. Remove it.")
    if key not in TUNABLE:
        raise RecipeError(f"{where}: {unknown('key', key, TUNABLE)}")
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: {key} is {value!r}; it should be a range such as {_EXAMPLE}, or choices.")
    if unused := sorted(value.keys() - _RANGE_KEYS - _CHOICE_KEYS):
        raise RecipeError(f"{where}: {key}: {unknown('setting', unused[0], _RANGE_KEYS | _CHOICE_KEYS)}")
    if value.keys() == _CHOICE_KEYS:
        return _parse_choices(key, value["choices"], where)
    if "choices" in value or not {"low", "high"} <= value.keys():
        raise RecipeError(f"{where}: {key} needs low and high, such as {_EXAMPLE}, or choices alone.")
    return _parse_range(key, value, where)


def _parse_choices(key: str, choices: Any, where: str) -> Choices:
    if not isinstance(choices, list) or not all(isinstance(choice, str | int | float) for choice in choices):
        raise RecipeError(f"{where}: the choices of {key} are {choices!r}; they should be a list of texts or numbers.")
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise RecipeError(f"{where}: the choices of {key} are {choices!r}; there should be two or more, each once.")
    return Choices(tuple(choices))


def _parse_range(key: str, table: Mapping[str, Any], where: str) -> Range:
    low, high, step = table["low"], table["high"], table.get("step")
    log = table.get("log", False)
    for name, number in (("low", low), ("high", high), ("step", step)):
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if number is not None and not is_number:
            raise RecipeError(f"{where}: {name} of {key} is {number!r}; it should be a number.")
    if not isinstance(log, bool):
        raise RecipeError(f"{where}: log of {key} is {log!r}; it should be true or false.")
    whole = int in _types_of(_FIELDS[key].annotation)
    if float not in _types_of(_FIELDS[key].annotation) and not whole:
        raise RecipeError(f"{where}: {key} is not a number. Give choices = […].")
    if not whole:
        low, high, step = float(low), float(high), None if step is None else float(step)
    if not low < high:
        raise RecipeError(f"{where}: {key} ranges from {low:g} to {high:g}; low should be less than high.")
    if log and (low <= 0 or step is not None):
        raise RecipeError(f"{where}: {key} has log = true, which needs low above 0 and no step.")
    if step is not None and (step <= 0 or not _is_multiple(high - low, step)):
        raise RecipeError(f"{where}: {key}: high − low ({high - low:g}) is not a multiple of step ({step:g}).")
    return Range(low, high, log, step)


def _types_of(annotation: Any) -> set[Any]:
    """The plain types that a setting may have."""
    if get_origin(annotation) in (Union, UnionType):
        return {plain for part in get_args(annotation) for plain in _types_of(part)}
    return _types_of(get_args(annotation)[0]) if hasattr(annotation, "__metadata__") else {annotation}


def _is_multiple(difference: float, step: float) -> bool:
    return math.isclose(difference / step, round(difference / step), abs_tol=1e-9)


def _around(value: float, factor: float) -> Range:
    low, high = float(f"{value / factor:.3g}"), float(f"{value * factor:.3g}")
    return Range(low, high, log=True)


def _value_of(recipe: Recipe, key: str) -> Any:
    first, _, last = key.partition(".")
    value = getattr(recipe, first)
    return getattr(value, last) if last else value


def _dimension_text(dimension: Range | Choices) -> str:
    if isinstance(dimension, Choices):
        return ", ".join(map(str, dimension.choices))
    steps = "" if dimension.step is None else f" in steps of {dimension.step:g}"
    return f"{dimension.low:g} to {dimension.high:g}{steps}"
