"""JSON bodies: arrays of pixels and lists of images, parsed within limits and validated."""

import base64
import binascii
import re
from collections.abc import Collection
from contextlib import suppress
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from foveola.errors import DataError
from foveola.images import Images
from foveola.serving.refusals import Refused, described

Body = bytes | Images
"""An image file, or pixels: uint8 H×W×C."""

MAX_VALUES = 2**20
"""Numbers in one JSON body. They become Python objects before they become pixels: up to a hundred bytes each."""

# What browsers put before base64
_DATA_URL = re.compile(r"\A\s*data:[^,]{0,200};base64,", re.IGNORECASE)


def images_in_json(body: bytes) -> list[Body]:
    """The images of a JSON body, which has the schema JSON_SCHEMA.

    Raises
    ------
    DataError
        If it differs from the schema.
    Refused
        If it has more than MAX_VALUES values.
    """
    check_values(body)
    depth = len(body) - len(body.lstrip(b"["))
    if depth in (2, 3, 4):  # an array, most probably: validated as it is parsed
        with suppress(ValidationError, ValueError):
            return _split(_array(_INTEGERS[depth].validate_json(body), depth, "The array"))
    value = _parse(body)
    if isinstance(value, list):
        return _split(pixels_of(value, (2, 3, 4), "The array"))
    if not isinstance(value, dict) or value.keys() != {"images"} or not isinstance(value["images"], list):
        raise DataError('The JSON is neither an array of pixels nor {"images": […]}. Send one of them.')
    if not value["images"]:
        raise DataError('"images" is empty. Send at least one image.')
    return [_listed(image, f"Image {number}") for number, image in enumerate(value["images"], start=1)]


def _split(pixels: Images) -> list[Body]:
    """The images of an array, H×W, H×W×C or N×H×W×C."""
    return list(map(_with_channels, pixels)) if pixels.ndim == 4 else [_with_channels(pixels)]


def _listed(image: object, name: str) -> Body:
    if not isinstance(image, str):
        return _with_channels(pixels_of(image, (2, 3), name))
    content = "".join(_DATA_URL.sub("", image).split()).rstrip("=")
    try:
        return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name} is text, but not base64: {error}. Send an image file in base64.") from None


def _with_channels(pixels: Images) -> Images:
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] not in (1, 3):
        raise DataError(
            f"The array has {pixels.shape[2]} values for each pixel; 1 (grey) or 3 (RGB) are expected. Send one image "
            f"as H×W or H×W×C, several as N×H×W×C."
        )
    return pixels


def _parse(body: bytes) -> object:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"The body is not valid JSON: {error}. Correct it.") from None


def check_values(body: bytes) -> None:
    """Refuse JSON with more than MAX_VALUES values."""
    if body.count(b",") >= MAX_VALUES:
        raise Refused(
            413,
            f"The JSON has more than {MAX_VALUES:,} values. Send image files, binary tensors, or fewer at a time.",
        )


def pixels_of(value: object, depths: Collection[int], name: str) -> Images:
    """Nested lists of numbers as an array.

    Parameters
    ----------
    value : parsed JSON
    depths : numbers of dimensions that are allowed
    name : name of the array in messages

    Returns
    -------
    uint8 array

    Raises
    ------
    DataError
        If it has other dimensions, is ragged or empty, or holds anything but integers from 0 to 255.
    """
    depth = _depth(value)
    if depth not in depths:
        found = f"an array of {depth} dimensions" if depth else f"a value of type {type(value).__name__}"
        raise DataError(f"{name} is {found}; expected are {', '.join(map(str, depths))} dimensions.")
    try:
        return _array(_INTEGERS[depth].validate_python(value), depth, name)
    except ValidationError as error:
        raise DataError(f"{name} cannot be used: {described(error.errors())} Send integers from 0 to 255.") from None


def _depth(value: object) -> int:
    """The number of dimensions of an array, judged by its first element."""
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _array(integers: list[Any], depth: int, name: str) -> Images:
    shape, rows = _rows(integers, depth, name)
    try:
        pixels = b"".join(map(bytes, rows))
    except ValueError:  # one is outside 0 to 255: validate again to find it
        _PIXELS[depth].validate_python(integers)
        raise
    return np.frombuffer(pixels, np.uint8).reshape(shape)


def _rows(numbers: list[Any], depth: int, name: str) -> tuple[list[int], list[list[int]]]:
    """The shape of nested lists, and the innermost lists."""
    shape: list[int] = []
    level: list[Any] = [numbers]
    for place in range(depth):
        if place:
            level = list(chain.from_iterable(level))
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise DataError(f"{name} is ragged: its rows differ in length. Send a rectangular array.")
        shape += lengths
    return shape, level


def _nested_lists(kind: Any, depth: int) -> TypeAdapter[Any]:
    for _ in range(depth):
        kind = Annotated[list[kind], Field(min_length=1), FailFast()]
    return TypeAdapter(kind)


# Converting to bytes checks the range from 0 to 255 in half the time
_INTEGERS = {depth: _nested_lists(Annotated[int, Field(strict=True)], depth) for depth in range(1, 5)}
_PIXELS = {depth: _nested_lists(Annotated[int, Field(strict=True, ge=0, le=255)], depth) for depth in range(1, 5)}


def _array_schema(depth: int) -> dict[str, Any]:
    """The JSON schema of an array of pixels of so many dimensions."""
    schema: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 255}
    for _ in range(depth):
        schema = {"type": "array", "items": schema, "minItems": 1}
    return schema


_FILE_SCHEMA = {"type": "string", "contentEncoding": "base64", "description": "An image file."}
JSON_SCHEMA = {
    "anyOf": [
        _array_schema(2) | {"title": "Grey", "description": "One image, H×W, 0 to 255."},
        _array_schema(3) | {"title": "Colour", "description": "One image, H×W×C with C = 1 or 3."},
        _array_schema(4) | {"title": "Several", "description": "N×H×W×C."},
        {
            "type": "object",
            "title": "Listed",
            "properties": {
                "images": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"anyOf": [_FILE_SCHEMA, _array_schema(2), _array_schema(3)]},
                }
            },
            "required": ["images"],
            "additionalProperties": False,
        },
    ]
}
