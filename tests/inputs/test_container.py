"""Image files whose parts beside the first frame would cost a decoder too much: removed or refused before decoding."""

import io
import struct
import zlib
from contextlib import suppress
from itertools import islice

import numpy as np
import pytest
from mutated_images import mutants
from PIL import Image, ImageOps

from foveola.errors import DataError
from foveola.inputs import container
from foveola.inputs.container import MAX_SCANS, read_container
from foveola.inputs.decode import MAX_PIXELS, decode, decode_first_frame

NOISE = np.random.default_rng(3).integers(0, 256, (12, 10, 3), dtype=np.uint8)
KINDS = ["PNG", "JPEG", "BMP", "WEBP", "GIF"]


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(png, *chunks):
    return png[:33] + b"".join(chunks) + png[33:]


def segment(code, content):
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def exif_of(entries, blob):
    """EXIF whose first directory has entries that each claim all of `blob`."""
    directory = struct.pack("<H", entries) + b"".join(
        struct.pack("<HHII", tag, 7, len(blob), 8) for tag in range(1000, 1000 + entries)
    )
    return b"II*\0" + struct.pack("<I", 8 + len(blob)) + blob + directory


def repeat_last_scan(jpeg, times, between=b""):
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + (between + jpeg[start:-2]) * times + b"\xff\xd9"


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_frame_keeps_its_pixels(kind):
    data = saved(Image.fromarray(NOISE), kind)
    reduced = Image.open(io.BytesIO(read_container(data, MAX_PIXELS).data))
    np.testing.assert_array_equal(np.array(reduced.convert("RGB")), decode(data, "x"))
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(data)).convert("RGB")), decode(data, "x"))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_jpeg_keeps_colour_space_and_scans(mode, options):
    image = Image.fromarray(NOISE).convert(mode)
    data = saved(image, "JPEG", comment=b"c" * 30_000, icc_profile=b"p" * 30_000, **options)
    reduced = read_container(data, MAX_PIXELS).data
    assert len(reduced) < 3000
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(reduced))), np.array(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("side", [16, 3000])
@pytest.mark.parametrize("between", [b"", b"garbage that decoders skip", segment(0xFE, b"a comment"), b"\xff" * 9])
def test_a_jpeg_of_many_scans_is_refused_before_decoding(side, between, monkeypatch):
    jpeg = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(DataError, match=r"^x cannot be decoded: a JPEG of .* pixels with \d+ scans or more"):
        decode(repeat_last_scan(jpeg, MAX_SCANS + 1, between), "x")


def test_the_larger_an_image_the_fewer_scans_it_may_have():
    jpeg = repeat_last_scan(saved(Image.new("L", (100, 100), 128), "JPEG", progressive=True), 30)
    assert decode(jpeg, "x").shape == (100, 100, 1)
    assert decode(jpeg, "x", max_pixels=40_000).shape == (100, 100, 1)
    with pytest.raises(DataError, match="too long to decode"):
        decode(jpeg, "x", max_pixels=20_000)


@pytest.mark.parametrize(
    "chunks",
    [
        [png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))] * 30,
        [png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(1_000_000)))] * 30,
        [png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000)))],
        [png_chunk(b"eXIf", exif_of(2000, bytes(50_000)))],
        [png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n9\n" + b"00" * 5_000_000))],
    ],
)
def test_texts_profiles_and_exif_of_a_png_never_reach_the_decoder(chunks):
    png = saved(Image.fromarray(NOISE), "PNG")
    assert read_container(with_chunks(png, *chunks), MAX_PIXELS).data == png
    np.testing.assert_array_equal(decode(with_chunks(png, *chunks), "x"), NOISE)


def test_exif_of_a_jpeg_never_reaches_the_decoder():
    jpeg = saved(Image.fromarray(NOISE), "JPEG")
    exif = exif_of(2000, bytes(30_000))
    pieces = [segment(0xE1, b"Exif\0\0" + exif[at : at + 60_000]) for at in range(0, len(exif), 60_000)]
    assert read_container(jpeg[:2] + b"".join(pieces) + jpeg[2:], MAX_PIXELS).data == jpeg


def test_comments_of_a_gif_never_reach_the_decoder():
    gif = saved(Image.fromarray(NOISE), "GIF")
    start = 13 + 3 * (2 << (gif[10] & 7))
    comments = b"\x21\xfe" + (b"\xff" + bytes(255)) * 20_000 + b"\0"
    reduced = read_container(gif[:start] + comments + gif[start:], MAX_PIXELS)
    assert len(reduced.data) <= len(gif)
    np.testing.assert_array_equal(decode(gif[:start] + comments + gif[start:], "x"), decode(gif, "x"))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_files_of_too_many_parts_are_refused(kind, monkeypatch):
    monkeypatch.setattr(container, "MAX_PARTS", 3)
    frames = [Image.fromarray(np.roll(NOISE, shift, axis=0)) for shift in range(4)]
    several = {} if kind == "JPEG" else {"save_all": True, "append_images": frames[1:]}
    with pytest.raises(DataError, match="more than 3 parts"):
        decode(saved(frames[0], kind, **several), "x")


