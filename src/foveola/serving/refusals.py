"""Refusals: why a request is not served, and the JSON response that says so."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from foveola.errors import ModelError, UserError

# Characters of a request that messages quote, at most
_QUOTED = 80
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """A request that is not served.

    Parameters
    ----------
    status : the HTTP status
    message : what was found, why it cannot be served, what to do
    headers : further headers of the response
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class Busy(Refused):
    """There is no room for another request now; there will be in a moment."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": "1"})


def refusal(error: Exception) -> Refused | None:
    """The refusal that an exception stands for; None, if it is the server's own fault."""
    match error:
        case Refused():
            return error
        case UserError() if not isinstance(error, ModelError):
            return Refused(422, str(error))
        case RequestValidationError():
            return Refused(422, described(error.errors()))
        case HTTPException():
            return Refused(error.status_code, _ROUTING.get(error.status_code, error.detail), error.headers or {})
    return None


def error_response(refused: Refused, request_id: str) -> Response:
    """The response to a request that is refused."""
    content = to_json({"error": refused.message, "request_id": request_id})
    return Response(content, refused.status, dict(refused.headers), "application/json")


_ROUTING = {
    404: "There is nothing at this address. GET /openapi.json lists the addresses.",
    405: "This address does not accept this method. The header Allow lists those that it accepts.",
}


def described(errors: Iterable[Any]) -> str:
    """The first of pydantic's errors: where it is, what is wrong, what was found."""
    first = next(iter(errors))
    if first["type"] == "value_error":  # raised by a validator of ours, which says everything
        return str(first["ctx"]["error"])
    where = ".".join(map(str, first["loc"])).removeprefix("query.")
    found = repr(first["input"])
    found = found if len(found) <= _QUOTED else f"{found[:_QUOTED]}…"
    return f"{where + ': ' if where else ''}{first['msg']}; found {found}."
