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
    from foveola.cli import tables
    from foveola.progress import results_console

    results_console().print(render(tables))


def to_json(document: BaseModel | dict[str, Any]) -> str:
    """Indented JSON, without NaN, which JSON does not know, and without control characters."""
    if isinstance(document, BaseModel):
        text = document.model_dump_json(indent=2)
    else:
        text = json.dumps({"format": 1, **document}, indent=2, ensure_ascii=False, allow_nan=False)
    return text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)})  # JSON escapes only those below 0x20
