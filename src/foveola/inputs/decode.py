"""Decoder of image files to uint8 arrays, used by training, prediction and serving alike.

Only a few formats are accepted: most security advisories about image parsers concern rarer ones.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.container import read_container

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20  # 64 megapixels as uncompressed BMP with four bytes per pixel

_FORMAT_NAMES = "PNG, JPEG, BMP, WebP and GIF"
_GREY_MODES = ("1", "L", "LA")
_PALETTE_MODES = ("P", "PA")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WARNING_FILTERS = threading.Lock()


class FirstFrame(NamedTuple):
    """The first frame of an image file: `pixels`, uint8 H×W×C; `animated` if the file has more frames."""

    pixels: Images
    animated: bool


def read_image(path: str | Path) -> Images:
    """Read and decode an image file.

    Returns
    -------
    uint8 array, H×W×C, as returned by `decode`

    Raises
    ------
    DataError
        If the file does not exist, is larger than 256 MiB, or cannot be decoded.
    """
    return read_first_frame(path).pixels


def read_first_frame(path: str | Path) -> FirstFrame:
    """As `read_image`, and whether the file is an animation."""
    path = Path(path)
    try:
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise DataError(f"{path} {problem}. Give the path of an image file ({_FORMAT_NAMES}).")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}. Save a smaller image."
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error
    return decode_first_frame(data, str(path))


def decode(data: bytes, name: str, *, background: int = 255, max_pixels: int = MAX_PIXELS) -> Images:
    """Decode an image file.

    The orientation in EXIF or XMP is applied, transparent pixels are blended with the background, and of an animation
    the first frame is returned; other metadata and frames are not parsed. 16 bits per channel become 8: rounded for
    grey, the high byte for colour, which is all that Pillow provides. Colour profiles are ignored.

    Parameters
    ----------
    data : content of a PNG, JPEG, BMP, WebP or GIF file
    name : name of the image in messages
    background : grey value behind transparent pixels, 0 to 255
    max_pixels : larger images are refused before memory for their pixels is allocated

    Returns
    -------
    uint8 array, H×W×C; C = 1 if the file is grey or uses only greys of a palette, otherwise 3 (RGB)

    Raises
    ------
    DataError
        If the bytes are not a complete image of an accepted format, have more than `max_pixels`, or would take too
        long to decode (scans of a JPEG).
    """
    return decode_first_frame(data, name, background=background, max_pixels=max_pixels).pixels


def decode_first_frame(data: bytes, name: str, *, background: int = 255, max_pixels: int = MAX_PIXELS) -> FirstFrame:
    """As `decode`, and whether the file is an animation."""
    try:
        container = read_container(data, max_pixels)
        with _pillow_warnings_raised():
            # Only verify() checks PNG's checksums; it leaves the image unusable, hence the second open.
            Image.open(io.BytesIO(container.data), formats=FORMATS).verify()
            image = Image.open(io.BytesIO(container.data), formats=FORMATS)
        width, height = image.size
        if not 0 < width * height <= max_pixels:
            raise Image.DecompressionBombError
        # Pillow opens 16-bit grey with alpha as RGBA; only the raw data layout shows that it is grey.
        grey = image.mode in _GREY_MODES or any(tile.args == "LA;16B" for tile in image.tile)
        image.load()
        pixels = _to_array(_apply_orientation(image, container.orientation), grey, background)
        return FirstFrame(pixels, animated=container.frames > 1)
    except UnidentifiedImageError as error:
        start = data[:8].hex(" ") or "nothing"
        raise DataError(
            f"{name} is not an image of an accepted format, or is damaged: it starts with {start}. "
            f"Accepted formats are {_FORMAT_NAMES}; convert or replace the file."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name} is refused because of its size: an image may have 1 to {max_pixels:,} pixels. "
            f"Save a smaller image."
        ) from error
    except Exception as error:  # on damaged files, Pillow's parsers raise exceptions of many types
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} cannot be decoded: {reason}. The file is damaged or unusual; replace it.") from error


@contextmanager
def _pillow_warnings_raised() -> Iterator[None]:
    """Turn warnings from Pillow into exceptions, one thread at a time: warning filters are global to the process."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"PIL\.")
        yield


def _apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TO_UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _to_array(image: Image.Image, grey: bool, background: int) -> Images:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image, background)
    if image.mode not in _GREY_MODES + _PALETTE_MODES + _COLOUR_MODES:
        raise ValueError(f"pixels in Pillow's mode {image.mode} have no defined range")
    palette = image.mode in _PALETTE_MODES
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    pixels = np.array(image.convert("RGB"))
    if grey or (palette and bool((pixels == pixels[..., :1]).all())):
        pixels = np.ascontiguousarray(pixels[..., :1])
    return pixels


def _from_16_bit(image: Image.Image, background: int) -> Images:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its grey values, {values.min()} to {values.max()}, exceed 16 bits")
    pixels = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: rounds to the nearest
    if (transparent := image.info.get("transparency")) is not None:
        pixels[values == transparent] = background
    return pixels[..., None]
