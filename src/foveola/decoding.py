"""Bytes → uint8 image: one decoder for training, prediction and serving.

It accepts few formats on purpose: most advisories against image parsers sit in formats that nobody needs here.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from foveola.errors import DataError
from foveola.images import Images

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20  # 64 megapixels of uncompressed BMP with four bytes each

_ACCEPTED = "PNG, JPEG, BMP, WebP and GIF"
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


def read_image(path: str | Path) -> Images:
    """Read and decode an image file.

    Returns
    -------
    uint8 array, H×W×C, as `decode` gives it

    Raises
    ------
    DataError
        If there is no such file, it is larger than 256 MiB, or `decode` refuses it.
    """
    path = Path(path)
    try:
        if not path.is_file():
            found = "is not a file" if path.exists() else "does not exist"
            raise DataError(f"{path} {found}. Give the path of an image file ({_ACCEPTED}).")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read. Save it smaller."
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error
    return decode(data, str(path))


def is_animated(source: str | Path | bytes) -> bool:
    """Whether an image file, its path or its bytes, holds more than the frame that `decode` has given."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        return bool(getattr(image, "is_animated", False))


def decode(data: bytes, name: str, *, background: int = 255, max_pixels: int = MAX_PIXELS) -> Images:
    """Decode an image.

    The orientation in EXIF or XMP is applied, transparency is laid over the background, an animation gives its first
    frame, 16 bits a channel are scaled to 8 (grey: rounded; colour: the high byte, which is all that Pillow gives).
    Colour profiles are ignored.

    Parameters
    ----------
    data : a whole file: PNG, JPEG, BMP, WebP or GIF
    name : what messages call it
    background : grey value behind transparent pixels, 0 to 255
    max_pixels : larger images are refused before anything of that size is allocated

    Returns
    -------
    uint8 array, H×W×C; C = 1 if the file is grey, or has a palette and uses only greys of it; otherwise 3 (RGB)

    Raises
    ------
    DataError
        If the bytes are no whole image of an accepted format, or have more than `max_pixels`.
    """
    try:
        with _pillow_warnings_raised():
            # Only verify() looks at PNG's checksums; it leaves the image unusable, hence the second open.
            Image.open(io.BytesIO(data), formats=FORMATS).verify()
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if not 0 < width * height <= max_pixels:
            raise Image.DecompressionBombError
        # Pillow opens 16-bit grey with alpha as RGBA; only the layout of the raw data still tells.
        grey = image.mode in _GREY_MODES or any(tile.args == "LA;16B" for tile in image.tile)
        image.load()
        with _pillow_warnings_raised():
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return _pixels(_upright(image, orientation), grey, background)
    except UnidentifiedImageError as error:
        start = data[:8].hex(" ") or "nothing"
        raise DataError(
            f"{name} is not an image of an accepted format, or is damaged: it starts with {start}. "
            f"Accepted are {_ACCEPTED}; convert or replace the file."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name} is refused for its size: an image may have 1 to {max_pixels:,} pixels. Save it smaller."
        ) from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged byte leads them into
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} cannot be decoded: {reason}. The file is damaged or unusual; replace it.") from error


@contextmanager
def _pillow_warnings_raised() -> Iterator[None]:
    """Turn warnings from Pillow into exceptions; filters belong to the whole process, so one thread at a time."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"PIL\.")
        yield


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    # Not ImageOps.exif_transpose: it also rewrites the metadata, and fails where other tags are malformed.
    transpose = _TO_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if transpose is None else image.transpose(transpose)


def _pixels(image: Image.Image, grey: bool, background: int) -> Images:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bit(image, background)
    if image.mode not in _GREY_MODES + _PALETTE_MODES + _COLOUR_MODES:
        raise ValueError(f"pixels of Pillow's mode {image.mode} have no defined range")
    palette = image.mode in _PALETTE_MODES
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    pixels = np.array(image.convert("RGB"))
    if grey or (palette and bool((pixels == pixels[..., :1]).all())):
        pixels = np.ascontiguousarray(pixels[..., :1])
    return pixels


def _sixteen_bit(image: Image.Image, background: int) -> Images:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"grey values run from {values.min()} to {values.max()}, beyond 16 bits")
    pixels = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: rounds to the nearest
    if (transparent := image.info.get("transparency")) is not None:
        pixels[values == transparent] = background
    return pixels[..., None]


def resize(image: Images, height: int, width: int) -> Images:
    """Resize with Pillow's bilinear filter, which averages over all source pixels when it shrinks.

    Parameters
    ----------
    image : uint8 array, H×W×C, C = 1 or 3

    Returns
    -------
    uint8 array, height×width×C; the image itself if it has that size
    """
    if image.shape[:2] == (height, width):
        return image
    pillow = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.array(pillow.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[2])


def to_channels(image: Images, channels: int) -> Images:
    """Turn grey into RGB by repeating it, or RGB into grey by the weights of ITU-R 601 (0.299, 0.587, 0.114).

    Parameters
    ----------
    image : uint8 array, H×W×C, C = 1 or 3
    channels : 1 or 3

    Returns
    -------
    uint8 array, H×W×channels; the image itself if it has so many

    Raises
    ------
    DataError
        If `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise DataError(f"Images cannot have {channels} channels; choose 1 (grey) or 3 (RGB).")
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.array(Image.fromarray(image).convert("L"))[..., None]
