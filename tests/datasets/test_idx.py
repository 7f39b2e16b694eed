"""IDX reader: supported files, identification of published data, and refused files."""

import gzip
import hashlib
import os
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from foveola.datasets import CATALOG, idx, load
from foveola.datasets.entry import File, file_digests
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 3), dtype=np.uint8)


def write(folder, *, prefix="", split="train", count=12, classes=3, gz=False, labels=None, seed=0):
    labels = np.arange(count, dtype=np.uint8) % classes if labels is None else labels
    for kind, array in (("images-idx3", pixels(count, seed)), ("labels-idx1", labels)):
        data = idx_bytes(array)
        name = f"{prefix}{split}-{kind}-ubyte"
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("test_split", ["t10k", "test"])
def test_raw_and_gzipped_files_are_read(tmp_path, gz, test_split):
    write(tmp_path, gz=gz)
    write(tmp_path, split=test_split, count=6, gz=gz, seed=1)
    (tmp_path / "README.md").write_text("ignored")
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images, pixels(12)[..., None])
    np.testing.assert_array_equal(data.test.images, pixels(6, 1)[..., None])
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert data.class_names == ("0", "1", "2")
    assert (data.name, data.validation, data.flip_safe, data.licence) == (tmp_path.name, None, False, None)


def test_the_test_split_is_optional(folder):
    assert load(folder).test is None


def test_names_with_a_dot_are_read(folder):
    for file in list(folder.iterdir()):
        file.rename(folder / file.name.replace("-idx", ".idx"))
    assert len(load(folder).train) == 12


def test_a_raw_file_is_preferred_to_a_gzipped_one(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    assert len(load(folder).train) == 12


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"])
def test_missing_files_are_named(folder, missing):
    write(folder, split="t10k")
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"lacks {missing}"):
        load(folder)


def test_two_files_for_the_same_split_are_refused(folder):
    write(folder, split="t10k")
    write(folder, split="test")
    with pytest.raises(DataError, match="both hold the test images"):
        load(folder)


