"""Decoder of image files to uint8 arrays, used by training, prediction and serving alike.

Only a few formats are accepted: most security advisories about image parsers concern rarer ones.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.container import read_container
from foveola.inputs.resize import RESAMPLING, resize

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
MAX_PIXELS = 64_000_000
MAX_WHITE_LEVEL = 65535  # of files of 16 bits per channel
MAX_FILE_BYTES = 256 * 2**20  # 64 megapixels as uncompressed BMP with four bytes per pixel

_FORMAT_NAMES = "PNG, JPEG, BMP, WebP and GIF"
_GREY_MODES = ("1", "L", "LA")
_PALETTE_MODES = ("P", "PA")
_16_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_PLAIN_MODES = ("L", "RGB")  # of images that become arrays as they are, if they have no transparency
_WHITE_LEVELS = (255, 1023, 4095, 16383)
_MIN_CONTRAST = 12  # grey levels

# From the height and width of an upright image to those that it is resized to as soon as it is decoded
Reduce = Callable[[int, int], tuple[int, int]]

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class FirstFrame(NamedTuple):
    """The first frame of an image file.

    `pixels` is uint8 H×W×C; `animated`: the file has more frames; `on_black`: transparent pixels became black, because
    on white nothing would be left; `peak`: the largest value in a file of 16 bits per channel, None for 8 bits. Of
    16-bit colour only the high bytes are known, so its `peak` ends in a byte of ones. `original_size`: the height and
    width in the file if the pixels were resized.
    """

    pixels: Images
    animated: bool = False
    on_black: bool = False
    peak: int | None = None
    original_size: tuple[int, int] | None = None


def read_first_frame(path: str | Path, white_level: int | None = None, reduce: Reduce | None = None) -> FirstFrame:
    """Read and decode an image file, as `decode_first_frame` does.

    Raises
    ------
    DataError
        If the file does not exist, is larger than 256 MiB, or cannot be decoded.
    """
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
    return decode_first_frame(data, str(path), white_level=white_level, reduce=reduce)


def read_size(path: Path | io.BytesIO) -> tuple[int, int] | None:
    """Height and width of the upright image in a file, from its header; None where that cannot be read."""
    try:
        if isinstance(path, Path) and not path.is_file():
            return None
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            # Pillow decodes a whole PNG to look for an orientation
            turned = image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # of many types; `read_first_frame` says what is wrong with the file
        return None


def decode(data: bytes, name: str, *, background: int | None = None, max_pixels: int = MAX_PIXELS) -> Images:
    """Decode an image file.

    The orientation in EXIF or XMP is applied, transparent pixels are blended with the background, and of an animation
    the first frame is returned; other metadata is not parsed, nor need it be sound. 16 bits per channel become 8:
    rounded for grey, the high byte for colour, which is all that Pillow provides. Colour profiles are ignored.

    Parameters
    ----------
    data : content of a PNG, JPEG, BMP, WebP or GIF file
    name : name of the image in messages
    background : grey value behind transparent pixels, 0 to 255; None: white, or black where nothing stands out from
        white but something from black, such as white strokes on a transparent ground
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


def decode_first_frame(
    data: bytes,
    name: str,
    *,
    background: int | None = None,
    max_pixels: int = MAX_PIXELS,
    white_level: int | None = None,
    reduce: Reduce | None = None,
) -> FirstFrame:
    """As `decode`, and what it found on the way.

    Parameters
    ----------
    white_level : the value in files of 16 bits per channel that becomes 255, such as 4095 for 12 bits; None: 65535. A
        file with larger values has other pixels than those that `white_level` was meant for, and is scaled by 65535
    reduce : called with height and width of the upright image; returns those to resize it to. The pixels are exactly
        those of `resize(decode(data, name), …)`, but a photograph is not copied into an array in its full size, which
        takes longer than decoding it

    Raises
    ------
    DataError
        Also if the file has 16-bit colour whose values end at a `white_level` below 65535: too few levels are left.
    """
    try:
        with _one_message(name, max_pixels):
            return _decode(data, name, background, max_pixels, white_level, reduce)
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not an image of an accepted format, or is damaged: it starts with "
            f"{data[:8].hex(' ') or 'nothing'}. "
            f"Accepted formats are {_FORMAT_NAMES}; convert or replace the file."
        ) from error


def first_frame_of(
    image: Image.Image, name: str, *, white_level: int | None = None, reduce: Reduce | None = None
) -> FirstFrame:
    """As `decode_first_frame`, of an image that Pillow has opened or made; what is not decoded yet is decoded.

    Pillow has accepted the file before, so that only the number of its pixels is limited here.

    Raises
    ------
    DataError
        If the image has no pixels, or more than 64 million, or cannot be decoded.
    """
    with _one_message(name, MAX_PIXELS):
        if not 0 < image.width * image.height <= MAX_PIXELS:
            raise Image.DecompressionBombError
        return _first_frame(image, name, white_level=white_level, reduce=reduce)


@contextmanager
def _one_message(name: str, max_pixels: int) -> Iterator[None]:
    """Turn what Pillow raises inside the block into a DataError, except that no format is recognised."""
    try:
        yield
    except (DataError, UnidentifiedImageError):
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name} is refused because of its size: an image may have 1 to {max_pixels:,} pixels. "
            f"Save a smaller image."
        ) from error
    except Exception as error:  # on damaged files, Pillow's parsers raise exceptions of many types
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} cannot be decoded: {reason}. The file is damaged or unusual; replace it.") from error


