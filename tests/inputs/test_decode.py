"""Decoder: pixels compared with Pillow and NumPy, damaged and oversized files refused."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from foveola.errors import DataError
from foveola.inputs.decode import MAX_PIXELS, decode, decode_first_frame, read_first_frame
from foveola.inputs.resize import resize


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour_type, rows, *extra):
    """Bytes of a PNG with the given raw rows; Pillow cannot write all of these variants."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", packed), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.fixture
def grey():
    return np.random.default_rng(1).integers(0, 256, (9, 7), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_rgb_is_exact_in_every_lossless_format(rgb, kind):
    data = saved(Image.fromarray(rgb), kind, **({"lossless": True} if kind == "WEBP" else {}))
    decoded = decode(data, "x")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, rgb)


def test_jpeg_is_decoded_as_by_pillow(rgb):
    data = saved(Image.fromarray(rgb), "JPEG")
    np.testing.assert_array_equal(decode(data, "x"), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_grey_has_one_channel(grey, kind):
    np.testing.assert_array_equal(decode(saved(Image.fromarray(grey), kind), "x"), grey[..., None])


def test_grey_jpeg_has_one_channel(grey):
    assert decode(saved(Image.fromarray(grey), "JPEG"), "x").shape == (9, 7, 1)


def test_black_and_white_becomes_0_and_255(grey):
    bits = grey > 127
    np.testing.assert_array_equal(decode(saved(Image.fromarray(bits), "PNG"), "x"), bits[..., None] * np.uint8(255))


def test_sixteen_bit_grey_is_scaled_and_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(saved(Image.fromarray(values), "PNG"), "x")
    np.testing.assert_array_equal(decoded[..., 0], np.rint(values / 257))


def test_a_transparent_value_of_sixteen_bit_grey_becomes_background():
    values = np.array([[0, 1000], [40000, 65535]], dtype=">u2")
    data = png(2, 2, 16, 0, [row.tobytes() for row in values], png_chunk(b"tRNS", struct.pack(">H", 1000)))
    np.testing.assert_array_equal(decode(data, "x", background=77)[..., 0], [[0, 77], [156, 255]])


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_sixteen_bit_grey_of_fewer_bits_is_scaled_by_its_white_level(bits):
    values = np.arange(2**bits, dtype=np.uint16).reshape(16, -1)
    frame = decode_first_frame(saved(Image.fromarray(values), "PNG"), "x", white_level=2**bits - 1)
    assert frame.peak == 2**bits - 1
    np.testing.assert_array_equal(frame.pixels[..., 0], np.rint(values * 255.0 / (2**bits - 1)))


def test_values_above_the_white_level_are_scaled_as_16_bits():
    data = saved(Image.fromarray(np.array([[0, 4096]], np.uint16)), "PNG")
    np.testing.assert_array_equal(decode_first_frame(data, "x", white_level=4095).pixels[0, :, 0], [0, 16])
    np.testing.assert_array_equal(decode_first_frame(data, "x").pixels[0, :, 0], [0, 16])


def test_a_transparent_value_is_no_peak():
    values = np.array([[0, 1000], [4000, 65535]], dtype=">u2")
    data = png(2, 2, 16, 0, [row.tobytes() for row in values], png_chunk(b"tRNS", struct.pack(">H", 65535)))
    frame = decode_first_frame(data, "x", white_level=4095)
    assert frame.peak == 4000
    np.testing.assert_array_equal(frame.pixels[..., 0], [[0, 62], [249, 255]])


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bit_colour_of_few_bits_is_refused_with_the_remedy(colour_type, channels):
    values = np.random.default_rng(2).integers(0, 4096, (4, 5 * channels)).astype(">u2")
    data = png(5, 4, 16, colour_type, [row.tobytes() for row in values])
    assert decode_first_frame(data, "x").peak == 4095
    with pytest.raises(DataError, match=r"^x has 16 bits .* only 12 are used.*16 levels.*-evaluate multiply 16 "):
        decode_first_frame(data, "x", white_level=4095)


def test_files_of_8_bits_have_no_peak(rgb):
    frame = decode_first_frame(saved(Image.fromarray(rgb), "PNG"), "x", white_level=4095)
    assert frame.peak is None
    np.testing.assert_array_equal(frame.pixels, rgb)


def strokes(ink, opacity=255):
    """A stroke of a grey level on a transparent ground, LA."""
    image = Image.new("LA", (9, 7), (ink, 0))
    image.paste((ink, opacity), (2, 1, 4, 6))
    return image


@pytest.mark.parametrize(
    ("mode", "kind"),
    [*product(("LA", "RGBA", "P"), ("PNG", "WEBP")), ("RGBA", "GIF"), ("P", "GIF")],
)
def test_white_strokes_on_a_transparent_ground_are_put_on_black(mode, kind):
    image = strokes(255).convert("RGBA")
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    options = {"lossless": True} if kind == "WEBP" else {"transparency": 0} if mode == "P" else {}
    frame = decode_first_frame(saved(image, kind, **options), "x")
    assert frame.on_black
    np.testing.assert_array_equal(frame.pixels[..., 0] == 255, np.asarray(strokes(255))[..., 1] == 255)
    assert set(np.unique(frame.pixels)) == {0, 255}


@pytest.mark.parametrize("ink", [0, 120, 235])
def test_other_strokes_on_a_transparent_ground_stay_on_white(ink):
    frame = decode_first_frame(saved(strokes(ink), "PNG"), "x")
    assert not frame.on_black
    assert set(np.unique(frame.pixels)) == {ink, 255}


def test_faint_white_strokes_are_put_on_black():
    frame = decode_first_frame(saved(strokes(250, 128), "PNG"), "x")
    assert frame.on_black
    assert set(np.unique(frame.pixels)) == {0, 125}


@pytest.mark.parametrize("image", [Image.new("LA", (5, 5), (255, 0)), Image.new("RGBA", (5, 5), (255, 255, 255, 90))])
def test_images_on_which_nothing_stands_out_on_either_ground_stay_white(image):
    frame = decode_first_frame(saved(image, "PNG"), "x")
    assert not frame.on_black
    assert (frame.pixels == 255).all()


def test_a_given_background_is_never_replaced():
    assert (decode(saved(strokes(255), "PNG"), "x", background=255) == 255).all()


def test_white_16_bit_strokes_on_a_transparent_value_are_put_on_black():
    values = np.array([[7, 65535, 7], [7, 65535, 7]], dtype=">u2")
    data = png(3, 2, 16, 0, [row.tobytes() for row in values], png_chunk(b"tRNS", struct.pack(">H", 7)))
    np.testing.assert_array_equal(decode(data, "x")[..., 0], [[0, 255, 0]] * 2)


def test_sixteen_bit_colour_keeps_the_high_byte():
    values = np.random.default_rng(2).integers(0, 65536, (4, 5, 3)).astype(">u2")
    decoded = decode(png(5, 4, 16, 2, [row.tobytes() for row in values]), "x")
    np.testing.assert_array_equal(decoded, values >> 8)


def test_sixteen_bit_grey_with_alpha_has_one_channel():
    opaque = np.array([[[0, 65535], [65535, 65535]], [[0x8000, 65535], [0, 0]]], dtype=">u2")
    decoded = decode(png(2, 2, 16, 4, [row.tobytes() for row in opaque]), "x")
    np.testing.assert_array_equal(decoded, [[[0], [255]], [[128], [255]]])


@pytest.mark.parametrize("background", [0, 128, 255])
def test_alpha_is_blended_with_the_background(rgb, background):
    alpha = np.random.default_rng(3).integers(0, 256, (9, 7, 1), dtype=np.uint8)
    decoded = decode(saved(Image.fromarray(np.concatenate([rgb, alpha], 2)), "PNG"), "x", background=background)
    expected = rgb * (alpha / 255) + background * (1 - alpha / 255)
    assert decoded.shape == (9, 7, 3)
    assert np.abs(decoded - expected).max() <= 1


def test_grey_with_alpha_has_one_channel():
    pixels = np.array([[[10, 255], [200, 0]]], np.uint8)
    decoded = decode(saved(Image.fromarray(pixels, "LA"), "PNG"), "x", background=99)
    np.testing.assert_array_equal(decoded, [[[10], [99]]])


@pytest.mark.parametrize("transparent", [40, (40, 0, 0)])
def test_a_transparent_value_becomes_background(transparent):
    mode, opaque = ("L", 7) if isinstance(transparent, int) else ("RGB", (7, 8, 9))
    image = Image.new(mode, (2, 1), opaque)
    image.putpixel((1, 0), transparent)
    decoded = decode(saved(image, "PNG", transparency=transparent), "x", background=200)
    np.testing.assert_array_equal(decoded[0, 0], np.ravel(opaque))
    assert (decoded[0, 1] == 200).all()


def palette_image(colours):
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    for index in range(len(colours)):
        image.putpixel((index, 0), index)
    return image


def test_palette_colours_are_exact():
    colours = [(255, 0, 0), (0, 255, 0), (10, 20, 30), (7, 7, 7)]
    for kind in ("PNG", "GIF", "BMP"):
        np.testing.assert_array_equal(decode(saved(palette_image(colours), kind), kind), [colours])


def test_palette_of_greys_has_one_channel():
    image = palette_image([(5, 5, 5), (250, 250, 250), (90, 90, 90)])
    np.testing.assert_array_equal(decode(saved(image, "PNG"), "x"), [[[5], [250], [90]]])


def test_palette_of_which_only_greys_are_used_has_one_channel():
    image = palette_image([(5, 5, 5), (250, 250, 250), (255, 0, 0)]).crop((0, 0, 2, 1))
    np.testing.assert_array_equal(decode(saved(image, "PNG"), "x"), [[[5], [250]]])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_transparent_palette_entries_become_background(transparency):
    image = palette_image([(200, 10, 10), (9, 9, 9), (1, 2, 3)])
    decoded = decode(saved(image, "PNG", transparency=transparency), "x", background=50)
    np.testing.assert_array_equal(decoded, [[(200, 10, 10), (50, 50, 50), (1, 2, 3)]])


def test_cmyk_is_converted_to_rgb():
    red = np.full((16, 16, 4), [0, 255, 255, 0], np.uint8)
    decoded = decode(saved(Image.fromarray(red, "CMYK"), "JPEG", quality=100), "x")
    assert decoded.shape == (16, 16, 3)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 6


def test_modes_without_a_defined_range_are_refused(grey, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: Image.new("F", (2, 2)))
    monkeypatch.setattr(Image.Image, "tile", (), raising=False)
    with pytest.raises(DataError, match=r"floats.*mode F"):
        decode(saved(Image.fromarray(grey), "PNG"), "floats")


def test_an_animation_is_decoded_to_its_first_frame(rgb):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(data, kind), np.full((3, 4, 3), [255, 0, 0]))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_a_file_with_more_than_one_frame_is_animated(kind, tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for more in ([], frames[1:]):
        data = saved(frames[0], kind, save_all=True, append_images=more)
        (tmp_path / "image").write_bytes(data)
        assert decode_first_frame(data, "x").animated == read_first_frame(tmp_path / "image").animated == bool(more)


def test_a_phones_multi_picture_jpeg_is_decoded_to_its_first_image(rgb):
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    np.testing.assert_array_equal(decode(data, "x"), decode(saved(first, "JPEG"), "y"))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P", "RGBA"])
def test_exif_orientation_is_applied(mode, orientation):
    values = np.arange(6).reshape(2, 3)
    image = {
        "L": lambda: Image.fromarray((values * 40).astype(np.uint8)),
        "RGB": lambda: Image.fromarray(np.stack([values * 40] * 2 + [values], 2).astype(np.uint8)),
        "I;16": lambda: Image.fromarray((values * 10000).astype(np.uint16)),
        "P": lambda: Image.fromarray((values * 40).astype(np.uint8)).convert("RGB").quantize(8),
        "RGBA": lambda: Image.fromarray(np.stack([values * 40] * 3 + [values * 50], 2).astype(np.uint8)),
    }[mode]()
    assert image.mode == mode
    stored = decode(saved(image, "PNG"), "stored")
    by_hand = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored, 1),
    }[orientation]
    np.testing.assert_array_equal(decode(saved(image, "PNG", exif=exif(orientation)), "x"), by_hand)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpeg_matches_imageops(rgb, orientation):
    data = saved(Image.fromarray(rgb), "JPEG", exif=exif(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode(data, "x"), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientation_is_ignored(rgb, orientation):
    data = saved(Image.fromarray(rgb), "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(decode(data, "x"), rgb)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF"])
@pytest.mark.parametrize("fraction", [0.03, 0.3, 0.6, 0.9])
def test_truncated_files_are_refused_by_name(kind, fraction):
    noise = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match=r"^cut\.img "):
        decode(data[: int(len(data) * fraction)], "cut.img")


