"""What a command prints: one JSON document, or a table."""

import codecs
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import typer
from pydantic import BaseModel

from foveola.text import escape_all_surrogates


def show(document: BaseModel | dict[str, Any], as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print the document as JSON, or as what `render` makes of `foveola.cli.tables`."""
    if as_json:
        encoding = sys.stdout.encoding or "utf-8"
        typer.echo(to_json(document).encode(encoding, _ESCAPE).decode(encoding))
        return
    from foveola.cli import tables
    from foveola.progress import results_console

    results_console().print(render(tables))


def replace_unencodable() -> None:
    """Let no character that a terminal or pipe cannot encode end a command: ? stands for it in tables."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _escape_as_json(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


_ESCAPE = "foveola.json"
codecs.register_error(_ESCAPE, _escape_as_json)


def to_json(document: BaseModel | dict[str, Any]) -> str:
    """Indented JSON, without NaN, which JSON does not know, and without control characters."""
    if isinstance(document, BaseModel):
        text = document.model_dump_json(indent=2)
    else:
        content = escape_all_surrogates({"format": 1, **document})
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)})  # JSON escapes only those below 0x20
