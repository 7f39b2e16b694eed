"""Write docs/reference/*.md from docstrings, commands and documents: `make docs`."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

import foveola
from foveola import documents
from foveola.cli import PANELS, app

FOLDER = Path(__file__).parent / "reference"
MADE = "This page is generated from the code (`make docs`)."


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Every page's text by its file name."""
    made = {"api.md": _api(), "commands.md": _commands(), "documents.md": _documents()}
    return {name: "\n\n".join(parts) + "\n" for name, parts in made.items()}


# Python: what `import foveola` offers, from its docstrings


def _api() -> Iterator[str]:
    yield "# Python, every function"
    yield (
        f"The names of [the overview](../python.md), in alphabetical order, with what `help` shows of each. {MADE} "
        "Examples are run by the tests."
    )
    for name in sorted(foveola.__all__, key=str.lower):
        thing = getattr(foveola, name)
        yield f"## {name}"
        yield from _class(name, thing) if inspect.isclass(thing) else _function(name, thing)


def _class(name: str, cls: type) -> Iterator[str]:
    pydantic, error = issubclass(cls, BaseModel), issubclass(cls, Exception)
    if not (pydantic or error):
        yield _signature(name, cls)
    yield from _docstring(cls)
    if error:
        return
    for member, value in vars(cls).items():
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        function = value.fget if isinstance(value, property) else value
        if member.startswith("_") or not inspect.isfunction(function) or not inspect.getdoc(function):
            continue
        yield f"### {name}.{member}"
        if not isinstance(value, property):
            yield _signature(member, function)
        yield from _docstring(function)


def _function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield _signature(f"foveola.{name}", function)
    yield from _docstring(function)


def _signature(name: str, function: Callable[..., Any]) -> str:
    """Name and parameters, one a line where they do not fit into one."""
    parameters = [one for one in _parameters(function) if one != "self"]
    line = f"{name}({', '.join(parameters)})"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in parameters) + ")"
    return f"```text\n{line}\n```"


