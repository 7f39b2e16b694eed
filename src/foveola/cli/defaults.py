"""Defaults of options from a project's foveola.toml, or [tool.foveola] of its pyproject.toml; the command line wins.

The nearest such file counts, in the working folder or above it, up to the folder with `.git`; outside a repository, in
the working folder only. A file may lie in somebody else's folder. Therefore it cannot name code, files to be read or
written, addresses, or anything that replaces or sends something: those options are taken from the command line only.
"""

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from foveola.errors import UserError, unknown
from foveola.text import printable

FILE, PROJECT_FILE = "foveola.toml", "pyproject.toml"
# Options of several commands, which are set for all of them at the top of the file
COMMON = ("device", "quiet", "threads")
# Options that a file cannot set, besides those that take a path
COMMAND_LINE_ONLY = {
    "callback": "it names code to run",
    "log": "it says where results are sent",
    "study": "it names a database",
    "data": "it names data to read",
    "host": "it says who can reach the server",
    "allow-host": "it says who can reach the server",
    "api-key": "it is a secret; set FOVEOLA_API_KEY",
    "force": "it replaces files",
}
_MAX_BYTES = 2**20
_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Defaults:
    """The file in force, None if there is none, and its values by command and name of the parameter."""

    path: Path | None = None
    common: Mapping[str, Any] = field(default_factory=dict)
    of_commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """What the file sets, as it spells it."""
        return {**self.common, **self.of_commands}

    def for_command(self, command: TyperCommand) -> dict[str, Any]:
        """Values by parameter, as Click takes them for its `default_map`."""
        options = _options(command)
        named = {**self.common, **self.of_commands.get(str(command.name), {})}
        values = {options[name].parameter: value for name, value in named.items() if name in options}
        recipe = values.get("recipe")
        if recipe is not None and self.path is not None and recipe.endswith(".toml"):
            values["recipe"] = str(self.path.parent / recipe)
        return values


class Command(TyperCommand):
    """A command whose defaults come from the project's file; it says which of them it uses."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if parent is not None and not extra.get("resilient_parsing") and not set(_HELP) & set(args):
            extra["default_map"] = find_defaults(Path.cwd(), parent.command).for_command(self)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        used = {
            name: ctx.params[option.parameter]
            for name, option in _options(self).items()
            if _source(ctx, option.parameter) == "DEFAULT_MAP"
        }
        if used and not (ctx.params.get("quiet") and "quiet" not in used):
            path = find_defaults(Path.cwd(), ctx.parent.command).path
            values = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in used.items())
            typer.echo(printable(f"Defaults from {path}: {values}"), err=True)
        return super().invoke(ctx)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the parameter is on the command line, or in the environment."""
    return _source(context, name) not in (None, "DEFAULT", "DEFAULT_MAP")


def _source(context: typer.Context, name: str) -> str | None:
    source = context.get_parameter_source(name)
    return None if source is None else source.name


def find_defaults(folder: Path, group: TyperGroup) -> Defaults:
    """The defaults in force in a folder, for the commands of the group.

    Raises
    ------
    UserError
        If the file cannot be read, or sets something that there is not, or that it must not set.
    """
    top = next((place for place in (folder, *folder.parents) if os.path.exists(place / ".git")), folder)  # noqa: PTH110
    for place in (folder, *folder.parents):
        for path in (place / FILE, place / PROJECT_FILE):
            values = _read(path)
            if values is not None:
                return _checked(path, values, group)
        if place == top:
            break
    return Defaults()


def _read(path: Path) -> dict[str, Any] | None:
    """The values of a file; None if there is none, or if it has none for Foveola."""
    if not os.path.isfile(path):  # noqa: PTH113  # unlike Path's methods, False also where a folder may not be entered
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if path.name == PROJECT_FILE and b"foveola" not in content:
            return None
        if len(content) > _MAX_BYTES:
            raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes, which no file of defaults needs. Shorten it.")
        values = tomllib.loads(content.decode("utf-8-sig"))  # PowerShell writes the mark
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}. Correct its rights, or move it away.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML: {error}. Correct it.") from None
    if path.name != PROJECT_FILE:
        return values
    tool = values.get("tool")
    table = tool.get("foveola") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UserError(f"{path}: tool.foveola is not a table. Write [tool.foveola], and the values below it.")
    return table


def _checked(path: Path, values: Mapping[str, Any], group: TyperGroup) -> Defaults:
    commands = {name: command for name, command in group.commands.items() if isinstance(command, Command)}
    common, of_commands = {}, {}
    for key, value in values.items():
        name = _spelled(key)
        if name in COMMON:
            common[name] = _value(path, "", name, value, _options(commands["train"]))
        elif name not in commands:
            raise UserError(f"{path}: {unknown('key', key, [*COMMON, *commands])}")
        elif not isinstance(value, dict):
            raise UserError(f"{path}: {key} is {value!r}, but it is a command. Write [{key}], and its options below.")
        else:
            options = _options(commands[name])
            table = {_spelled(option): inner for option, inner in value.items()}
            of_commands[name] = {
                option: _value(path, f"[{key}] ", option, inner, options) for option, inner in table.items()
            }
    return Defaults(path, common, of_commands)


def _spelled(key: str) -> str:
    return key.replace("_", "-")


@dataclass(frozen=True)
class _Option:
    """An option: the parameter of its command's function, and what type that has."""

    parameter: str
    type: Any


def _options(command: TyperCommand) -> dict[str, _Option]:
    """The options of a command by their long names, without dashes in front."""
    assert command.callback is not None, "a command is a function"
    types = get_type_hints(command.callback)
    return {
        max(parameter.opts, key=len).removeprefix("--"): _Option(str(parameter.name), _without_none(types[name]))
        for parameter in command.params
        if parameter.param_type_name == "option" and (name := str(parameter.name)) in types
    }


def _without_none(hint: Any) -> Any:
    """The type T of T | None, or the type itself."""
    return next(kind for kind in get_args(hint) if kind is not NoneType) if isinstance(hint, UnionType) else hint


def _value(path: Path, table: str, name: str, value: Any, options: Mapping[str, _Option]) -> Any:
    """The value of an option, if it may be set, and has the option's type."""
    settable = {known: option for known, option in options.items() if _why_not(known, option) is None}
    if name not in options:
        raise UserError(f"{path}: {table}{unknown('key', name, settable)}")
    option = options[name]
    if name not in settable:
        raise UserError(
            f"{path}: {table}{name} cannot be set in a file, because {_why_not(name, option)}. Remove it there, and "
            f"give it on the command line: --{name}."
        )
    expected, fits = _TYPES[option.type]
    if not fits(value):
        raise UserError(f"{path}: {table}{name} is {value!r}; it should be {expected}.")
    return value


def _why_not(name: str, option: _Option) -> str | None:
    """Why a file cannot set the option; None if it can."""
    return "it names a file or folder" if option.type is Path else COMMAND_LINE_ONLY.get(name)


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


# What an option takes, in words, and whether a value is that
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: _is_number(value, int)),
    float: ("a number", lambda value: _is_number(value, int | float)),
    str: ('text in quotes, such as "auto"', lambda value: isinstance(value, str)),
    list[str]: (
        'a list of texts, such as ["image_size=64"]',
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    ),
}