def test_png_with_a_flipped_bit_is_refused(rgb):
    data = bytearray(saved(Image.fromarray(rgb), "PNG"))
    data[data.index(b"IDAT") + 30] ^= 1
    with pytest.raises(DataError, match="flipped"):
        decode(bytes(data), "flipped")


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "TGA", "PCX", "JPEG2000"])
def test_other_formats_are_refused(rgb, kind):
    with pytest.raises(DataError, match=r"other\.xyz is not an image of an accepted format.*PNG, JPEG"):
        decode(saved(Image.fromarray(rgb), kind), "other.xyz")


@pytest.mark.parametrize("data", [b"", b"8BPS\0\1" + bytes(40), b"%!PS-Adobe-3.0", b"<svg/>", b"PK\3\4" + bytes(30)])
def test_other_content_is_refused(data):
    with pytest.raises(DataError, match=r"^x is not an image.*starts with"):
        decode(data, "x")


@pytest.mark.parametrize("side", [8001, 10_000, 100_000])
def test_oversized_images_are_refused_before_their_pixels_are_decoded(side, monkeypatch):
    def load(self):
        raise AssertionError("pixels were loaded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(DataError, match=f"bomb is refused because of its size.*{MAX_PIXELS:,}"):
        decode(png(side, side, 8, 2, [b""]), "bomb")


def test_a_decompression_bomb_takes_no_memory(tmp_path, peak_memory):
    side = 8001
    row = bytes(3 * side)
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, [row] * side))
    (tmp_path / "small.png").write_bytes(png(1, 1, 8, 2, [bytes(3)]))
    assert (tmp_path / "bomb.png").stat().st_size < 2**20
    attempt = (
        "import sys, foveola.inputs.decode as d\n"
        "try: d.read_first_frame(sys.argv[1])\n"
        "except d.DataError as error: assert 'size' in str(error)"
    )
    bomb, small = (peak_memory(attempt, tmp_path / name) for name in ("bomb.png", "small.png"))
    assert bomb < small + 16 * 2**20


