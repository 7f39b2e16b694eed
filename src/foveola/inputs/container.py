"""What an image file holds beside its first frame: metadata, more frames, scans. Removed, and counted, before decoding.

libjpeg reads an image once for each of its scans, however many there are, and Pillow inflates every text of a PNG and
parses EXIF, profiles and comments that nobody here asks for. What is not parsed can neither cost time nor be attacked,
nor make sound pixels unusable. Here every part is looked at once, and nothing is inflated beyond a limit.
"""

import random
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PARTS = 1_000_000  # chunks, segments or blocks; GIF's have 255 bytes, so that this suffices for the largest file
MAX_SCANS = 100  # of a JPEG; progressive files of cameras and tools have 6 to 20
SCANS_OF_A_LARGE_IMAGE = 10  # more only if the image is smaller than the largest one by the same factor

_TRUNCATED = "the file is truncated"
_MAX_PROFILE_BYTES = 2**17  # an EXIF of 64 KiB, as hexadecimal digits
_PNG_ONCE = (b"IHDR", b"PLTE", b"tRNS")
_PNG_METADATA = {  # and how it starts; EXIF in a text is ImageMagick's
    b"acTL": b"",
    b"eXIf": b"",
    b"iTXt": b"XML:com.adobe.xmp\0\0",
    b"zTXt": b"Raw profile type exif\0\0",
}
_PNG_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
# Neither a byte 0xff among the pixels nor a marker without content
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_JPEG_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))
_JPEG_METADATA = frozenset(range(0xE1, 0xEE)) | {0xEF, 0xFE}
_JPEG_COLOUR_SPACE = {0xE0: 14, 0xEE: 12}  # bytes that JFIF and Adobe segments have at least
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_CONTINUATIONS = 3
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


@dataclass
class Container:
    """A file reduced to its first frame.

    Parameters
    ----------
    format : PNG, JPEG, GIF, WEBP or BMP, as Pillow calls them
    data : the same format with the same pixels; BMP as it was
    pixels : number of pixels that the file claims to have
    frames : number of frames in the original
    orientation : of EXIF, otherwise of XMP, 1 to 8 if valid; 1 where there is none
    continuations : of a JPEG that breaks off, the same with various bytes at its end. Its pixels are complete if they
        do not depend on these bytes
    """

    format: str
    data: bytes
    pixels: int
    frames: int = 1
    orientation: int = 1
    continuations: tuple[bytes, ...] = ()


def read_container(data: bytes, max_pixels: int) -> Container | None:
    """Reduce an image file to its first frame.

    Metadata that is damaged, misplaced, doubled or missing is ignored.

    Parameters
    ----------
    data : content of the file
    max_pixels : the larger the image is in comparison, the fewer scans a JPEG may have

    Returns
    -------
    None for other formats

    Raises
    ------
    ValueError
        If the pixels are truncated or malformed, or would cost too much to decode.
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
        if data.startswith(b"BM"):
            core_header = data[14:18] == b"\x0c\0\0\0"  # of OS/2
            width, height = struct.unpack_from("<HH" if core_header else "<ii", data, 18)
            return Container("BMP", data, abs(width * height))
    except (struct.error, IndexError):
        raise ValueError(_TRUNCATED) from None
    return None


def _png(data: bytes) -> Container:
    kept: dict[bytes, bytes] = {}
    told: dict[bytes, bytes] = {}
    pixels = []
    for name, content, checksum in _png_chunks(data):
        if name == b"IEND":
            break
        if name == b"IDAT" or name in _PNG_ONCE:
            sound = checksum in (None, zlib.crc32(content, zlib.crc32(name)))
            if name == b"tRNS" and not (sound and _is_transparency(content, kept)):
                continue  # as decoders do
            if not sound:
                raise ValueError(f"the checksum of its part {name.decode()} is wrong")
            if name == b"IDAT":
                pixels.append(_png_chunk(name, content))
            else:
                kept.setdefault(name, _png_chunk(name, content))
        elif name in _PNG_METADATA and content.startswith(_PNG_METADATA[name]):
            told[name] = content
    width, height = struct.unpack_from(">II", kept.get(b"IHDR", b""), 8)
    if not pixels:
        raise ValueError(_TRUNCATED)
    chunks = (kept[name] for name in _PNG_ONCE if name in kept)
    frames = int.from_bytes(told.get(b"acTL", b"\0\0\0\1")[:4], "big")
    exif = told.get(b"eXIf") or _raw_profile(told.get(b"zTXt", b"").partition(b"\0\0")[2])
    orientation = _orientation(exif, told.get(b"iTXt", b""))
    return Container("PNG", b"".join((data[:8], *chunks, *pixels, _PNG_END)), width * height, frames, orientation)


def _is_transparency(content: bytes, kept: dict[bytes, bytes]) -> bool:
    """Whether the content of tRNS suits the colour type in IHDR: grey, colour or palette."""
    colour_type = kept.get(b"IHDR", bytes(18))[17]
    return {0: len(content) == 2, 2: len(content) == 6, 3: 0 < len(content) <= 256}.get(colour_type, False)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int | None]]:
    """Name, content and checksum of each chunk; of one that is cut off, what is left, and None."""
    at = 8
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        size, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + size
        checksum = struct.unpack_from(">I", data, end)[0] if end + 4 <= len(data) else None
        yield name, data[at + 8 : end], checksum
        at = end + 4
    raise ValueError(f"it has more than {MAX_PARTS:,} parts")


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)))


def _raw_profile(compressed: bytes) -> bytes:
    """Hexadecimal digits after three lines: empty, the profile's name, its length."""
    try:
        text = zlib.decompressobj().decompress(compressed, _MAX_PROFILE_BYTES)
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


