"""What is wrong with a recipe: pydantic's errors in the terms of the TOML file."""

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from foveola.errors import unknown
from foveola.models.layers import LAYERS
from foveola.recipe_parts import TABLES


def describe_errors(error: ValidationError, keys: Collection[str]) -> str:
    """One sentence per invalid key, in the terms of the TOML file; `keys` are those that a recipe may have."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_key_in_file(problem["loc"]), []).append(problem)
    return " ".join(_describe_error(key, alternatives, keys) for key, alternatives in problems.items())


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


def _describe_error(key: str, problems: list[Any], keys: Collection[str]) -> str:
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
        table = TABLES.get(str(location[0])) if len(location) > 1 else None
        return unknown("key", str(location[-1]), keys if table is None else table.model_fields)
    if kind == "missing":
        return f"{key} is missing."
    reasons = [problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for problem in problems]
    if not location:
        begins_with_key = reasons[0].split()[0].strip(",") in keys
        return f"{reasons[0] if begins_with_key else reasons[0][0].upper() + reasons[0][1:]}."
    return f"{key} is {value!r}; it should be {' or '.join(dict.fromkeys(reasons))}."