@pytest.mark.parametrize("part", [b"\0", b"\x21\xfe\0", b"\x21\xfe\1a\0"])
def test_padding_and_empty_extensions_of_a_gif_are_parts_too(part, monkeypatch):
    gif = saved(Image.fromarray(NOISE), "GIF")
    monkeypatch.setattr(container, "MAX_PARTS", 50)
    assert decode(gif[:-1] + part * 10 + gif[-1:], "x").shape == (12, 10, 3)
    with pytest.raises(DataError, match="more than 50 parts"):
        decode(gif[:-1] + part * 100 + gif[-1:], "x")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"frames": True}),
        ("GIF", {}),
        ("GIF", {"frames": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0II*\0"}),
        ("WEBP", {"frames": True}),
        ("BMP", {}),
        ("JPEG", {}),
        ("JPEG", {"restart_marker_blocks": 1}),
        ("JPEG", {"progressive": True, "restart_marker_blocks": 1}),
    ],
)
@pytest.mark.parametrize("smooth", [False, True])
def test_a_file_truncated_anywhere_is_decoded_whole_or_refused(kind, options, smooth):
    pixels = np.full_like(NOISE, 30) if smooth else NOISE
    pixels[6:] = 200 if smooth else pixels[6:]
    more = {"save_all": True, "append_images": [Image.fromarray(255 - pixels)]} if options.pop("frames", False) else {}
    data = saved(Image.fromarray(pixels), kind, **options, **more)
    whole = decode(data, "x")
    for length in range(len(data)):
        try:
            pixels = decode(data[:length], "x")
        except DataError:
            continue
        np.testing.assert_array_equal(pixels, whole)


def test_a_gif_whose_second_frame_is_damaged_is_refused():
    damaged = saved(Image.new("L", (9, 9)), "GIF")[:-1] + b","
    with pytest.raises(DataError, match="the image cannot be decoded: the file is truncated"):
        decode(damaged, "the image")


