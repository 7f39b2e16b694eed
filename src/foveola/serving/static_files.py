"""The page's files, read once: an address is looked up in a table, and never becomes a path."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response

from foveola.serving.guard import PAGE
from foveola.serving.responses import Refused

# Of the two backends that the page can have, the one that asks this server
_RENAMED = {"server.js": "backend.js"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    type: str
    tag: str


class StaticFiles:
    """The routes of the page: index.html at /, everything else under PAGE."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        for file in files("foveola.serving").joinpath("page").iterdir():
            kind = _TYPES.get(PurePath(file.name).suffix)
            if kind is None:  # an editor's copy, say
                continue
            content = file.read_bytes()
            name = _RENAMED.get(file.name, file.name)
            self._files["/" if name == "index.html" else PAGE + name] = _File(
                content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            )

    async def serve(self, request: Request) -> Response:
        """The file at this address."""
        file = self._files.get(request.scope["path"])
        if file is None:
            raise Refused(404, "The page has no such file.")
        headers = {"ETag": file.tag, "Cache-Control": "no-cache"}  # kept by the browser, and asked for anew
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers | {"Content-Type": file.type})
