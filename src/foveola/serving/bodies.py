"""Bodies of requests: image files and JSON arrays, turned into what the network accepts."""

import base64
import binascii
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.decode import FirstFrame, decode_first_frame
from foveola.inputs.fixes import Fix
from foveola.inputs.prepare import PreparedImage, prepare
from foveola.models.metadata import ModelMetadata
from foveola.serving.refusals import Refused, described
from foveola.serving.threads import ThreadPool

Body = bytes | Images
"""An image file, or pixels: uint8 H×W×C."""

MAX_VALUES = 2**20
"""Numbers in one JSON body. They become Python objects before they become pixels: up to a hundred bytes each."""

# What is larger is parsed, decoded or prepared in a thread, since it could block the event loop for milliseconds
QUICK_BYTES = 32 * 1024  # of JSON or of an image file
_QUICK_PIXELS, _QUICK_PIXELS_COMPARED = 20_000, 4_000  # of all images; resized, or compared with the training images

# What browsers put before base64
_DATA_URL = re.compile(r"\A\s*data:[^,]{0,200};base64,", re.IGNORECASE)


class Preparation:
    """Reads bodies of requests, and prepares their images for the network: small ones at once, others in threads.

    Parameters
    ----------
    metadata : of the model
    max_pixels : of an image
    threads : for what could block the event loop
    """

    def __init__(self, metadata: ModelMetadata, max_pixels: int, threads: ThreadPool) -> None:
        self._metadata = metadata
        self._max_pixels = max_pixels
        self._threads = threads

    async def images(self, request: Request) -> list[Body]:
        """The images of a request: an image file, or JSON.

        Raises
        ------
        Refused
            If the body has another type, or too many values.
        DataError
            If it is JSON, but holds no images.
        """
        kind, body = media_type(request), await request.body()
        if kind == "application/json":
            quick = len(body) <= QUICK_BYTES
            return images_in_json(body) if quick else await self._threads.run(images_in_json, body)
        if not is_image(kind):
            raise wrong_type(kind, "an image file with a Content-Type such as image/png, or application/json")
        return [body]

    async def decoded(self, data: bytes) -> Images:
        """The pixels of an image file, uint8 H×W×C."""
        return (await self._threads.run(self._decoded, data, "The image", self._max_pixels)).pixels

    async def prepared(
        self, bodies: Sequence[Body], requested: tuple[Fix, ...], *, auto: bool, findings: bool = True
    ) -> list[PreparedImage]:
        """Images for the network; `requested`, `auto` and `findings` are those of `foveola.inputs.prepare.prepare`.

        Raises
        ------
        DataError
            If an image cannot be used.
        Busy
            If too many requests wait for a thread already.
        """

        def work(max_pixels: int) -> list[PreparedImage]:
            prepared = []
            for number, body in enumerate(bodies, start=1):
                name = f"Image {number}" if len(bodies) > 1 else "The image"
                pixels, animated = self._decoded(body, name, max_pixels)
                prepared.append(
                    prepare(
                        pixels,
                        self._metadata,
                        requested,
                        auto=auto,
                        name=name,
                        findings=findings,
                        animated=animated,
                        how_to_fix="fix=auto or grey=true in the address",
                    )
                )
            return prepared

        # Comparing an image with the training images, and fixing it, take far longer than resizing it
        quick_pixels = _QUICK_PIXELS if not (findings or auto or requested) else _QUICK_PIXELS_COMPARED
        quick_pixels //= len(bodies)
        if all(_size(body) <= (QUICK_BYTES if isinstance(body, bytes) else quick_pixels) for body in bodies):
            with suppress(DataError):  # too large for the event loop, or unusable: a thread finds out which
                return work(min(quick_pixels, self._max_pixels))
        return await self._threads.run(work, self._max_pixels)

    def _decoded(self, body: Body, name: str, max_pixels: int) -> FirstFrame:
        if isinstance(body, bytes):
            return decode_first_frame(body, name, max_pixels=max_pixels)
        if _size(body) > max_pixels:
            raise DataError(
                f"{name} is refused because of its size: an image may have 1 to {max_pixels:,} pixels. "
                f"Send a smaller image."
            )
        return FirstFrame(body, animated=False)


def _size(body: Body) -> int:
    """Bytes of a file, or pixels of an array."""
    return len(body) if isinstance(body, bytes) else body.shape[0] * body.shape[1]


# Types


def media_type(request: Request) -> str:
    """The type of a body, without parameters; of unknown type, it counts as bytes."""
    return request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()


def is_image(kind: str) -> bool:
    """Whether a body of this type is one image file."""
    return kind.startswith("image/") or kind == "application/octet-stream"


async def image_file(request: Request) -> bytes:
    """The image file that is a request's body, as a dependency of routes.

    Raises
    ------
    Refused
        If the body has another type.
    """
    if not is_image(media_type(request)):
        raise wrong_type(media_type(request), "an image file, with a Content-Type such as image/png")
    return await request.body()


def wrong_type(found: str, wanted: str) -> Refused:
    """The refusal of a body of another type."""
    return Refused(415, f"A body of type {found[:80]} cannot be used here. Send {wanted}.")


# JSON


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