def test_several_data_sets_in_a_folder_are_refused(folder):
    write(folder, prefix="emnist-digits-")
    with pytest.raises(DataError, match=r"several data sets.*emnist-digits-"):
        load(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with nothing"),
        (b"\0\0", "starts with 00 00;"),
        (b"\0\0\x08\3\0\0", "ends inside its header"),
        (b"\x89PNG" + bytes(100), "starts with 89 50 4e 47; an IDX file of images starts with 00 00 08 03"),
        (idx_bytes(np.arange(12, dtype=np.uint8)), "starts with 00 00 08 01"),
        (b"\0\0\x0d\3" + idx_bytes(pixels(12))[4:], "starts with 00 00 0d 03"),
        (idx_bytes(pixels(12))[:-1], "declares 12×4×3 = 144 bytes of images, but its size allows exactly 143"),
        (idx_bytes(pixels(12)) + b"\0", "declares 12×4×3 = 144 bytes of images, but its size allows exactly 145"),
        (b"\0\0\x08\3" + struct.pack(">3I", 0, 4, 3), "declares 0×4×3"),
        (b"\0\0\x08\3" + b"\xff" * 12 + bytes(50), "1 to 17,179,869,184 bytes can be read"),
    ],
)
def test_damaged_raw_files_are_refused(folder, data, message):
    (folder / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*" + message):
        load(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: gzip.compress(data)[:-30], "cannot be read"),
        (lambda data: gzip.compress(data)[:-4], "cannot be read"),
        (lambda data: gzip.compress(data)[:-8] + bytes(8), "cannot be read: CRC"),
        (lambda data: data, "cannot be read: Not a gzipped file"),
        (lambda data: gzip.compress(data[:-1]), "holds fewer"),
        (lambda data: gzip.compress(data + b"\0"), "holds more"),
        (lambda data: gzip.compress(data + bytes(10**8)), "holds more"),
        (lambda data: gzip.compress(data[:4] + struct.pack(">3I", 1000, 1000, 1000)), "its size allows at most"),
    ],
)
def test_damaged_gzipped_files_are_refused(tmp_path, damage, message):
    write(tmp_path, gz=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(damage(idx_bytes(pixels(12))))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz.*" + message):
        load(tmp_path)


def test_different_numbers_of_images_and_labels_are_refused(tmp_path):
    write(tmp_path, labels=np.arange(11, dtype=np.uint8) % 3)
    with pytest.raises(DataError, match=r"train: There are 12 images but 11 labels"):
        load(tmp_path)


@pytest.mark.parametrize("names", ["123", "02", "345", "0123"])
def test_labels_name_their_classes_themselves(tmp_path, names):
    values = np.array(list(map(int, names)), np.uint8)
    write(tmp_path, labels=values[np.arange(12) % len(names)])
    data = load(tmp_path)
    assert data.class_names == tuple(names)
    assert data.train.labels.tolist() == [number % len(names) for number in range(12)]


def test_a_class_without_training_images_is_named(tmp_path):
    write(tmp_path, labels=np.array([0, 2] * 6, np.uint8))
    write(tmp_path, split="test")
    with pytest.raises(DataError, match="no training image of '1'"):
        load(tmp_path).check_trainable()


@pytest.mark.parametrize("layout", ["{name}/{name}", "MNIST/raw/{name}", "{split}/{name}", "archive/{name}/{name}"])
def test_files_in_folders_are_found(tmp_path, layout):
    (tmp_path / "flat").mkdir()
    (tmp_path / "root").mkdir()
    for split in ("train", "t10k"):
        write(tmp_path / "flat", split=split)
    for file in (tmp_path / "flat").iterdir():
        target = tmp_path / "root" / layout.format(name=file.name, split=file.name.partition("-")[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    data = load(tmp_path / "root")
    np.testing.assert_array_equal(data.train.images[..., 0], pixels(12))
    assert len(data.test) == 12


def test_data_sets_in_several_folders_are_refused(tmp_path):
    for name in ("fashion", "mnist"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"fashion and .*mnist both hold a data set. Give one"):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "train-images-idx3-ubyte"])
def test_a_fifo_is_refused_without_being_opened(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=f"{name} is not a regular file"):
        load(folder)


def test_nothing_is_trained_on_a_single_class(tmp_path):
    write(tmp_path, classes=1)
    with pytest.raises(DataError, match="images of 1 class"):
        load(tmp_path).check_trainable()


@pytest.fixture
def toy_entry(monkeypatch, tmp_path):
    """Entry of Fashion-MNIST whose published files are toy files in `tmp_path`."""
    write(tmp_path, gz=True, classes=10)
    write(tmp_path, gz=True, classes=10, split="t10k")
    files = tuple(
        File(
            name,
            *file_digests(tmp_path / name),
            hashlib.sha256(gzip.decompress((tmp_path / name).read_bytes())).hexdigest(),
        )
        for name in sorted(file.name for file in tmp_path.iterdir())
    )
    entry = replace(CATALOG["fashion-mnist"], files=files)
    monkeypatch.setitem(CATALOG, "fashion-mnist", entry)
    return entry


def recompress(path, content=None):
    path.write_bytes(gzip.compress(content or gzip.decompress(path.read_bytes()), 1, mtime=9))


def test_published_data_is_identified_by_its_decompressed_content(toy_entry, tmp_path):
    recompress(tmp_path / "train-labels-idx1-ubyte.gz")
    data = load(tmp_path)
    assert data.name == "fashion-mnist"
    assert data.class_names[9] == "Ankle boot"
    assert data.flip_safe
    assert data.licence == "MIT"


def test_published_data_is_identified_by_its_compressed_files(toy_entry, tmp_path, monkeypatch):
    files = tuple(replace(file, content_sha256=None) for file in toy_entry.files)
    monkeypatch.setitem(CATALOG, "fashion-mnist", replace(toy_entry, files=files))
    assert load(tmp_path).name == "fashion-mnist"


def test_labels_beyond_the_class_names_are_refused():
    with pytest.raises(DataError, match=r"Labels run from 0 to 9, but must be between 0 and 1: there are 2 classes"):
        idx._image_set(pixels(10), np.arange(10, dtype=np.uint8), ("a", "b"), None, "x")


def test_published_content_is_accepted_raw_or_recompressed(toy_entry, tmp_path):
    for file in list(tmp_path.glob("t10k*")):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    for file in tmp_path.glob("train*"):
        recompress(file)
    assert len(idx.read(tmp_path, ReadOptions(), toy_entry).test) == 12


@pytest.mark.parametrize("checksum", ["content", "file"])
def test_other_content_under_a_catalog_name_is_refused(toy_entry, tmp_path, checksum):
    if checksum == "file":
        toy_entry = replace(toy_entry, files=tuple(replace(file, content_sha256=None) for file in toy_entry.files))
    recompress(tmp_path / "t10k-images-idx3-ubyte.gz", idx_bytes(pixels(12, seed=5)))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is not the published file of Fashion-MNIST.*path"):
        idx.read(tmp_path, ReadOptions(), toy_entry)
    assert len(load(tmp_path).test) == 12  # given by path, it is the user's own data


def write_emnist_archive(folder, extracted):
    labels = np.arange(1, 27, dtype=np.uint8)
    write(extracted, prefix="emnist-letters-", gz=True, count=26, labels=labels)
    write(extracted, prefix="emnist-letters-", split="test", gz=True, count=26, labels=labels, seed=1)
    write(extracted, prefix="emnist-digits-", gz=True)
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for file in sorted(extracted.iterdir()):
            archive.write(file, f"gzip/{file.name}")
    published = File("gzip.zip", *file_digests(folder / "gzip.zip"))
    return replace(CATALOG["emnist-letters"], files=(published,))


@pytest.fixture
def emnist(tmp_path):
    (tmp_path / "extracted").mkdir()
    (tmp_path / "emnist").mkdir()
    return write_emnist_archive(tmp_path / "emnist", tmp_path / "extracted")


def check_letters(data):
    assert data.name == "emnist-letters"
    assert data.image_shape == (3, 4, 1)
    np.testing.assert_array_equal(data.train.images[..., 0], pixels(26).transpose(0, 2, 1))
    np.testing.assert_array_equal(data.test.images[..., 0], pixels(26, 1).transpose(0, 2, 1))
    assert data.train.labels.tolist() == list(range(26))
    assert (data.class_names[0], data.class_names[25]) == ("a", "z")


def test_emnist_is_read_from_its_archive_and_transposed(emnist, tmp_path):
    check_letters(idx.read(tmp_path / "emnist", ReadOptions(), emnist))
    assert [file.name for file in (tmp_path / "emnist").iterdir()] == ["gzip.zip"]


def test_emnist_is_read_from_extracted_files(emnist, tmp_path):
    check_letters(idx.read(tmp_path / "extracted", ReadOptions(), emnist))


def test_emnist_is_identified_by_its_file_names(emnist, tmp_path):
    for file in (tmp_path / "extracted").glob("emnist-digits*"):
        file.unlink()
    check_letters(load(tmp_path / "extracted"))


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("letters", "a", "z", 26),
        ("balanced", "0", "t", 47),
        ("digits", "0", "9", 10),
        ("mnist", "0", "9", 10),
        ("byclass", "0", "z", 62),
        ("bymerge", "0", "t", 47),
    ],
)
def test_all_of_emnist_is_upright_and_has_class_names(tmp_path, name, first, last, count):
    labels = np.arange(count, dtype=np.uint8) + CATALOG[f"emnist-{name}"].first_label
    write(tmp_path, prefix=f"emnist-{name}-", labels=labels, count=count)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images[..., 0], pixels(count).transpose(0, 2, 1))
    assert (data.name, data.class_names[0], data.class_names[-1]) == (f"emnist-{name}", first, last)
    assert data.train.labels.tolist() == list(range(count))


