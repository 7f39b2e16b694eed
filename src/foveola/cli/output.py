"""What a command prints: one JSON document, or a table for people."""

import json
from collections.abc import Callable
from typing import Any

import typer


def show(document: dict[str, Any], as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print the document as JSON, or as what `render` makes with `foveola.report.tables`."""
    if as_json:
        typer.echo(to_json(document))
        return
    from rich.console import Console

    from foveola.report import tables

    # A pipe has no width of its own; a table that is folded at 80 columns cannot be searched
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)
    console.print(render(tables))


def to_json(document: dict[str, Any]) -> str:
    """The document as others can read it: indented, and without NaN, which JSON does not know."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