def _jpeg(data: bytes, max_pixels: int) -> Container:
    kept, exif, xmp = [data[:2]], b"", b""
    scans: list[bytes] = []
    frame, header = None, b""
    pixels, ended = 0, False
    for code, content, entropy_coded in _segments(data):
        ended = code == _JPEG_END
        if code in _JPEG_METADATA or len(content) < _JPEG_COLOUR_SPACE.get(code, 0):
            if content.startswith(_JPEG_EXIF):
                exif = exif or content
            elif content.startswith(_JPEG_XMP):
                xmp = xmp or content
            continue
        if not ended:
            kept += [struct.pack(">BBH", 0xFF, code, len(content) + 2), content, entropy_coded]
        if code in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, 1)
            frame, header, pixels = code, content, max(pixels, height * width)
        elif code == _JPEG_SCAN:
            scans.append(content)
            _check_scans(len(scans), pixels, max_pixels)
    if not ended and not _has_all_scans(frame, header, scans):
        raise ValueError(_TRUNCATED)
    continuations = () if ended else tuple(_continued(b"".join(kept)))
    content = b"".join((*kept, b"\xff\xd9"))
    return Container("JPEG", content, pixels, 1, _orientation(exif, xmp), continuations)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, content and the entropy-coded data after it (of a scan) of each segment up to the end of the image."""
    at = 2
    for _ in range(MAX_PARTS):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None:
            return
        code, start = marker[1][0], marker.end()
        if code == _JPEG_END:
            yield code, b"", b""
            return
        if start + 2 > len(data):
            return
        size = max(struct.unpack_from(">H", data, start)[0], 2)
        at = end = start + size
        if end > len(data):
            return
        if code == _JPEG_SCAN:
            following = _JPEG_MARKER.search(data, end)
            at = following.start() if following else len(data)
        yield code, data[start + 2 : end], data[end:at]
    raise ValueError(f"it has more than {MAX_PARTS:,} parts")


def _check_scans(scans: int, pixels: int, max_pixels: int) -> None:
    if scans > MAX_SCANS or (scans > SCANS_OF_A_LARGE_IMAGE and scans * pixels > SCANS_OF_A_LARGE_IMAGE * max_pixels):
        raise ValueError(f"a JPEG of {pixels:,} pixels with {scans} scans or more would take too long to decode")


def _has_all_scans(frame: int | None, content: bytes, scans: list[bytes]) -> bool:
    """Whether the scans give every component of a sequential frame; a progressive one may always lack some bits."""
    if frame not in _JPEG_SEQUENTIAL:
        return False
    components = set(content[6 : 6 + 3 * content[5] : 3])
    return components <= {component for scan in scans for component in scan[1 : 1 + 2 * scan[0] : 2]}


def _continued(jpeg: bytes) -> Iterator[bytes]:
    """The file, continued at its end with random bytes, also after the next restart marker, which it may wait for."""
    generator = random.Random(0)  # noqa: S311
    restarts = _JPEG_RESTART.findall(jpeg, jpeg.rindex(b"\xff\xda"))
    restart = bytes((0xFF, 0xD0 + (restarts[-1][1] + 1) % 8 if restarts else 0xD0))
    for _ in range(_JPEG_CONTINUATIONS):
        noise = [bytes(generator.randrange(255) for _ in range(64)) for _ in range(2)]
        yield b"".join((jpeg.rstrip(b"\xff"), noise[0], restart, noise[1], b"\xff\xd9"))


def _gif(data: bytes) -> Container:
    at = 13 + _colours(data[10])
    width, height = struct.unpack_from("<HH", data, 6)
    kept, frames, parts = [data[:at]], 0, 0
    while at < len(data) and data[at] != 0x3B:  # the trailer, which some files lack
        start, parts = at, parts + 1
        if data[at] == 0x2C:  # an image: descriptor, colours, code size, blocks
            left, top, columns, rows = struct.unpack_from("<HHHH", data, at + 1)
            at += 11 + _colours(data[at + 9])
            frames += 1
            if frames == 1:
                width, height = max(width, left + columns), max(height, top + rows)
                if not columns * rows:
                    raise ValueError("its first frame has no pixels")
        elif data[at] == 0x21:  # an extension: label, blocks
            at += 2
        while data[start] in (0x2C, 0x21) and parts <= MAX_PARTS and at < len(data) and (size := data[at]):
            at, parts = at + 1 + size, parts + 1
        if parts > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        if data[start] == 0x2C and at > len(data) - (frames > 1):
            raise ValueError(_TRUNCATED)  # the first frame may lack the empty block at its end
        at += 1  # the empty block, or padding
        if (frames, data[start]) == (1, 0x2C) or (frames, data[start : start + 2]) == (0, b"\x21\xf9"):
            # The first frame, and what is said about its transparency
            kept.append(data[start:at].ljust(at - start, b"\0"))
    return Container("GIF", b"".join((*kept, b";")), width * height, frames)


def _colours(flags: int) -> int:
    """Bytes of the colour table that follows."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> Container:
    kept: dict[bytes, bytes] = {}
    exif, xmp, frames = b"", b"", 0
    for name, content in _riff_chunks(data):
        if name == b"EXIF":
            exif = exif or content
        elif name == b"XMP ":
            xmp = xmp or content
        elif name in (b"VP8X", b"ANIM", *_WEBP_PIXELS):
            frames += name == b"ANMF"
            kept.setdefault(name, content)
    if b"VP8X" in kept:
        flags = kept[b"VP8X"][0] & (_WEBP_ALPHA | _WEBP_ANIMATION)
        kept[b"VP8X"] = bytes((flags,)) + kept[b"VP8X"][1:]
    content = b"WEBP" + b"".join(
        struct.pack("<4sI", name, len(content)) + content + bytes(len(content) % 2) for name, content in kept.items()
    )
    riff = struct.pack("<4sI", b"RIFF", len(content)) + content
    return Container("WEBP", riff, _webp_pixels(kept), max(frames, 1), _orientation(exif, xmp))


def _webp_pixels(chunks: dict[bytes, bytes]) -> int:
    """The larger of canvas and image; RFC 9649, 2.7 and 3.4, and RFC 6386, 9.1."""
    pixels = [0]
    if canvas := chunks.get(b"VP8X"):
        width, height = (int.from_bytes(canvas[at : at + 3], "little") + 1 for at in (4, 7))
        pixels.append(width * height)
    if lossy := chunks.get(b"VP8 "):
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", lossy, 6))
        pixels.append(width * height)
    if lossless := chunks.get(b"VP8L"):
        (bits,) = struct.unpack_from("<I", lossless, 1)
        pixels.append(((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1))
    return max(pixels)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk; metadata that is cut off is left out."""
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > len(data):
            if name in _WEBP_PIXELS:
                raise ValueError(_TRUNCATED)
            return
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
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
