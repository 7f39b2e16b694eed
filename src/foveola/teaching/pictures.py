"""Pictures of a project: what arrives, decoded and as it will be stored; thumbnails, made once."""

import io
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.container import read_container
from foveola.inputs.decode import decode_first_frame, read_first_frame
from foveola.serving.collect import png
from foveola.teaching.listing import Picture

Size = Literal["small", "large"]
SIDES: dict[Size, int] = {"small": 192, "large": 640}
"""The longer side of a thumbnail, in pixels; smaller pictures are not enlarged."""

# Files of thumbnails beyond which those of pictures that are gone are removed, at the start
_MAX_STALE_THUMBNAILS = 2_000
_JPEG_QUALITY = 85
_JPEG_END = b"\xff\xd9"
_TURNED = range(2, 9)  # orientations in EXIF


@dataclass(frozen=True, eq=False)
class Arrival:
    """A picture that has arrived: its pixels, uint8 H×W×C, and the file that it will be."""

    pixels: Images
    content: bytes
    suffix: str
    notes: tuple[str, ...] = ()


def receive(data: bytes, max_pixels: int) -> Arrival:
    """Decode an image file that somebody has sent.

    PNG and JPEG are kept as they came, without their metadata (place, camera, thumbnails); whatever is turned by its
    EXIF, animated, or of another format becomes a PNG of the first frame.

    Raises
    ------
    DataError
        If it cannot be used.
    """
    frame = decode_first_frame(data, "The image", max_pixels=max_pixels)
    notes = ("animated; only its first frame is used",) if frame.animated else ()
    container = read_container(data, max_pixels)
    plain = container is not None and container.orientation not in _TURNED and not container.continuations
    if container is not None and plain and container.format in ("PNG", "JPEG"):
        return Arrival(frame.pixels, container.data, ".png" if container.format == "PNG" else ".jpg", notes)
    return Arrival(frame.pixels, png(frame.pixels), ".png", notes)


class Thumbnails:
    """Small JPEG copies of a project's pictures, kept in its own folder.

    Parameters
    ----------
    folder : of the thumbnails; they can be removed at any time
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, picture: Picture, size: Size) -> bytes:
        """The thumbnail of a picture, made if there is none yet.

        Raises
        ------
        DataError
            If the picture cannot be read.
        """
        path = self._folder / f"{picture.key}-{size}.jpg"
        with suppress(OSError):
            content = path.read_bytes()
            if content.endswith(_JPEG_END):  # not one that a crash has cut off
                return content
        content = make_thumbnail(picture.path, SIDES[size])
        temporary = path.with_name(f".{path.name}.{threading.get_ident()}.tmp")
        with suppress(OSError):  # it is shown all the same
            temporary.write_bytes(content)  # not flushed to the disk: it can be made again
            temporary.replace(path)
        return content

    def remove_stale(self, keys: set[str]) -> None:
        """Remove thumbnails of pictures that are gone, if there are many."""
        with suppress(OSError):
            paths = [path for path in self._folder.iterdir() if path.name.partition("-")[0] not in keys]
            for path in paths if len(paths) > _MAX_STALE_THUMBNAILS else ():
                path.unlink()


def make_thumbnail(path: Path, side: int) -> bytes:
    """A JPEG of a picture, at most `side` pixels wide and high.

    Raises
    ------
    DataError
        If it cannot be read.
    """

    def reduce(height: int, width: int) -> tuple[int, int]:
        factor = min(side / max(height, width), 1.0)
        return max(round(height * factor), 1), max(round(width * factor), 1)

    try:
        pixels = read_first_frame(path, reduce=reduce).pixels
    except DataError as error:  # which folder is meant, everyone knows who sees the page
        raise DataError(str(error).replace(str(path), f"{path.parent.name}/{path.name}")) from None
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
