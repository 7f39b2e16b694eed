"""Image files whose parts beside the first frame would cost a decoder too much: removed or refused before decoding."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from foveola.errors import DataError
from foveola.inputs import container
from foveola.inputs.container import MAX_SCANS, read_container
from foveola.inputs.decode import MAX_PIXELS, decode

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
    data = saved(image, "JPEG", comment=b"c" * 60_000, icc_profile=b"p" * 90_000, **options)
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


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_a_file_truncated_anywhere_is_decoded_whole_or_refused(kind):
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    data = saved(frames[0], kind, **({} if kind == "JPEG" else {"save_all": True, "append_images": frames[1:]}))
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