def test_the_maximum_number_of_pixels_can_be_lowered(grey):
    assert decode(saved(Image.fromarray(grey), "PNG"), "x", max_pixels=grey.size).shape == (9, 7, 1)
    with pytest.raises(DataError, match="1 to 62 pixels"):
        decode(saved(Image.fromarray(grey), "PNG"), "x", max_pixels=grey.size - 1)


def test_oversized_gif_frames_are_refused():
    small = bytearray(saved(Image.new("P", (1, 1)), "GIF"))
    start = small.index(b"\x2c")
    struct.pack_into("<HHHH", small, start + 1, 0, 0, 60000, 60000)
    with pytest.raises(DataError, match="size"):
        decode(bytes(small), "bomb")


def test_damaged_exif_is_ignored_or_a_data_error(rgb):
    clean = saved(Image.fromarray(rgb), "JPEG", exif=exif(6))
    start = clean.index(b"Exif")
    generator = np.random.default_rng(5)
    for _ in range(50):
        data = bytearray(clean)
        data[start + 6 + generator.integers(0, 26)] = generator.integers(0, 256)
        try:
            assert decode(bytes(data), "x").shape[2] == 3
        except DataError as error:
            assert "x" in str(error)


def test_random_damage_is_harmless_or_a_data_error(rgb):
    generator = np.random.default_rng(6)
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF"):
        clean = saved(Image.fromarray(rgb), kind)
        for _ in range(60):
            data = bytearray(clean)
            data[generator.integers(0, len(data))] = generator.integers(0, 256)
            try:
                decode(bytes(data), "x")
            except DataError as error:
                assert str(error).startswith("x ")


