"""What an image file holds beside its first frame: metadata, more frames, scans. Removed, and counted, before decoding.

libjpeg reads an image once for each of its scans, however many there are, and Pillow inflates every text of a PNG and
parses EXIF, profiles and comments that nobody here asks for. What is not parsed can neither cost time nor be attacked.
Here every part is looked at once, and nothing is inflated beyond a limit.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PARTS = 1_000_000  # chunks, segments or blocks; GIF's have 255 bytes, so that this suffices for the largest file
MAX_SCANS = 100  # of a JPEG; progressive files of cameras and tools have 6 to 20
SCANS_OF_A_LARGE_IMAGE = 10  # more only if the image is smaller than the largest one by the same factor

_MAX_PROFILE_BYTES = 2**17  # an EXIF of 64 KiB, as hexadecimal digits
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Neither a byte 0xff among the pixels nor a marker without content
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_METADATA = frozenset(range(0xE1, 0xEE)) | {0xEF, 0xFE}  # 0xE0 and 0xEE tell the colour space
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


@dataclass
class Container:
    """A file reduced to its first frame.

    Parameters
    ----------
    data : the same format with the same pixels; WebP and BMP as they were
    frames : number of frames in the original
    orientation : of EXIF, otherwise of XMP, 1 to 8 if valid; 1 where there is none
    """

    data: bytes
    frames: int = 1
    orientation: int = 1


def read_container(data: bytes, max_pixels: int) -> Container:
    """Reduce an image file to its first frame.

    Files of other formats are returned as they are.

    Raises
    ------
    ValueError
        If the file is truncated or malformed, or would cost too much to decode.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data, max_pixels)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        raise ValueError("the file is truncated") from None
    return Container(data)


def _png(data: bytes) -> Container:
    kept, exif, xmp, frames = [data[:8]], b"", b"", 1
    for name, start, size in _chunks(data, 8, ">I4s", overhead=12):
        content = slice(start, start + size)
        if name in _PNG_PIXELS:
            kept.append(data[start - 8 : start + size + 4])
        elif name == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start)
        elif name == b"eXIf":
            exif = data[content]
        elif name == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0\0", start):
            xmp = data[content]
        elif name == b"zTXt" and data.startswith(b"Raw profile type exif\0\0", start):  # as ImageMagick writes it
            exif = exif or _raw_profile(data[content].partition(b"\0\0")[2])
        if name == b"IEND":
            return Container(b"".join(kept), frames, _orientation(exif, xmp))
    raise ValueError("the file is truncated")


def _raw_profile(compressed: bytes) -> bytes:
    """Hexadecimal digits after three lines: empty, the profile's name, its length."""
    try:
        text = zlib.decompressobj().decompress(compressed, _MAX_PROFILE_BYTES)
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


def _jpeg(data: bytes, max_pixels: int) -> Container:
    kept, exif, xmp = [data[:2]], b"", b""
    scans = pixels = 0
    for code, content, entropy_coded in _segments(data):
        if code in _JPEG_METADATA:
            if content.startswith(_JPEG_EXIF):
                exif = exif or content
            elif content.startswith(_JPEG_XMP):
                xmp = xmp or content
            continue
        kept += [struct.pack(">BBH", 0xFF, code, len(content) + 2), content, entropy_coded]
        if code in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, 1)
            pixels = height * width
        elif code == _JPEG_SCAN:
            scans += 1
            _check_scans(scans, pixels, max_pixels)
    return Container(b"".join((*kept, b"\xff\xd9")), orientation=_orientation(exif, xmp))


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, content and the entropy-coded data after it (of a scan) of each segment up to the end of the image."""
    at = 2
    for _ in range(MAX_PARTS):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None:
            raise ValueError("the file is truncated")
        code, start = marker[1][0], marker.end()
        if code == _JPEG_END:
            return
        (size,) = struct.unpack_from(">H", data, start)
        at = end = start + size
        if size < 2 or end > len(data):
            raise ValueError("the file is truncated")
        if code == _JPEG_SCAN:
            following = _JPEG_MARKER.search(data, end)
            at = following.start() if following else len(data)
        yield code, data[start + 2 : end], data[end:at]
    raise ValueError(f"it has more than {MAX_PARTS:,} parts")


def _check_scans(scans: int, pixels: int, max_pixels: int) -> None:
    if scans > MAX_SCANS or (scans > SCANS_OF_A_LARGE_IMAGE and scans * pixels > SCANS_OF_A_LARGE_IMAGE * max_pixels):
        raise ValueError(f"a JPEG of {pixels:,} pixels with {scans} scans or more would take too long to decode")


def _gif(data: bytes) -> Container:
    at = 13 + _colours(data[10])
    kept, frames, parts = [data[:at]], 0, 0
    while at < len(data) and data[at] != 0x3B:  # the trailer, which some files lack
        start, parts = at, parts + 1
        if data[at] == 0x2C:  # an image: descriptor, colours, code size, blocks
            at += 11 + _colours(data[at + 9])
            frames += 1
        elif data[at] == 0x21:  # an extension: label, blocks
            at += 2
        while data[start] in (0x2C, 0x21) and parts <= MAX_PARTS and (size := data[at]):
            at, parts = at + 1 + size, parts + 1
        if parts > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        at += 1  # the empty block at the end, or padding
        if (frames, data[start]) == (1, 0x2C) or (frames, data[start], data[start + 1]) == (0, 0x21, 0xF9):
            kept.append(data[start:at])  # the first frame, and what is said about its transparency
    return Container(b"".join((*kept, b";")), frames)


def _colours(flags: int) -> int:
    """Bytes of the colour table that follows."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> Container:
    exif, xmp, frames = b"", b"", 0
    for name, start, size in _chunks(data, 12, "<4sI", overhead=8):
        if name == b"ANMF":
            frames += 1
        elif name == b"EXIF":
            exif = exif or data[start : start + size]
        elif name == b"XMP ":
            xmp = xmp or data[start : start + size]
    return Container(data, max(frames, 1), _orientation(exif, xmp))


def _chunks(data: bytes, at: int, head: str, *, overhead: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each chunk's content; `head` is the format of size and name."""
    for _ in range(MAX_PARTS):
        if at >= len(data):
            return
        first, second = struct.unpack_from(head, data, at)
        name, size = (first, second) if isinstance(first, bytes) else (second, first)
        if at + overhead + size > len(data):
            raise ValueError("the file is truncated")
        yield name, at + 8, size
        at += overhead + size + (size % 2 if overhead == 8 else 0)  # RIFF pads to even sizes
    raise ValueError(f"it has more than {MAX_PARTS:,} parts")


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Tag 0x0112 of EXIF's first directory, otherwise XMP's `tiff:Orientation`, otherwise 1."""
    tiff = exif.removeprefix(_JPEG_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order:
            (start,) = struct.unpack_from(order + "I", tiff, 4)
            (entries,) = struct.unpack_from(order + "H", tiff, start)
            for at in range(start + 2, start + 2 + 12 * entries, 12):
                tag, kind, _ = struct.unpack_from(order + "HHI", tiff, at)
                if tag == 0x0112 and kind in (3, 4):
                    return int(struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, at + 8)[0])
    except struct.error:
        pass  # damaged EXIF does not make the pixels unusable
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1
