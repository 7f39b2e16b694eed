"""What the server says: JSON documents and refusals."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from foveola.errors import ModelError, UserError
from foveola.serving.batching import Busy

# What messages quote of a request, at most, in characters
_QUOTED = 80
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """A request that is not served.

    Parameters
    ----------
    status : the HTTP status
    message : what was found, why it cannot be served, what to do
    headers : what the response carries beside
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class ErrorDocument(BaseModel):
    """What every refusal says, and under which id the server's log knows it."""

    error: str
    request_id: str


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response, written by pydantic's serialiser."""
    return Response(to_json(document), status, headers, "application/json")


def refusal(error: Exception) -> Refused:
    """The refusal that an exception of a route stands for.

    Raises
    ------
    Exception
        The error itself, if it is none of the client's doing.
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, Busy):
        return Refused(503, str(error), {"Retry-After": "1"})
    if isinstance(error, UserError) and not isinstance(error, ModelError):
        return Refused(422, str(error))
    if isinstance(error, HTTPException):
        return Refused(error.status_code, _ROUTING.get(error.status_code, error.detail), error.headers or _NO_HEADERS)
    raise error


_ROUTING = {
    404: "There is nothing at this address. GET /openapi.json lists what there is.",
    405: "This address does not take this method. The header Allow names those that it takes.",
}


def described(error: ValidationError) -> str:
    """The first thing that is wrong with a request, where it stands, and what was found there."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    found = repr(first["input"])
    found = found if len(found) <= _QUOTED else f"{found[:_QUOTED]}…"
    return f"{where + ': ' if where else ''}{first['msg']}; found {found}."
