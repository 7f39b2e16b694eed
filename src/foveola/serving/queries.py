"""What a URL asks for after its question mark: declared once, for checking and for OpenAPI."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.requests import Request

from foveola.errors import UserError, unknown
from foveola.inputs.fixes import FIXES
from foveola.serving.responses import described

_MOST_PARAMETERS = 20


def _split(names: str) -> tuple[str, ...]:
    return tuple(filter(None, names.split(",")))


FixNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_split),
    Field(description="Changes to the picture before the model sees it, separated by commas."),
    WithJsonSchema({"type": "array", "items": {"type": "string", "enum": ["auto", *FIXES]}, "default": []}),
]


class Query(BaseModel):
    """The base of what routes take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, request: Request) -> Self:
        """What a request asks for.

        Raises
        ------
        UserError
            If it asks for something that the route does not know, or twice for the same.
        """
        return cls._parsed(request.scope["query_string"])

    @classmethod
    @lru_cache(256)  # clients ask alike
    def _parsed(cls, query: bytes) -> Self:
        try:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            raise UserError(
                f"There are more than {_MOST_PARAMETERS} parameters in the address. Leave some out."
            ) from None
        values = dict(pairs)
        if len(values) < len(pairs):
            raise UserError("A parameter is there twice in the address. Give it once.")
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in values:
            if name not in known:
                raise UserError(unknown("parameter", name[:80], known))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"The address asks for what cannot be done: {described(error)}") from None

    @classmethod
    def parameters(cls, **choices: Sequence[str]) -> list[dict[str, Any]]:
        """For OpenAPI; `choices` are the values that a parameter of that name may have."""
        schema = cls.model_json_schema()
        return [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": about.get("description", ""),
                "schema": {"type": "string", "enum": list(choices[name])} if name in choices else about,
                "style": "form",
                "explode": False,
            }
            for name, about in schema["properties"].items()
        ]
