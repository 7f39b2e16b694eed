"""Pictures as they come in requests, turned into what the network gets."""

import base64
import binascii
import re
from contextlib import suppress

from starlette.requests import Request

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.decode import decode, is_animated
from foveola.inputs.fixes import Fix
from foveola.inputs.prepare import PreparedImage, prepare
from foveola.models.metadata import ModelMetadata
from foveola.serving.json_bodies import array_schema, parse_json, pixels_of
from foveola.serving.responses import Refused
from foveola.serving.workers import Workers

# What is done within a millisecond or two is done at once: a thread would not be faster, and switching costs
_AT_ONCE_BYTES, _AT_ONCE_PIXELS = 32 * 1024, 10_000

Picture = bytes | Images
"""An image file, or its pixels: uint8 H×W×C."""


class Pictures:
    """The way from a picture to what the network gets.

    Parameters
    ----------
    metadata : of the model
    max_pixels : of a picture
    workers : decode what is large
    """

    def __init__(self, metadata: ModelMetadata, max_pixels: int, workers: Workers) -> None:
        self._card = metadata
        self._max_pixels = max_pixels
        self._workers = workers

    async def decoded(self, data: bytes, name: str) -> Images:
        """The pixels of an image file, uint8 H×W×C."""
        return await self._workers.run(self._decoded, data, name, self._max_pixels)

    async def prepared(
        self, picture: Picture, name: str, asked: tuple[Fix, ...], *, auto: bool, findings: bool = True
    ) -> PreparedImage:
        """What the network gets of a picture; the parameters are those of `answering.prepare`.

        Raises
        ------
        DataError
            If the picture cannot be used.
        Busy
            If too many large pictures wait already.
        """

        def work(max_pixels: int) -> PreparedImage:
            pixels = self._decoded(picture, name, max_pixels)
            animated = findings and isinstance(picture, bytes) and is_animated(picture)
            return prepare(pixels, self._card, asked, auto=auto, name=name, findings=findings, animated=animated)

        if (len(picture) if isinstance(picture, bytes) else picture.nbytes) <= _AT_ONCE_BYTES:
            with suppress(DataError):  # too large for here, or unusable: a worker finds out which
                return work(min(_AT_ONCE_PIXELS, self._max_pixels))
        return await self._workers.run(work, self._max_pixels)

    def _decoded(self, picture: Picture, name: str, max_pixels: int) -> Images:
        if isinstance(picture, bytes):
            return decode(picture, name, max_pixels=max_pixels)
        if picture.shape[0] * picture.shape[1] > max_pixels:
            raise DataError(f"{name} is refused for its size: a picture may have {max_pixels:,} pixels. Send less.")
        return picture


# What browsers put before base64
_DATA_URL = re.compile(r"\A\s*data:[^,]{0,200};base64,", re.IGNORECASE)


def media_type(request: Request) -> str:
    """The type of a body, without parameters; bytes of whatever kind where it is not said."""
    return request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()


def is_picture(kind: str) -> bool:
    """Whether a body of this type is the bytes of one image file."""
    return kind.startswith("image/") or kind == "application/octet-stream"


async def one_picture(request: Request) -> bytes:
    """The image file that is a request's body.

    Raises
    ------
    Refused
        If the body says that it is something else.
    """
    if not is_picture(media_type(request)):
        raise wrong_type(media_type(request), "the bytes of an image file, with a Content-Type such as image/png")
    return await request.body()


def wrong_type(found: str, wanted: str) -> Refused:
    """The refusal of a body of another type."""
    return Refused(415, f"A body of type {found[:80]} cannot be used here. Send {wanted}.")


def pictures_in_json(body: bytes) -> list[Picture]:
    """The pictures of a JSON body, of which JSON_SCHEMA says how it looks.

    Raises
    ------
    DataError
        If it looks otherwise.
    """
    value = parse_json(body)
    if isinstance(value, list):
        pixels = pixels_of(value, (2, 3, 4), "The array")
        return list(map(_picture, pixels)) if pixels.ndim == 4 else [_picture(pixels)]
    if not isinstance(value, dict) or value.keys() != {"images"} or not isinstance(value["images"], list):
        raise DataError('The JSON is neither an array of pixels nor {"images": […]}. Send one of them.')
    if not value["images"]:
        raise DataError('There are no pictures in "images". Send at least one.')
    return [_listed(picture, f"Picture {number}") for number, picture in enumerate(value["images"], start=1)]


def _listed(picture: object, name: str) -> Picture:
    if not isinstance(picture, str):
        return _picture(pixels_of(picture, (2, 3), name))
    content = "".join(_DATA_URL.sub("", picture).split()).rstrip("=")
    try:
        return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name} is text, but no base64: {error}. Send the bytes of an image file so.") from None


def _picture(pixels: Images) -> Images:
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] not in (1, 3):
        raise DataError(
            f"The array has {pixels.shape[2]} values for each pixel; 1 (grey) or 3 (RGB) are expected. Send one image "
            f"as H×W or H×W×C, several as N×H×W×C."
        )
    return pixels


JSON_SCHEMA = {
    "anyOf": [
        array_schema(2) | {"title": "Grey", "description": "One picture, H×W, 0 to 255."},
        array_schema(3) | {"title": "Colour", "description": "One picture, H×W×C with C = 1 or 3."},
        array_schema(4) | {"title": "Several", "description": "N×H×W×C."},
        {
            "type": "object",
            "title": "Listed",
            "properties": {
                "images": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "anyOf": [
                            {"type": "string", "contentEncoding": "base64", "description": "An image file."},
                            array_schema(2),
                            array_schema(3),
                        ]
                    },
                }
            },
            "required": ["images"],
            "additionalProperties": False,
        },
    ]
}
