"""NPZ: what is read, and files that lie about what they hold."""

import io
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from foveola.datasets import CATALOG, load, npz
from foveola.datasets.entry import File, digests
from foveola.datasets.reader import Request
from foveola.errors import DataError


def pixels(count=12, *shape, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, *(shape or (4, 3))), dtype=np.uint8)
    values.ravel()[:1], values.ravel()[-1:] = 0, 255  # the whole range, always
    return values


def labels(count=12):
    return np.arange(count) % 3


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        np.savez_compressed(tmp_path / "own.npz", **({"x_train": pixels(), "y_train": labels()} | arrays))
        return tmp_path / "own.npz"

    return save


@pytest.fixture
def pack(tmp_path):
    """An archive with x_train written by hand."""

    def pack(member, *, compression=zipfile.ZIP_DEFLATED, y_train=None):
        with zipfile.ZipFile(tmp_path / "bad.npz", "w", compression) as archive:
            archive.writestr("x_train.npy", member)
            archive.writestr("y_train.npy", npy(labels() if y_train is None else y_train))
        return tmp_path / "bad.npz"

    return pack


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(text, version=(1, 0)):
    data = text.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(data))
    return b"\x93NUMPY" + bytes(version) + length + data


def described(shape, dtype="|u1", order=False):
    return header(repr({"descr": dtype, "fortran_order": order, "shape": shape}))


def test_as_keras_saves_it(save):
    data = load(save(x_test=pixels(6, seed=1), y_test=labels(6), x_val=pixels(3, seed=2), y_val=labels(3)))
    np.testing.assert_array_equal(data.train.images, pixels()[..., None])
    np.testing.assert_array_equal(data.test.images, pixels(6, seed=1)[..., None])
    np.testing.assert_array_equal(data.validation.images, pixels(3, seed=2)[..., None])
    assert data.train.labels.tolist() == labels().tolist()
    assert (data.name, data.class_names, data.flip_safe) == ("own", ("0", "1", "2"), False)


def test_colour_labels_in_a_column_and_class_names(save):
    names = ["red", "grün", "青"]
    data = load(save(x_train=pixels(12, 4, 3, 3), y_train=labels()[:, None], class_names=names))
    np.testing.assert_array_equal(data.train.images, pixels(12, 4, 3, 3))
    assert data.class_names == tuple(names)


def test_as_medmnist_saves_it(tmp_path):
    np.savez(tmp_path / "m.npz", train_images=pixels(), train_labels=labels()[:, None].astype(np.uint8))
    assert load(tmp_path / "m.npz").train.labels.tolist() == labels().tolist()


@pytest.mark.parametrize("dtype", ["int64", ">i2", "uint16", "int32"])
def test_other_integers(save, dtype):
    np.testing.assert_array_equal(load(save(x_train=pixels().astype(dtype))).train.images[..., 0], pixels())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floats_from_0_to_1_are_scaled(save, dtype):
    images = (pixels() / 255).astype(dtype)
    np.testing.assert_array_equal(load(save(x_train=images)).train.images[..., 0], pixels())


def test_fortran_order(save):
    np.testing.assert_array_equal(load(save(x_train=np.asfortranarray(pixels()))).train.images[..., 0], pixels())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": pixels().astype(float)}, r"x_train: floating-point images .* run from 0\.0 to 255\.0"),
        ({"x_train": np.full((12, 4, 3), np.nan)}, "run from nan"),
        ({"x_train": pixels() / 255 - 0.1}, "run from -0.1"),
        ({"x_train": pixels().astype(int) + 1}, "run from 1 to 256"),
        ({"x_train": pixels().astype(int) - 1}, "run from -1 to 254"),
        ({"x_train": pixels() > 9}, "type bool"),
        ({"x_train": pixels().astype(complex)}, "type complex128"),
        ({"x_train": pixels().astype(str)}, "images must be numbers"),
        ({"x_train": np.array(pixels().tolist(), object)}, "type object; .*never Python objects"),
        ({"x_train": np.zeros(12, [("a", "u1")])}, "only plain numbers"),
        ({"x_train": pixels(12, 12)}, "12×12"),
        ({"x_train": pixels(12, 3, 4, 4)}, "12×3×4×4"),
        ({"x_train": pixels(0)}, "empty"),
        ({"x_train": np.uint8(3)}, "N×H×W×C"),
        ({"y_train": np.eye(3)[labels()]}, r"y_train: .*argmax"),
        ({"y_train": labels().astype(float)}, "labels must be integers"),
        ({"y_train": labels().astype(str)}, "labels must be integers"),
        ({"y_train": labels(11)}, "12 images but 11 labels"),
        ({"y_train": labels() - 1}, "run from -1 to 1"),
        ({"y_train": labels() * 10**15}, "labels go up to 2000000000000000"),
        ({"y_train": labels() * 2}, "no training image of '1', '3'"),
        ({"y_train": labels(), "class_names": ["a", "b"]}, "from 0 to 2, but there are 2 classes"),
        ({"class_names": ["a", "b", "c", "d"]}, "no training image of 'd'"),
        ({"class_names": [1, 2, 3]}, "save a list of strings"),
        ({"x_test": pixels()}, "only one of x_test and y_test"),
    ],
)
def test_arrays_that_are_refused(save, arrays, message):
    with pytest.raises(DataError, match=r"own.*" + message):
        load(save(**arrays))