def _decode(
    data: bytes, name: str, background: int | None, max_pixels: int, white_level: int | None, reduce: Reduce | None
) -> FirstFrame:
    container = read_container(data, max_pixels)
    if container is None:
        raise UnidentifiedImageError
    if not 0 < container.pixels <= max_pixels:
        raise Image.DecompressionBombError
    image = _opened(container.data, container.format)
    if not 0 < image.width * image.height <= max_pixels:
        raise Image.DecompressionBombError
    if any(_opened(continued, "JPEG").tobytes() != image.tobytes() for continued in container.continuations):
        raise ValueError("the file is truncated")
    frame = _first_frame(image, name, container.orientation, background, white_level, reduce)
    return frame._replace(animated=container.frames > 1)


def _first_frame(
    image: Image.Image,
    name: str,
    orientation: int | None = None,
    background: int | None = None,
    white_level: int | None = None,
    reduce: Reduce | None = None,
) -> FirstFrame:
    """The pixels of an opened image; `orientation` as in EXIF, None: as Pillow finds it."""
    # Pillow opens 16-bit grey with alpha as RGBA, and 16-bit colour as RGB; only the raw data layout shows it.
    layouts = {tile.args for tile in getattr(image, "tile", ()) if isinstance(tile.args, str)}
    grey = image.mode in _GREY_MODES or "LA;16B" in layouts
    deep = image.mode in _16_BIT_MODES or any(layout.endswith(";16B") for layout in layouts)
    peak = _peak(image) if deep else None
    white = white_level if white_level and peak is not None and peak <= white_level else MAX_WHITE_LEVEL
    if white < MAX_WHITE_LEVEL and image.mode not in _16_BIT_MODES:
        raise DataError(f"{name} {few_levels(white)}")
    if orientation is None:  # only now, because Pillow decodes a PNG for it, and forgets the layout
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    upright = _upright(image, orientation)
    size = (upright.height, upright.width)
    target = size if reduce is None else reduce(*size)
    if upright.mode in _PLAIN_MODES and not upright.has_transparency_data and target != size:
        upright = upright.resize(target[::-1], RESAMPLING)
    pixels, on_black = _on_background(upright, grey, white, background)
    return FirstFrame(
        resize(pixels, *target), on_black=on_black, peak=peak, original_size=None if target == size else size
    )


def _opened(data: bytes, format: str) -> ImageFile:
    return Image.open(io.BytesIO(data), formats=[format])


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TO_UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def white_level_of(peak: int) -> int | None:
    """The white level of 8, 10, 12 or 14 bits that suffices for values up to `peak`; None if it takes 16 bits."""
    return next((level for level in _WHITE_LEVELS if peak <= level), None)


def few_levels(white_level: int) -> str:
    """What is wrong with 16-bit colour whose values end at `white_level`, and the remedy; follows a subject."""
    bits = white_level.bit_length()
    return (
        f"has 16 bits per colour, of which only {bits} are used. Pillow reads the upper 8, which would leave "
        f"{2 ** max(bits - 8, 0)} levels. Convert the files to 8 bits, for example with ImageMagick: "
        f"magick IN.png -evaluate multiply {2 ** (16 - bits)} -depth 8 OUT.png"
    )


def _peak(image: Image.Image) -> int:
    """The largest value of 16 bits per channel, alpha aside."""
    values = np.asarray(image)
    if image.mode in _16_BIT_MODES:
        return int(values.max(where=values != image.info.get("transparency"), initial=0))
    return 256 * int(values[..., :3].max()) + 255


def _on_background(image: Image.Image, grey: bool, white: int, background: int | None) -> tuple[Images, bool]:
    """The pixels, and whether transparent ones became black although no background was given."""
    pixels = _to_array(image, grey, white, 255 if background is None else background)
    if background is None and image.has_transparency_data and not _stands_out(pixels):
        on_black = _to_array(image, grey, white, 0)
        if _stands_out(on_black):
            return on_black, True
    return pixels, False


def _stands_out(pixels: Images) -> bool:
    """Whether pixels, H×W×C, differ by more than the noise that `inputs.foreground` allows in a background."""
    return bool(np.ptp(pixels, axis=(0, 1)).max() >= _MIN_CONTRAST)


def _to_array(image: Image.Image, grey: bool, white: int, background: int) -> Images:
    if image.mode in _16_BIT_MODES:
        return _from_16_bit(image, white, background)
    if image.mode not in _GREY_MODES + _PALETTE_MODES + _COLOUR_MODES:
        raise ValueError(f"pixels in Pillow's mode {image.mode} have no defined range")
    palette = image.mode in _PALETTE_MODES
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    pixels = np.array(image if image.mode in _PLAIN_MODES else image.convert("RGB"))
    if pixels.ndim == 2:
        return pixels[..., None]
    if grey or (palette and bool((pixels == pixels[..., :1]).all())):
        pixels = np.ascontiguousarray(pixels[..., :1])
    return pixels


def _from_16_bit(image: Image.Image, white: int, background: int) -> Images:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > MAX_WHITE_LEVEL:
        raise ValueError(f"its grey values, {values.min()} to {values.max()}, exceed 16 bits")
    pixels = ((255 * values + white // 2) // white).astype(np.uint8)  # rounds to the nearest
    if (transparent := image.info.get("transparency")) is not None:
        pixels[values == transparent] = background
    return pixels[..., None]