def test_square_images_are_turned_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "_BLOCK_IMAGES", 5)
    images = np.random.default_rng(0).integers(0, 256, (124, 6, 6), dtype=np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(124, dtype=np.uint8) % 62)):
        (tmp_path / f"emnist-byclass-train-{kind}-ubyte").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(load(tmp_path).train.images[..., 0], images.transpose(0, 2, 1))


def test_an_archive_with_another_checksum_is_refused(emnist, tmp_path):
    with (tmp_path / "emnist" / "gzip.zip").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"gzip\.zip is not the published file"):
        idx.read(tmp_path / "emnist", ReadOptions(), emnist)


def test_an_archive_without_the_members_is_refused(emnist, tmp_path):
    with pytest.raises(DataError, match="lacks emnist-balanced-train-images-idx3-ubyte"):
        idx.read(tmp_path / "emnist", ReadOptions(), replace(emnist, prefix="emnist-balanced-"))


def test_real_data_of_the_mnist_family_is_identified(real_data, monkeypatch):
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))
    for name, first, flip_safe in (("mnist", "0", False), ("fashion-mnist", "T-shirt/top", True)):
        by_name, by_path = load(name), load(real_data / name)
        assert (len(by_name.train), len(by_name.test)) == (60_000, 10_000)
        assert by_name.image_shape == CATALOG[name].image_shape == (28, 28, 1)
        assert by_name.class_names[0] == first
        assert by_name.train.class_counts.sum() == 60_000
        assert by_name.flip_safe == flip_safe
        assert by_path.fingerprint == by_name.fingerprint
        assert by_path.name == name


def test_real_mnist_begins_with_the_known_labels(real_data):
    data = load(real_data / "mnist")
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.train.class_counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_real_data_that_is_not_in_the_catalog_is_read(real_data):
    data = load(real_data / "kmnist-from-test")
    assert (len(data.train), len(data.test)) == (8000, 2000)
    assert data.class_names == tuple("0123456789")
    assert (data.name, data.licence) == ("kmnist-from-test", None)
