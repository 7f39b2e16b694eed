"""Image folder reader: layouts, sizes, channels, and unusable files."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from foveola.datasets import load
from foveola.errors import DataError
from foveola.inputs.resize import letterbox, resize


def image(seed=0, size=(8, 6), channels=3):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def write(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image(seed, **options)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "pets"
    for seed, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.bmp"]):
        write(root / name, seed)
    return root


def test_every_folder_is_a_class(root):
    data = load(root)
    assert (data.name, data.class_names, data.test, data.skipped) == ("pets", ("cat", "dog"), None, ())
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(data.train.images, [image(seed) for seed in range(4)])


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_splits_are_recognised_by_their_names(tmp_path, validation):
    for seed, split in enumerate(["train", validation, "test"]):
        write(tmp_path / split / "a" / "1.png", seed)
        write(tmp_path / split / "b" / "1.png", seed + 10)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.validation.images, [image(1), image(11)])
    np.testing.assert_array_equal(data.test.images, [image(2), image(12)])
    assert data.test.class_names == ("a", "b")


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    for name in ("bus", "train", "car"):
        write(tmp_path / name / "1.png")
    assert load(tmp_path).class_names == ("bus", "car", "train")


def test_files_that_are_not_data_are_ignored(root):
    for name in [
        "README.md",
        "cat/readme.txt",
        "LICENSE",
        "dog/LICENCE",
        ".DS_Store",
        "cat/.hidden.png",
        "cat/Thumbs.db",
    ]:
        (root / name).write_text("x")
    (root / "labels.csv").write_text("x")
    write(root / "__MACOSX" / "cat" / "1.png")
    write(root / ".cache" / "1.png")
    assert len(load(root).train) == 4


def test_classes_are_in_natural_order(tmp_path):
    for name in ["10", "2", "1", "a10", "A9", "01"]:
        write(tmp_path / name / "x.png")
    assert load(tmp_path).class_names == ("01", "1", "2", "10", "A9", "a10")


def test_class_folders_may_be_symbolic_links(root, tmp_path):
    write(tmp_path / "elsewhere" / "1.png")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    assert load(root).class_names == ("cat", "dog", "fox")


def test_images_are_grey_only_if_all_are(tmp_path):
    write(tmp_path / "a" / "1.png", 0, channels=1)
    write(tmp_path / "b" / "1.png", 1, channels=1)
    assert load(tmp_path).image_shape == (8, 6, 1)
    assert load(tmp_path, channels=3).image_shape == (8, 6, 3)
    write(tmp_path / "b" / "2.png", 2)
    data = load(tmp_path)
    assert data.image_shape == (8, 6, 3)
    np.testing.assert_array_equal(data.train.images[0], np.stack([image(0, channels=1)] * 3, 2))
    assert load(tmp_path, channels=1).image_shape == (8, 6, 1)


def test_a_common_size_up_to_64_pixels_is_kept(tmp_path):
    write(tmp_path / "a" / "1.png", size=(64, 20))
    write(tmp_path / "b" / "1.png", size=(64, 20))
    assert load(tmp_path).image_shape == (64, 20, 3)


@pytest.mark.parametrize("other", [(65, 60), (63, 60)])
def test_differing_sizes_become_64_by_64(tmp_path, other):
    write(tmp_path / "a" / "1.png", 0, size=other)
    write(tmp_path / "b" / "1.png", 1, size=(64, 60))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images[0], resize(image(0, other), 64, 64))
    np.testing.assert_array_equal(data.train.images[1], resize(image(1, (64, 60)), 64, 64))
    assert (data.resize, data.notes) == ("stretch", ())


def write_all(root, sizes, **options):
    """A class of all even and one of all odd images, of these sizes."""
    for seed, size in enumerate(sizes):
        write(root / "ab"[seed % 2] / f"{seed:02}.png", seed, size=size, **options)


@pytest.mark.parametrize(
    ("sizes", "shape", "notes"),
    [
        ([(100, 300)] * 4, (37, 111), 2),  # one aspect, in about 64 · 64 pixels, and reduced much
        ([(300, 100)] * 4, (111, 37), 2),
        ([(384, 512), (113, 150), (90, 118), (48, 64)], (55, 74), 1),  # about one aspect
        ([(10, 900)] * 4, (32, 128), 2),  # very long
        ([(80, 100)] * 4, (64, 64), 0),  # not beyond a factor of 1.25
    ],
)
def test_the_common_aspect_of_large_images_is_kept(tmp_path, sizes, shape, notes):
    write_all(tmp_path, sizes)
    data = load(tmp_path)
    assert data.image_shape[:2] == shape
    assert data.resize == ("letterbox" if sizes[0] == (10, 900) else "stretch")
    order = [0, 2, 1, 3]  # sorted by class
    if data.resize == "stretch":
        expected = [resize(image(seed, sizes[seed]), *shape) for seed in order]
        np.testing.assert_array_equal(data.train.images, expected)
    assert len(data.notes) == notes


def test_images_of_several_aspects_are_letterboxed(tmp_path):
    sizes = [(100, 300), (300, 100), (90, 110), (40, 12)]
    write_all(tmp_path, sizes)
    data = load(tmp_path)
    assert (data.image_shape, data.resize, data.fill) == ((64, 64, 3), "letterbox", 0)
    expected = [letterbox(image(seed, sizes[seed]), 64, 64, 0) for seed in (0, 2, 1, 3)]
    np.testing.assert_array_equal(data.train.images, expected)
    (note,) = data.notes
    assert note.startswith("Images keep their aspect: each is resized to fit into 64×64 pixels")
    # What a run reloads, with what its model has recorded, is the same
    again = load(tmp_path, image_size=(64, 64), resize="letterbox", fill=0)
    assert again.fingerprint == data.fingerprint


def test_stretching_is_kept_where_it_is_asked_for_and_said(tmp_path):
    sizes = [(100, 300), (300, 100), (90, 110), (100, 300)]
    write_all(tmp_path, sizes)
    data = load(tmp_path, resize="stretch")
    np.testing.assert_array_equal(data.train.images, [resize(image(s, sizes[s]), 64, 64) for s in (0, 2, 1, 3)])
    assert data.notes[0].startswith("3 of 4 images are stretched to 64×64 pixels (height × width)")
    assert data.resize == "stretch"


@pytest.mark.parametrize(("level", "fill"), [(255, 250), (0, 5), (128, 0)])
def test_a_letterbox_is_filled_with_the_background_of_the_images(tmp_path, level, fill):
    for seed in range(6):
        picture = np.full(
            (100, 300) if seed % 3 else (90, 90), abs(level - 5) if level != 128 else 60 * seed % 255, np.uint8
        )
        picture[40:60, 40:60] = 130
        (tmp_path / "ab"[seed % 2]).mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "ab"[seed % 2] / f"{seed}.png")
    data = load(tmp_path, image_size=32)
    assert (data.resize, data.fill) == ("letterbox", fill)


def test_the_orientation_of_photographs_counts(tmp_path):
    for seed in range(4):
        file = tmp_path / "ab"[seed % 2] / f"{seed}.jpg"
        file.parent.mkdir(exist_ok=True)
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(image(seed, (100, 200))).save(file, exif=turned)
    assert load(tmp_path).image_shape == (91, 45, 3)


def test_a_few_images_of_another_aspect_are_stretched_and_counted(tmp_path):
    write_all(tmp_path, [(80, 80)] * 39 + [(80, 160)], channels=1)
    data = load(tmp_path)
    assert (data.image_shape, data.resize) == ((64, 64, 1), "stretch")
    assert data.notes[0].startswith("1 of 40 images are stretched")


def test_a_larger_common_size_becomes_64_by_64(tmp_path):
    write(tmp_path / "a" / "1.png", size=(100, 100))
    write(tmp_path / "b" / "1.png", size=(100, 100))
    assert load(tmp_path).image_shape == (64, 64, 3)


def test_images_are_resized_to_the_requested_size(root):
    np.testing.assert_array_equal(load(root, image_size=5).train.images[3], letterbox(image(3), 5, 5, 0))
    np.testing.assert_array_equal(load(root, image_size=5, resize="stretch").train.images[3], resize(image(3), 5, 5))
    assert load(root, image_size=(100, 7)).image_shape == (100, 7, 3)


@pytest.mark.parametrize("empty", ["cat", "dog"])
def test_an_empty_class_is_named(root, empty):
    for file in (root / empty).iterdir():
        file.unlink()
    (root / empty / "README").write_text("")
    with pytest.raises(DataError, match=f"{empty} is empty"):
        load(root)


def test_nothing_is_trained_on_a_single_class(tmp_path):
    write(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match="images of 1 class"):
        load(tmp_path).check_trainable()


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("val", "validation"), ("test", "test")])
def test_a_class_missing_from_a_split_is_named(tmp_path, folder, split):
    for each in ("train", "val", "test"):
        for name in ("a", "b"):
            if (each, name) != (folder, "b"):
                write(tmp_path / each / name / "1.png")
    with pytest.raises(DataError, match=f"The {split} split has no folder for 'b'"):
        load(tmp_path)


def test_another_folder_beside_the_splits_is_refused(tmp_path):
    for folder in ("train", "test", "extra"):
        write(tmp_path / folder / "a" / "1.png")
    with pytest.raises(DataError, match=r"extra holds images beside the splits"):
        load(tmp_path)


def test_nested_class_folders_are_refused(root):
    write(root / "fox" / "red" / "1.png")
    with pytest.raises(DataError, match="fox holds the folder red instead of images"):
        load(root)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    with pytest.raises(DataError, match="no class folders: it is empty"):
        load(tmp_path)
    write(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"no class folders \(found: 1\.png\)"):
        load(tmp_path)


@pytest.fixture
def unusable(root):
    """Five files that cannot be used, each for a different reason."""
    (root / "cat" / "broken.png").write_bytes((root / "cat" / "1.png").read_bytes()[:60])
    (root / "cat" / "notes.txt").write_text("x")
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    write(root / "dog" / "more" / "1.png")
    return ["cat/broken.png", "cat/notes.txt", "dog/empty.jpg", "dog/gone.png", "dog/more"]


def test_all_unusable_files_are_named_together(root, unusable):
    with pytest.raises(DataError, match="5 files cannot be used") as refusal:
        load(root)
    assert all(str(root / name) in str(refusal.value) for name in unusable)


def test_as_many_unusable_files_as_allowed_are_left_out_and_recorded(root, unusable):
    with pytest.raises(DataError, match=r"5 files cannot be used \(4 allowed\)"):
        load(root, skip_bad=4)
    data = load(root, skip_bad=5)
    assert data.skipped == tuple(str(root / name) for name in unusable)
    np.testing.assert_array_equal(data.train.images, [image(seed) for seed in range(4)])


def test_long_lists_of_unusable_files_are_cut(root):
    for number in range(30):
        (root / "cat" / f"bad{number:02}.png").write_bytes(b"x")
    with pytest.raises(DataError, match="30 files") as refusal:
        load(root)
    assert str(refusal.value).count("/bad") == 20
    assert "and 10 more" in str(refusal.value)


def test_a_class_that_loses_all_its_images_is_named(root):
    for file in (root / "dog").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(DataError, match="no image of 'dog' in the train split can be read"):
        load(root, skip_bad=2)


def test_progress_reaches_the_total(root):
    calls = []
    load(root, progress=lambda *call: calls.append(call))
    assert calls == [(number, 4, "images") for number in (1, 2, 3, 4)]


def test_real_sign_language_digits(real_data):
    folder = real_data / "folders" / "sign-language-digits"
    data = load(folder)
    assert len(data.train) == 2062
    assert data.class_names == tuple("0123456789")
    assert data.image_shape == (64, 64, 3)
    files = [file for name in data.class_names for file in sorted((folder / name).iterdir())]
    rotated = 0
    for file, loaded in zip(files, data.train.images, strict=True):
        with Image.open(file) as stored:
            if stored.getexif().get(0x0112, 1) == 1:
                continue
            upright = np.asarray(ImageOps.exif_transpose(stored))
        np.testing.assert_array_equal(loaded, resize(upright, 64, 64))
        rotated += 1
    assert rotated == 3
