"""JSON from anybody: parsed within bounds, arrays of pixels checked number by number."""

from collections.abc import Collection
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from foveola.errors import DataError
from foveola.images import Images
from foveola.serving.responses import Refused, described

MAX_VALUES = 2**20
"""Numbers become Python objects before they become pixels: a hundred bytes each, at worst."""

PIXEL_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 255}


def parse_json(body: bytes | memoryview) -> object:
    """The value that a body holds.

    Raises
    ------
    DataError
        If it is no JSON; NaN and infinities are none.
    Refused
        If it holds more than MAX_VALUES values.
    """
    body = bytes(body)
    if body.count(b",") >= MAX_VALUES:
        raise Refused(
            413,
            f"The JSON holds more than {MAX_VALUES:,} values. Send image files, or binary tensors, or fewer at a time.",
        )
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"The body is no JSON that can be read: {error}. Correct it.") from None


def pixels_of(value: object, depths: Collection[int], name: str) -> Images:
    """Nested lists of numbers as an array.

    Parameters
    ----------
    value : parsed JSON
    depths : how many dimensions it may have
    name : what messages call it

    Returns
    -------
    uint8 array

    Raises
    ------
    DataError
        If it has other dimensions, is ragged or empty, or holds anything but whole numbers from 0 to 255.
    """
    depth = _depth(value)
    if depth not in depths:
        found = f"an array of {depth} dimensions" if depth else f"a value of type {type(value).__name__}"
        raise DataError(f"{name} is {found}, where one of {' or '.join(map(str, depths))} dimensions is expected.")
    try:
        return _array(value, depth, name)
    except ValidationError as error:
        raise DataError(f"{name} cannot be used: {described(error)} Send whole numbers from 0 to 255.") from None


def _array(value: object, depth: int, name: str) -> Images:
    shape, rows = _rows(_NUMBERS[depth].validate_python(value), depth, name)
    try:
        pixels = b"".join(map(bytes, rows))
    except ValueError:  # one is not from 0 to 255: which?
        _PIXELS[depth].validate_python(value)
        raise
    return np.frombuffer(pixels, np.uint8).reshape(shape)


def _rows(numbers: list[Any], depth: int, name: str) -> tuple[list[int], list[list[int]]]:
    """The shape of nested lists, and the innermost of them."""
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


def array_schema(depth: int) -> dict[str, Any]:
    """The JSON schema of an array of pixels of so many dimensions."""
    schema = PIXEL_SCHEMA
    for _ in range(depth):
        schema = {"type": "array", "items": schema, "minItems": 1}
    return schema


def _depth(value: object) -> int:
    """How many dimensions an array has, judged by its first element."""
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _arrays(kind: Any, depth: int) -> TypeAdapter[Any]:
    for _ in range(depth):
        kind = Annotated[list[kind], Field(min_length=1), FailFast()]
    return TypeAdapter(kind)


# Whether the numbers are from 0 to 255 shows as they become bytes, in half the time
_NUMBERS = {depth: _arrays(Annotated[int, Field(strict=True)], depth) for depth in range(1, 5)}
_PIXELS = {depth: _arrays(Annotated[int, Field(strict=True, ge=0, le=255)], depth) for depth in range(1, 5)}
