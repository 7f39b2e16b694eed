"""The page's files, read once: a path is looked up in a table, and never becomes a file's path."""

import hashlib
from collections.abc import Mapping
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
class File:
    """A file of a page, with its media type and entity tag."""

    content: bytes
    type: str
    tag: str


def read_files(package: str) -> dict[str, File]:
    """The files in a package's folder `page`, by the paths at which they are served."""
    found = {}
    for file in files(package).joinpath("page").iterdir():
        kind = _TYPES.get(PurePath(file.name).suffix)
        if kind is None:  # an editor's copy, for example
            continue
        content = file.read_bytes()
        name = _RENAMED.get(file.name, file.name)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        found["/" if name == "index.html" else PAGE + name] = File(content, kind, tag)
    return found


def respond(found: Mapping[str, File], request: Request) -> Response:
    """The file at a request's path."""
    file = found.get(request.scope["path"])
    if file is None:
        raise Refused(404, "The page has no such file.")
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}  # browsers keep it, but ask whether it changed
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.type)


_FILES = read_files("foveola.serving")
router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route(PAGE + "{name}", methods=["GET", "HEAD"])
async def file(request: Request) -> Response:
    """A file of the page."""
    return respond(_FILES, request)
