"""Images of requests, decoded and prepared for the network: small ones at once, others in threads."""

from collections.abc import Sequence
from contextlib import suppress

from starlette.requests import Request

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.decode import FirstFrame, decode_first_frame
from foveola.inputs.fixes import Fix
from foveola.inputs.prepare import PreparedImage, prepare
from foveola.models.metadata import ModelMetadata
from foveola.serving.json_bodies import Body, images_in_json
from foveola.serving.refusals import Refused
from foveola.serving.threads import ThreadPool

# What is larger is parsed, decoded or prepared in a thread, since it could block the event loop for milliseconds
QUICK_BYTES = 32 * 1024  # of JSON or of an image file
_QUICK_PIXELS, _QUICK_PIXELS_COMPARED = 20_000, 4_000  # of all images; resized, or compared with the training images


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
                prepared.append(
                    prepare(
                        self._decoded(body, name, max_pixels),
                        self._metadata,
                        requested,
                        auto=auto,
                        name=name,
                        findings=findings,
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
            return decode_first_frame(body, name, max_pixels=max_pixels, white_level=self._metadata.white_level)
        if _size(body) > max_pixels:
            raise DataError(
                f"{name} is refused because of its size: an image may have 1 to {max_pixels:,} pixels. "
                f"Send a smaller image."
            )
        return FirstFrame(body)


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
