"""What a command prints: one JSON document, or a table."""

import json
from collections.abc import Callable
from typing import Any

import typer
from pydantic import BaseModel


def show(document: BaseModel | dict[str, Any], as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print the document as JSON, or as what `render` makes of `foveola.cli.tables`."""
    if as_json:
        typer.echo(to_json(document))
        return
    from rich.console import Console

    from foveola.cli import tables

    # A pipe has no width of its own; a table that is folded at 80 columns cannot be searched
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)
    console.print(render(tables))


def to_json(document: BaseModel | dict[str, Any]) -> str:
    """Indented JSON, without NaN, which JSON does not know."""
    if isinstance(document, BaseModel):
        return document.model_dump_json(indent=2)
    return json.dumps({"format": 1, **document}, indent=2, ensure_ascii=False, allow_nan=False)