def _parameters(function: Callable[..., Any]) -> list[str]:
    """Parameters as they are written in the source; those of a dataclass are its fields."""
    if is_dataclass(function):
        body = ast.parse(inspect.getsource(function)).body[0].body  # type: ignore[attr-defined]
        fields = [one for one in body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
        return [
            _parameter(one.target.id, one.annotation, one.value) for one in fields if isinstance(one.target, ast.Name)
        ]
    function = function.__init__ if inspect.isclass(function) else function
    if not inspect.isfunction(function) or function.__module__ == "typing":
        return []
    written = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(written, ast.FunctionDef)
    found = written.args
    defaults = [None] * (len(found.args) - len(found.defaults)) + found.defaults
    positional = [_parameter(one.arg, one.annotation, value) for one, value in zip(found.args, defaults, strict=True)]
    keywords = zip(found.kwonlyargs, found.kw_defaults, strict=True)
    named = [_parameter(one.arg, one.annotation, value) for one, value in keywords]
    middle = [f"*{found.vararg.arg}"] if found.vararg else ["*"] * bool(named)
    return positional + middle + named + ([f"**{found.kwarg.arg}"] if found.kwarg else [])


def _parameter(name: str, annotation: ast.expr | None, default: ast.expr | None) -> str:
    words = ast.unparse(annotation) if annotation else ""
    words = re.sub(r"'([A-Z]\w+)'", r"\1", re.sub(r"^'(.+)'$", r"\1", words))  # types that are written as texts
    typed = f"{name}: {words}" if words else name
    return f"{typed} = {ast.unparse(default)}" if default else typed


def _docstring(thing: Any) -> Iterator[str]:
    """A docstring's sections as Markdown."""
    text = inspect.cleandoc(thing.__doc__ or "")
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    if parts[0].strip():
        yield _prose(parts[0])
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title == "Examples":
            yield _prose(body)
        elif title in ("Returns", "Yields", "Notes", "References"):
            yield f"**{title}**"
            yield _prose(body)
        else:
            yield f"**{title}**"
            yield "\n".join(_entries(body))


def _entries(body: str) -> Iterator[str]:
    """`name : meaning` with its further lines, as a list."""
    for entry in re.split(r"\n(?=\S)", body.strip()):
        head, *more = entry.split("\n")
        name, colon, meaning = head.partition(" : ")
        rest = " ".join(line.strip() for line in more)
        yield _escaped(f"- `{name}`: {meaning} {rest}".rstrip() if colon else f"- `{head}`: {rest}".rstrip(": "))


def _prose(text: str) -> str:
    """Paragraphs, with doctests as blocks."""
    made = []
    for paragraph in re.split(r"\n\n+", text.strip()):
        at = paragraph.find(">>> ")
        before, example = (paragraph, "") if at < 0 else (paragraph[:at].strip(), inspect.cleandoc(paragraph[at:]))
        made += [_escaped(before)] * bool(before) + [f"```pycon\n{example}\n```"] * bool(example)
    return "\n\n".join(made)


def _escaped(text: str) -> str:
    """Text in which `<` begins no HTML."""
    return re.sub(r"<(?=[a-zA-Z/])", "&lt;", text)


# Commands: what --help shows


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    yield "# Commands"
    yield (
        "What `foveola COMMAND --help` shows. Exit codes: 0 done; 1 a failure that the input did not cause; 2 "
        "the input cannot be used, and a message says what was found, why, and what to do; 130, 143 and 129 after "
        f"SIGINT, SIGTERM and SIGHUP. {MADE}"
    )
    for panel, commands in PANELS.items():
        yield f"## {panel}"
        for function, examples in commands.items():
            name = function.__name__.rstrip("_")
            yield from _command(name, group.commands[name], examples)


def _command(name: str, command: Any, examples: str) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    words = " ".join(one.metavar or one.name.upper() for one in arguments)
    yield f"### {name}"
    yield (inspect.cleandoc(command.help or "")).partition("\n\n")[0].replace("\n", " ")
    yield f"`foveola {name} {words}`".replace(" `", "`") + (" with these options:" if options else "")
    rows = [(f"`{one.metavar}`", _cell(one.help), "") for one in arguments]
    rows += [(_option(one), _cell(one.help), _default(one)) for one in options]
    if rows:
        yield _table(("", "meaning", "default"), rows)
    yield "Examples: " + " · ".join(f"`{one.strip()}`" for one in examples.partition(": ")[2].split(" · "))


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {option.metavar or ''}".strip()


def _default(option: Any) -> str:
    value = option.default
    if option.is_flag or value is None or callable(value) or value in ((), [], ""):
        return ""
    return f"`{value}`"


# Documents: their JSON schema


def _documents() -> Iterator[str]:
    yield "# JSON documents"
    yield (
        "What Foveola writes and prints as JSON. Every document has a `format` number; Foveola refuses a higher one "
        "than its own. Within a format, keys are added, none changed or removed. From Python, each document is a "
        f"class of `foveola.documents`, whose `model_json_schema()` is the JSON schema. {MADE}"
    )
    parts: dict[str, Any] = {}
    recipe = {"Recipe", *foveola.Recipe.model_json_schema()["$defs"]}
    for name in documents.__all__:
        model = getattr(documents, name)
        if inspect.isclass(model) and issubclass(model, documents.Document) and model is not documents.Document:
            schema = model.model_json_schema()
            parts |= schema.pop("$defs", {})
            yield f"## {name}"
            yield from _schema(schema)
    yield "## Parts"
    yield "Types of the values above."
    for name, schema in sorted(parts.items()):
        if schema.get("properties") and name not in recipe:
            yield f"### {name}"
            yield from _schema(schema)
    yield "A `Recipe` is [every setting of a training](../recipes.md)."


def _schema(schema: dict[str, Any]) -> Iterator[str]:
    if schema.get("description"):
        yield _prose(schema["description"])
    required = set(schema.get("required", ()))
    rows = [
        (f"`{key}`", _type(one), "always" if key in required else _json(one.get("default")))
        for key, one in schema.get("properties", {}).items()
    ]
    yield _table(("key", "value", "default"), rows)


def _type(schema: dict[str, Any]) -> str:
    """A value's type in words, with links to parts."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "[Recipe](../recipes.md)" if name == "Recipe" else f"[{name}](#{name.lower()})"
    if "const" in schema:
        return _json(schema["const"])
    if "enum" in schema:
        return ", ".join(_json(one) for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


def _json(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    main()
