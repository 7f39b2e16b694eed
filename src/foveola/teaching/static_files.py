"""The page's files: those of this page first, then those that it shares with the server's."""

from fastapi import APIRouter, Request, Response

from foveola.serving.static_files import PAGE, read_files, respond

_FILES = read_files("foveola.serving") | read_files("foveola.teaching")
router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route(PAGE + "{name}", methods=["GET", "HEAD"])
async def file(request: Request) -> Response:
    """A file of the page."""
    return respond(_FILES, request)
