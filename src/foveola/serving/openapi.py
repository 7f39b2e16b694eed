"""What OpenAPI says of the routes: bodies, parameters, and every status that may be answered."""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from foveola.serving.guard import WITHOUT_KEY
from foveola.serving.inference_documents import InferRequest, InferResponse
from foveola.serving.responses import ErrorDocument

Described = dict[str, Any]

# What the guard may say to any request, and what any request with a body may meet
_TO_ANY = (400, 401, 403, 414, 421, 431, 500)
_TO_BODIES = (*_TO_ANY, 408, 413, 415, 503)
_HEADERS: dict[int, Described] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    503: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}},
}
_ID: Described = {"X-Request-ID": {"schema": {"type": "string"}, "required": True}}
_PICTURE_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/webp", "image/gif", "application/octet-stream")

PICTURE: Described = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _PICTURE_TYPES}
"""The content of a body that is one image file."""


def reading(
    answer: type[BaseModel] | Described, parameters: Sequence[Described] = (), refused: Sequence[int] = ()
) -> Described:
    """The arguments of `add_api_route` for a route that is read.

    Parameters
    ----------
    answer : the document, or the content
    parameters : of its address
    refused : the statuses, beside those of every route, with which it refuses
    """
    return {
        "methods": ["GET"],
        "responses": _answered(200, answer) | _refusals(*_TO_ANY, *refused),
        "openapi_extra": {"parameters": list(parameters)},
    }


def taking(
    content: Described,
    answer: type[BaseModel] | Described,
    parameters: Sequence[Described] = (),
    refused: Sequence[int] = (),
    status: int = 200,
) -> Described:
    """The arguments of `add_api_route` for a route that takes a body.

    Parameters
    ----------
    content : of the body
    status : of the answer
    answer, parameters, refused : as for `reading`
    """
    return {
        "methods": ["POST"],
        "status_code": status,
        "responses": _answered(status, answer) | _refusals(*_TO_BODIES, *refused),
        "openapi_extra": {
            "parameters": list(parameters),
            "requestBody": {"required": True, "content": content},
        },
    }


def in_path(name: str, value: str) -> Described:
    """A parameter in a route's path, which has one value only."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}}


def document(app: FastAPI, *, with_key: bool) -> Described:
    """The whole document; `with_key` says that the server asks for its key."""
    described = get_openapi(
        title="Foveola", version=version("foveola"), summary="An image classifier behind HTTP.", routes=app.routes
    )
    _, infer = models_json_schema(
        [(InferRequest, "validation"), (InferResponse, "serialization")], ref_template="#/components/schemas/{model}"
    )
    described["components"]["schemas"] |= infer["$defs"]
    if with_key:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"header": []}]
        for path in WITHOUT_KEY & described["paths"].keys():
            described["paths"][path]["get"]["security"] = []
    return described


def _answered(status: int, answer: type[BaseModel] | Described) -> dict[int | str, Described]:
    about = {"content": answer} if isinstance(answer, dict) else {"model": answer}
    return {status: about | {"headers": _ID}}


def _refusals(*statuses: int) -> dict[int | str, Described]:
    return {
        status: {
            "model": ErrorDocument,
            "description": HTTPStatus(status).phrase,
            "headers": _ID | _HEADERS.get(status, {}),
        }
        for status in statuses
    }