def test_decoding_in_threads_keeps_the_warning_filters(rgb):
    data = saved(Image.fromarray(rgb), "PNG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda _: decode(data, "x"), range(200)))
    assert warnings.filters == before
    assert all((image == rgb).all() for image in decoded)


def test_a_file_is_decoded_and_other_paths_are_refused(tmp_path, rgb):
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(rgb), "PNG"))
    np.testing.assert_array_equal(read_first_frame(tmp_path / "a.png").pixels, rgb)
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        read_first_frame(tmp_path / "b.png")
    with pytest.raises(DataError, match="is not a file"):
        read_first_frame(tmp_path)


def test_the_size_of_files_is_limited(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(2**30)  # sparse
    with pytest.raises(DataError, match=r"huge\.png has 1,073,741,824 bytes"):
        read_first_frame(path)


# Resized as soon as they are decoded


def sixty_by_ninety(mode):
    values = np.random.default_rng(2).integers(0, 256, (60, 90, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(values).convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(values)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
        *((mode, "WEBP") for mode in ("RGB", "RGBA")),
        *((mode, "BMP") for mode in ("L", "RGB")),
        *((mode, "GIF") for mode in ("L", "P")),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_pixels_are_those_of_the_resized_image(mode, kind, orientation):
    options = {"exif": exif(orientation)} if kind in ("PNG", "JPEG", "WEBP") else {}
    data = saved(sixty_by_ninety(mode), kind, **options)
    whole = decode(data, "x")
    asked = []
    frame = decode_first_frame(data, "x", reduce=lambda *size: asked.append(size) or (20, 31))
    np.testing.assert_array_equal(frame.pixels, resize(whole, 20, 31))
    assert asked == [frame.original_size] == [whole.shape[:2]]


@pytest.mark.parametrize("transparency", [7, (1, 2, 3)])
def test_a_transparent_value_is_made_background_before_the_image_is_reduced(transparency):
    mode = "L" if transparency == 7 else "RGB"
    data = saved(sixty_by_ninety(mode), "PNG", transparency=transparency)
    frame = decode_first_frame(data, "x", reduce=lambda height, width: (height // 3, width // 3))
    np.testing.assert_array_equal(frame.pixels, resize(decode(data, "x"), 20, 30))


def test_an_image_of_the_wanted_size_is_not_resized(rgb):
    frame = decode_first_frame(saved(Image.fromarray(rgb), "PNG"), "x", reduce=lambda *size: size)
    np.testing.assert_array_equal(frame.pixels, rgb)
    assert frame.original_size is None
