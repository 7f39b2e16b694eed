"""The OpenAPI document: FastAPI's own, with what it cannot know of bodies, refusals and the served model."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from foveola.models.metadata import ModelMetadata
from foveola.serving.schemas import ErrorDocument, InferRequest
from foveola.serving.settings import Settings

Described = dict[str, Any]

WITHOUT_KEY = ("/", "/v2/health/live", "/v2/health/ready")
"""Paths that need no API key; nor do the page's files."""

SERVER = "{server}"
"""In examples, stands for the address by which the server is asked."""

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/webp", "image/gif", "application/octet-stream")
IMAGE_FILE: Described = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _IMAGE_TYPES}
"""Content of a body that is one image file."""
PIXELS = [[0, 80, 0], [0, 255, 0], [0, 200, 0]]

_HEADERS: dict[int, Described] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    503: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}},
}


def refusals(*statuses: int) -> dict[int | str, Described]:
    """The `responses` of a route that refuses requests with these statuses."""
    return {
        status: {
            "model": ErrorDocument,
            "description": HTTPStatus(status).phrase,
            "headers": _HEADERS.get(status, {}),
        }
        for status in statuses
    }


TO_ANY = refusals(400, 401, 403, 421, 500, 503)
"""The refusals of every route."""


def accepts(content: Described, curl: str, query: type[BaseModel] | None = None) -> Described:
    """The `openapi_extra` of a route with a body.

    Parameters
    ----------
    content : of the body, by media type
    curl : an example, in which {server}, {name}, {class}, {channels} and {data} are replaced
    query : query parameters, unless FastAPI validates them
    """
    schema = {} if query is None else query.model_json_schema()
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": about.pop("description", ""),
            "schema": about,
        }
        for name, about in schema.get("properties", {}).items()
    ]
    sample = {"lang": "Shell", "label": "curl", "source": curl}
    body = {"requestBody": {"required": True, "content": content}, "x-codeSamples": [sample]}
    return body | ({"parameters": parameters} if parameters else {})


def describe(app: FastAPI, settings: Settings, metadata: ModelMetadata) -> Described:
    """The document of a server: the routes, the names of its model and classes, its key, examples that run."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    _, infer = models_json_schema([(InferRequest, "validation")], ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= infer["$defs"]
    choices = {"name": [settings.name], "version": ["1"], "class": list(metadata.class_names)}
    for operations in document["paths"].values():
        for operation in operations.values():
            for sample in operation.get("x-codeSamples", ()):
                sample["source"] = _example(sample["source"], settings, metadata)
            _complete(operation, choices)
    if settings.api_key is not None:
        _require_key(document)
    return document


def _example(curl: str, settings: Settings, metadata: ModelMetadata) -> str:
    channels = metadata.image_shape[2]
    values = {
        "{name}": settings.name,
        "{class}": quote(metadata.class_names[0]),
        "{channels}": str(channels),
        "{data}": str([0, 90, 255, 0] * channels),
    }
    for name, value in values.items():
        curl = curl.replace(name, value)
    return curl if settings.api_key is None else f'{curl} --header "Authorization: Bearer $FOVEOLA_API_KEY"'


def _complete(operation: Described, choices: dict[str, list[str]]) -> None:
    """Add the values that parameters may have, and the header of all responses."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in choices:
            parameter["schema"] = {"type": "string", "enum": choices[parameter["name"]]}
        if parameter["name"] == "fix":
            parameter |= {"style": "form", "explode": False}
    for response in operation["responses"].values():
        response.setdefault("headers", {})["X-Request-ID"] = {"schema": {"type": "string"}, "required": True}


def _require_key(document: Described) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}]
    for path in document["paths"].keys() & set(WITHOUT_KEY):
        document["paths"][path]["get"]["security"] = []
