"""Image files of a data set: what they were before they were resized and converted, and what was assumed."""

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets import image_files, load
from foveola.datasets.reload import load_for_model
from foveola.errors import DataError
from foveola.models.model_file import read_metadata
from foveola.progress import no_progress


def write(root, images):
    """The images, in turn in the classes a and b."""
    for number, image in enumerate(images):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    return root


def noise(shape, seed=0, highest=255, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, highest + 1, shape).astype(dtype)


def white_strokes(seed):
    pixels = np.full((16, 16, 4), 255, np.uint8)
    pixels[..., 3] = 0
    pixels[2:14, 3 + seed % 9, 3] = 255
    return Image.fromarray(pixels)


def test_sizes_and_colours_before_resizing_are_kept(tmp_path):
    grey_as_colour = noise((20, 30, 1)).repeat(3, axis=2)
    pixels = [noise((100, 300, 3)), grey_as_colour, noise((50, 70)), noise((40, 40, 3))]
    data = load(write(tmp_path, map(Image.fromarray, pixels)))
    assert sorted(zip(data.originals.heights, data.originals.widths, strict=True)) == [
        (20, 30), (40, 40), (50, 70), (100, 300),
    ]  # fmt: skip
    assert (data.originals.colour, data.originals.white_level) == (2, None)


def test_only_training_images_are_measured(tmp_path):
    for split, side in (("train", 20), ("test", 50)):
        write(tmp_path / split, [Image.fromarray(noise((side, side), seed)) for seed in range(4)])
    assert set(load(tmp_path).originals.heights) == {20}


def test_arrays_that_are_resized_keep_their_size_too():
    assert load("digits").originals is None
    assert set(load("digits", image_size=16).originals.widths) == {8}


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_files_that_use_fewer_than_16_bits_are_scaled_by_these(tmp_path, bits):
    values = [noise((9, 9), seed, 2**bits - 1, np.uint16) for seed in range(6)]
    data = load(write(tmp_path, map(Image.fromarray, values)))
    assert data.originals.white_level == 2**bits - 1
    expected = np.rint(np.stack(values[::2] + values[1::2]) * 255.0 / (2**bits - 1))
    np.testing.assert_array_equal(data.train.images[..., 0], expected)
    (note,) = data.notes
    assert note.startswith(f"6 of 6 training images have 16 bits per pixel and use {bits} of them")


def test_one_image_of_all_bits_makes_all_16_bit(tmp_path):
    values = [noise((9, 9), seed, 4095, np.uint16) for seed in range(5)] + [noise((9, 9), 5, 65535, np.uint16)]
    data = load(write(tmp_path, map(Image.fromarray, values)))
    assert (data.originals.white_level, data.notes) == (None, ())
    np.testing.assert_array_equal(data.train.images[0, ..., 0], np.rint(values[0] / 257))


def test_colour_of_few_bits_is_refused_with_the_remedy(tmp_path):
    import struct
    import zlib

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    for number in range(4):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        rows = noise((9, 27), number, 4095, ">u2")
        packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        header = struct.pack(">IIBBBBB", 9, 9, 16, 2, 0, 0, 0)
        chunks = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
        (folder / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(DataError, match=r"only 12 are used.*magick .* -evaluate multiply 16 -depth 8"):
        load(tmp_path)


def test_white_strokes_are_put_on_black_and_counted(tmp_path):
    data = load(write(tmp_path, map(white_strokes, range(6))))
    assert data.notes == (
        "6 of 6 training images are light on a transparent ground. They were put on black, because on white nothing "
        "would be left.",
    )
    assert data.train.images.shape == (6, 16, 16, 1)
    np.testing.assert_array_equal(data.train.images[0, ..., 0] == 255, np.asarray(white_strokes(0))[..., 3] == 255)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Image.fromarray(noise((16, 16), seed, 3000, np.uint16)),
        white_strokes,
        lambda seed: Image.fromarray(noise((30, 90), seed)),
        lambda seed: Image.fromarray(noise((20 + seed, 21 + seed), seed)),
    ],
    ids=["12 bits", "white strokes", "wide", "small"],
)
def test_training_images_are_prepared_as_they_were_learnt(tmp_path, tiny, make):
    root = write(tmp_path / "data", map(make, range(12)))
    run = foveola.train(root, tiny, out=tmp_path / "run", report=False, verbose=False)
    data, metadata = load(root), read_metadata(run.model_path)
    again = load_for_model(metadata, root, 0, no_progress)
    assert again.fingerprint == data.fingerprint
    paths = [*sorted((root / "a").iterdir()), *sorted((root / "b").iterdir())]
    answers = foveola.predict(run.path, paths, fix=["auto"], verbose=False)
    unlike = {finding.code for answer in answers for finding in answer.findings}
    assert not unlike & {"shape", "resolution", "depth"}
    assert not any("crop" in answer.fixes for answer in answers)


def test_grey_saved_in_colour_is_grey(tmp_path):
    for number, label in enumerate("ababab"):
        (tmp_path / label).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).convert("RGB").save(tmp_path / label / f"{number}.png")
    assert load(tmp_path).image_shape == (8, 8, 1)
    assert load(tmp_path, channels=3).image_shape == (8, 8, 3)
    Image.new("RGB", (8, 8), (9, 0, 0)).save(tmp_path / "a" / "red.png")
    mixed = load(tmp_path)
    assert mixed.image_shape == (8, 8, 3)
    assert mixed.originals.colour == 1


# Memory


def test_a_folder_that_memory_cannot_hold_is_refused_early(tmp_path, monkeypatch):
    count, memory = 3 * image_files.IMAGES_PER_CHECK, 10**6
    write(tmp_path, [Image.fromarray(noise((4, 4), seed)) for seed in range(count)])
    monkeypatch.setattr(image_files, "physical_memory", lambda: memory)
    read = []
    with pytest.raises(
        DataError, match=r"300 images of 50×40 pixels take .* foveola pack DATA --image-size 50x40.*=25\."
    ):
        load(tmp_path, image_size=(50, 40), progress=lambda done, total, what: read.append(done))
    assert len(read) < image_files.IMAGES_PER_CHECK
    assert len(load(tmp_path, image_size=(30, 40)).train) == count  # of grey images: a byte a pixel, twice


def test_where_the_system_does_not_tell_its_memory_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "physical_memory", lambda: None)
    monkeypatch.setattr(image_files, "IMAGES_PER_CHECK", 2)
    assert len(load(write(tmp_path, [Image.fromarray(noise((4, 4)))] * 4)).train) == 4
