"""The page's files, read once: a path is looked up in a table, and never becomes a file's path."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request, Response

from foveola.serving.refusals import Refused

PAGE = "/page/"
"""Where the page's files are; index.html is at /."""

# The page has two backends; this one uses the server
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


def _read_files() -> dict[str, _File]:
    """The files by their paths."""
    found = {}
    for file in files("foveola.serving").joinpath("page").iterdir():
        kind = _TYPES.get(PurePath(file.name).suffix)
        if kind is None:  # an editor's copy, for example
            continue
        content = file.read_bytes()
        name = _RENAMED.get(file.name, file.name)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        found["/" if name == "index.html" else PAGE + name] = _File(content, kind, tag)
    return found


_FILES = _read_files()
router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route(PAGE + "{name}", methods=["GET", "HEAD"])
async def file(request: Request) -> Response:
    """A file of the page."""
    found = _FILES.get(request.scope["path"])
    if found is None:
        raise Refused(404, "The page has no such file.")
    headers = {"ETag": found.tag, "Cache-Control": "no-cache"}  # browsers keep it, but ask whether it changed
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.type)
