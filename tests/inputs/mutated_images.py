"""Damaged image files of every format: small sound ones, and mutations of them without end."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_NOISE = np.random.default_rng(0).integers(0, 256, (13, 17, 4), dtype=np.uint8)


def sound_images() -> dict[str, bytes]:
    """Small files of every format and most of their variants, by name."""
    colour, grey, clear = Image.fromarray(_NOISE[..., :3]), Image.fromarray(_NOISE[..., 0]), Image.fromarray(_NOISE)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    frames = {"save_all": True, "append_images": [Image.fromarray(np.roll(_NOISE, 3, axis=0))]}
    deep = Image.fromarray(_NOISE[..., 0].astype(np.uint16) * 16)
    palette = colour.quantize(7)
    return {
        "jpeg": _saved(colour, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"a profile"),
        "jpeg progressive": _saved(colour, "JPEG", progressive=True, subsampling=0),
        "jpeg restarts": _saved(grey, "JPEG", restart_marker_blocks=1),
        "jpeg cmyk": _saved(colour.convert("CMYK"), "JPEG"),
        "mpo": _saved(colour, "MPO", save_all=True, append_images=[colour.rotate(90)]),
        "png": _saved(colour, "PNG", exif=exif),
        "png clear": _saved(clear, "PNG"),
        "png palette": _saved(palette, "PNG", transparency=bytes([0, 90, 255])),
        "png bits": _saved(grey.convert("1"), "PNG"),
        "png deep": _saved(deep, "PNG", transparency=16),
        "png deep colour": _deep_png(2, 3),
        "png deep grey and alpha": _deep_png(4, 2),
        "apng": _saved(clear, "PNG", **frames),
        "gif": _saved(palette, "GIF", transparency=1, comment=b"a comment"),
        "gif animated": _saved(colour, "GIF", **frames),
        "webp": _saved(colour, "WEBP", exif=exif),
        "webp lossless": _saved(clear, "WEBP", lossless=True, icc_profile=b"a profile"),
        "webp clear": _saved(clear, "WEBP", quality=40),
        "webp animated": _saved(clear, "WEBP", **frames),
        "bmp": _saved(colour, "BMP"),
        "bmp palette": _saved(palette, "BMP"),
        "bmp bits": _saved(grey.convert("1"), "BMP"),
    }


def mutants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of damaged files, without end; the same seed gives the same ones."""
    generator = random.Random(seed)  # noqa: S311
    sound = list(sound_images().items())
    while True:
        name, data = generator.choice(sound)
        for _ in range(generator.randint(1, 4)):
            data = generator.choice(_MUTATIONS)(data, generator) or data
        yield name, _with_checksums(data) if generator.random() < 0.5 else data


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _deep_png(colour_type: int, channels: int) -> bytes:
    """A PNG of 16 bits per channel, which Pillow does not write in colour."""
    height, width = _NOISE.shape[:2]
    rows = (_NOISE[..., :channels].astype(">u2") * 16).reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = (_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", packed), _png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _flip_bit(data: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << generator.randrange(8),)) + data[at + 1 :]


def _set_bytes(data: bytes, generator: random.Random) -> bytes:
    """Extreme values, as sizes and counts may have."""
    at = generator.randrange(len(data))
    value = generator.choice((b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff", b"\xff\x7f", b"\x80"))
    return data[:at] + value + data[at + len(value) :]


def _truncate(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def _insert(data: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(data))
    return data[:at] + generator.randbytes(generator.randint(1, 40)) + data[at:]


def _swap(data: bytes, generator: random.Random) -> bytes:
    """Two neighbouring stretches change places."""
    first, second, third = sorted(generator.randrange(len(data) + 1) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def _repeat(data: bytes, generator: random.Random) -> bytes:
    """A stretch comes many times over."""
    first, second = sorted(generator.randrange(len(data) + 1) for _ in range(2))
    return data[:second] + data[first:second] * generator.randint(1, 20) + data[second:]


def _delete(data: bytes, generator: random.Random) -> bytes:
    first, second = sorted(generator.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[second:]


_MUTATIONS = (_flip_bit, _flip_bit, _set_bytes, _set_bytes, _truncate, _insert, _swap, _repeat, _delete)


def _with_checksums(data: bytes) -> bytes:
    """A PNG with right checksums, so that its content is looked at; other files as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, at = [data[:8]], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            break
        fixed.append(_png_chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return b"".join((*fixed, data[at:]))