def test_other_array_names_are_listed(tmp_path):
    np.savez(tmp_path / "o.npz", data=pixels(), target=labels())
    with pytest.raises(DataError, match="holds data, target, but no x_train"):
        load(tmp_path / "o.npz")


class Boom:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(np.array([Boom()]), allow_pickle=True), "type object"),
        (described((10**6, 1000, 1000)), "does not fit"),
        (described((12, 4, 3)) + bytes(143), "does not fit"),
        (described((12, 4, 3)) + bytes(145), "does not fit"),
        (described((-12, -4, 3)) + bytes(144), "does not fit"),
        (described((1, 0)) + bytes(10), "does not fit"),
        (described((10**30, 10**30)), "does not fit"),
        (described((12,), "<U0"), "does not fit"),
        (described((1,), "<U99999999"), "does not fit"),
        (header("{" + "'a':1," * 3000 + "}"), "no valid NumPy header"),
        (b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + bytes(2**22), "no valid NumPy header"),
        (header("(" * 5000), "no valid NumPy header"),
        (header("__import__('os').abort()"), "no valid NumPy header"),
        (b"\x93NUMPY\3\0" + bytes(100), "version"),
        (b"not numpy", "no valid NumPy header"),
        (b"", "no valid NumPy header"),
    ],
)
def test_members_that_lie(pack, member, message):
    with pytest.raises(DataError, match=r"bad\.npz, x_train.*" + message):
        load(pack(member))


def test_a_zip_bomb_is_refused_by_its_directory(pack):
    path = pack(described((2**40,)), compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    struct.pack_into("<I", data, entry + 24, 2**31)  # the size that the central directory claims
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="claims 2,147,483,648 bytes"):
        load(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(pack, method):
    with pytest.raises(DataError, match="compressed in a way"):
        load(pack(npy(pixels()), compression=method))


def test_encrypted_members_are_refused(pack):
    path = pack(npy(pixels()))
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="encrypted"):
        load(path)


@pytest.mark.parametrize("keep", [0, 10, 100, -1, -100])
def test_truncated_archives_are_refused(save, keep):
    path = save()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"own\.npz cannot be read as NPZ"):
        load(path)


def test_damage_inside_is_noticed(pack):
    path = pack(npy(pixels()), compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="Bad CRC"):
        load(path)


@pytest.fixture
def kuzushiji(tmp_path, monkeypatch):
    """Kuzushiji-49's entry, as if the toy in `tmp_path` were what is published."""
    for split, seed in (("train", 0), ("test", 1)):
        np.savez_compressed(tmp_path / f"k49-{split}-imgs.npz", pixels(49, seed=seed))
        np.savez_compressed(tmp_path / f"k49-{split}-labels.npz", np.arange(49, dtype=np.uint8))
    files = tuple(File(path.name, digests(path)[0]) for path in sorted(tmp_path.iterdir()))
    entry = replace(CATALOG["kuzushiji-49"], files=files)
    monkeypatch.setitem(CATALOG, "kuzushiji-49", entry)
    return entry


def test_kmnists_pairs_with_their_passport(kuzushiji, tmp_path):
    for data in (load(tmp_path), npz.read(tmp_path, Request(), kuzushiji)):
        assert data.name == "kuzushiji-49"
        np.testing.assert_array_equal(data.test.images[..., 0], pixels(49, seed=1))
        assert (data.class_names[0], data.class_names[48]) == ("あ", "ゝ")


def test_kmnists_pairs_of_another_content(kuzushiji, tmp_path):
    np.savez_compressed(tmp_path / "k49-train-labels.npz", np.arange(49)[::-1])
    with pytest.raises(DataError, match=r"k49-train-labels\.npz is not the file that Kuzushiji-49 publishes"):
        npz.read(tmp_path, Request(), kuzushiji)
    assert load(tmp_path).class_names[0] == "0"


def test_kmnists_pairs_incomplete_or_doubled(tmp_path):
    np.savez_compressed(tmp_path / "k-train-imgs.npz", pixels())
    with pytest.raises(DataError, match=r"lacks k-train-labels\.npz"):
        load(tmp_path)
    np.savez_compressed(tmp_path / "k-train-labels.npz", labels())
    assert load(tmp_path).test is None
    np.savez_compressed(tmp_path / "k-test-labels.npz", labels())
    with pytest.raises(DataError, match=r"lacks k-test-imgs\.npz"):
        load(tmp_path)
    np.savez_compressed(tmp_path / "other-train-imgs.npz", pixels())
    with pytest.raises(DataError, match="several data sets"):
        load(tmp_path)


def test_a_pair_with_another_array_name(tmp_path):
    np.savez_compressed(tmp_path / "k-train-imgs.npz", images=pixels())
    np.savez_compressed(tmp_path / "k-train-labels.npz", labels())
    with pytest.raises(DataError, match=r"k-train-imgs\.npz has no array arr_0"):
        load(tmp_path)