def test_orientation_in_xmp_and_in_imagemagicks_text_is_applied():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    png, jpeg = saved(Image.fromarray(NOISE), "PNG"), saved(Image.fromarray(NOISE), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    digits = exif.tobytes().hex().encode()
    for data in (
        with_chunks(png, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        with_chunks(png, png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n40\n" + digits))),
        jpeg[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp) + jpeg[2:],
        saved(Image.fromarray(NOISE), "WEBP", lossless=True, xmp=xmp),
        saved(Image.fromarray(NOISE), "WEBP", lossless=True, exif=exif),
    ):
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert expected.size == (12, 10)
        np.testing.assert_array_equal(decode(data, "x"), np.asarray(expected))


# Sound pixels, unsound metadata


def harmless_files():
    """Files whose pixels are complete, by what is wrong with them; Pillow and browsers show most of them."""
    image, turned = Image.fromarray(NOISE), Image.Exif()
    turned[0x0112] = 6
    png, jpeg, gif = saved(image, "PNG"), saved(image, "JPEG"), saved(image, "GIF")
    webp = saved(image, "WEBP", lossless=True)
    cut_exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 5) + b"\x12\x01\x03"
    wrong_checksum = png_chunk(b"tEXt", b"k\0v")[:-4] + b"abcd"
    return {
        "PNG, no end": (png, png[:-12]),
        "PNG, last checksum cut off": (png, png[:-14]),
        "PNG, text cut off": (png, png[:-12] + png_chunk(b"tEXt", b"k\0" + bytes(50))[:20]),
        "PNG, trailing bytes": (png, png + b"trailing"),
        "PNG, junk as EXIF": (png, with_chunks(png, png_chunk(b"eXIf", b"garbage"))),
        "PNG, wrong checksum of a text": (png, with_chunks(png, wrong_checksum)),
        "PNG, wrong checksum of transparency": (png, with_chunks(png, png_chunk(b"tRNS", bytes(6))[:-4] + b"abcd")),
        "PNG, transparency too short": (png, with_chunks(png, png_chunk(b"tRNS", b"\0"))),
        "PNG, profile is junk": (png, with_chunks(png, png_chunk(b"iCCP", b"junk"))),
        "PNG, gamma is empty": (png, with_chunks(png, png_chunk(b"gAMA", b""))),
        "PNG, animation is empty": (png, with_chunks(png, png_chunk(b"acTL", b""))),
        "PNG, header twice": (png, with_chunks(png, png[8:33])),
        "PNG, text among the pixels": (png, split_pixels(png, png_chunk(b"tEXt", b"k\0v"))),
        "JPEG, no end": (jpeg, jpeg[:-2]),
        "JPEG, half an end": (jpeg, jpeg[:-1]),
        "JPEG, zeros for an end": (jpeg, jpeg[:-2] + bytes(500)),
        "JPEG, trailing bytes": (jpeg, jpeg + b"trailing"),
        "JPEG, EXIF cut off": (jpeg, jpeg[:2] + segment(0xE1, b"Exif\0\0" + cut_exif) + jpeg[2:]),
        "JPEG, EXIF longer than it says": (jpeg, jpeg[:2] + b"\xff\xe1\0\x08Exif\0\0" + bytes(30) + jpeg[2:]),
        "JPEG, comment of length 0": (jpeg, jpeg[:2] + b"\xff\xfe\0\0" + jpeg[2:]),
        "JPEG, profile without its parts": (jpeg, jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\1\5junk") + jpeg[2:]),
        "JPEG, other pictures are junk": (jpeg, jpeg[:2] + segment(0xE2, b"MPF\0junk") + jpeg[2:]),
        "JPEG, Photoshop's notes are junk": (jpeg, jpeg[:2] + segment(0xED, b"Photoshop 3.0\x008BIM\4\4") + jpeg[2:]),
        "JPEG, JFIF too short": (jpeg, jpeg[:2] + segment(0xE0, b"JFIF") + jpeg[20:]),
        "JPEG, Adobe too short": (jpeg, jpeg[:2] + segment(0xEE, b"Adobe") + jpeg[2:]),
        "GIF, no trailer": (gif, gif[:-1]),
        "GIF, no empty block": (gif, gif[:-2]),
        "GIF, trailing bytes": (gif, gif + b"trailing"),
        "GIF, comment cut off": (gif, gif[:-1] + b"\x21\xfe\x20abc"),
        "GIF, unknown extension": (gif, gif[:-1] + b"\x21\x99\x03abc\0;"),
        "WebP, junk as EXIF": (webp, saved(image, "WEBP", lossless=True, exif=cut_exif)),
        "WebP, EXIF cut off": (webp, saved(image, "WEBP", lossless=True, exif=b"Exif\0\0II*\0" + bytes(40))[:-10]),
        "WebP, wrong size in front": (webp, webp[:4] + struct.pack("<I", 10**8) + webp[8:]),
        "WebP, unknown part": (webp, webp + b"JUNK\4\0\0\0abcd"),
        "WebP, trailing bytes": (webp, webp + b"abc"),
    }


def split_pixels(png, between):
    """The PNG with its pixels in two chunks, and something between them."""
    start = png.index(b"IDAT") + 4
    size = struct.unpack(">I", png[start - 8 : start - 4])[0]
    halves = png[start : start + 9], png[start + 9 : start + size]
    return png[: start - 8] + png_chunk(b"IDAT", halves[0]) + between + png_chunk(b"IDAT", halves[1]) + png[-12:]


@pytest.mark.parametrize("fault", harmless_files())
def test_sound_pixels_are_taken_whatever_else_is_wrong(fault):
    sound, unsound = harmless_files()[fault]
    np.testing.assert_array_equal(decode(unsound, "x"), decode(sound, "x"))


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_pixels_is_refused(name):
    png = bytearray(saved(Image.fromarray(NOISE), "PNG"))
    start = png.index(name)
    png[start + 4 + struct.unpack(">I", png[start - 4 : start])[0]] ^= 1
    with pytest.raises(DataError, match=f"the checksum of its part {name.decode()} is wrong"):
        decode(bytes(png), "x")


def test_a_first_frame_without_pixels_is_refused():
    gif = saved(Image.fromarray(NOISE), "GIF")
    start = 13 + 3 * (2 << (gif[10] & 7))
    with pytest.raises(DataError, match="its first frame has no pixels"):
        decode(gif[:start] + b"\x2c" + bytes(9) + b"\x02\0" + gif[start:], "x")


@pytest.mark.parametrize("lossless", [False, True])
def test_the_pixels_of_a_webp_are_counted_before_it_is_opened(lossless, monkeypatch):
    for options in ({}, {"exif": b"Exif\0\0"}, {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}):
        webp = saved(Image.fromarray(NOISE), "WEBP", lossless=lossless, **options)
        assert read_container(webp, MAX_PIXELS).pixels == 120
        monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(DataError, match="because of its size"):
            decode(webp, "x", max_pixels=119)


def test_mutated_files_are_decoded_or_refused():
    for name, data in islice(mutants(0), 2000):
        with suppress(DataError):
            assert decode_first_frame(data, name, white_level=4095, max_pixels=1_000_000).pixels.size
