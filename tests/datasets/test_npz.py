"""NPZ reader: supported arrays, refused arrays, and archives that misstate their content."""

import io
import struct
import unicodedata
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from foveola.datasets import CATALOG, load, npz
from foveola.datasets.entry import File, file_digests
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError


def pixels(count=12, *shape, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, *(shape or (4, 3))), dtype=np.uint8)
    values.ravel()[:1], values.ravel()[-1:] = 0, 255  # always the whole range
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
    """Write an archive whose x_train.npy consists of the given bytes."""

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


def header_of(shape, dtype="|u1", order=False):
    return header(repr({"descr": dtype, "fortran_order": order, "shape": shape}))


def test_reads_arrays_saved_by_keras(save):
    data = load(save(x_test=pixels(6, seed=1), y_test=labels(6), x_val=pixels(3, seed=2), y_val=labels(3)))
    np.testing.assert_array_equal(data.train.images, pixels()[..., None])
    np.testing.assert_array_equal(data.test.images, pixels(6, seed=1)[..., None])
    np.testing.assert_array_equal(data.validation.images, pixels(3, seed=2)[..., None])
    assert data.train.labels.tolist() == labels().tolist()
    assert (data.name, data.class_names, data.flip_safe) == ("own", ("0", "1", "2"), False)


def test_reads_colour_images_labels_in_a_column_and_class_names(save):
    names = ["red", "grün", "青"]
    data = load(save(x_train=pixels(12, 4, 3, 3), y_train=labels()[:, None], class_names=names))
    np.testing.assert_array_equal(data.train.images, pixels(12, 4, 3, 3))
    assert data.class_names == tuple(names)


def test_reads_arrays_saved_by_medmnist(tmp_path):
    np.savez(tmp_path / "m.npz", train_images=pixels(), train_labels=labels()[:, None].astype(np.uint8))
    assert load(tmp_path / "m.npz").train.labels.tolist() == labels().tolist()


@pytest.mark.parametrize("dtype", ["int64", ">i2", "uint16", "int32"])
def test_reads_other_integer_types(save, dtype):
    np.testing.assert_array_equal(load(save(x_train=pixels().astype(dtype))).train.images[..., 0], pixels())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floats_from_0_to_1_are_scaled(save, dtype):
    images = (pixels() / 255).astype(dtype)
    np.testing.assert_array_equal(load(save(x_train=images)).train.images[..., 0], pixels())


@pytest.mark.parametrize("dtype", [float, "float32", "float16"])
def test_floats_that_hold_whole_numbers_are_taken(save, dtype):
    np.testing.assert_array_equal(load(save(x_train=pixels().astype(dtype))).train.images[..., 0], pixels())


def test_booleans_become_black_and_white(save):
    np.testing.assert_array_equal(load(save(x_train=pixels() > 99)).train.images[..., 0], (pixels() > 99) * 255)


@pytest.mark.parametrize(
    ("saved", "names"),
    [
        (labels() + 1, "123"),
        (labels() * 2, "024"),
        (labels() + 7, "789"),
        (labels().astype(float), "012"),
        (labels() == 1, "01"),
        (labels() * 10**15, ("0", str(10**15), str(2 * 10**15))),
        (np.array(["item 10", "item 2", "Äpfel"])[labels()], ("item 2", "item 10", "Äpfel")),
        (np.array([b"b", b"a", b"c"])[labels()][:, None], "abc"),
        (np.array(["caf\u00e9", "cafe\u0301", "b"])[labels()], ("b", "caf\u00e9")),
        (np.array([b"caf\xe9", b"b"])[labels() % 2], ("b", r"caf\xe9")),
        (np.array(["0", "10", "9"])[labels()], ("0", "9", "10")),
    ],
)
def test_no_class_is_invented(save, saved, names):
    data = load(save(y_train=saved))
    assert data.class_names == tuple(names)
    flat = [
        text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text for text in saved.ravel().tolist()
    ]
    flat = [unicodedata.normalize("NFC", value) if isinstance(value, str) else str(int(value)) for value in flat]
    assert [data.class_names[label] for label in data.train.labels] == flat


@pytest.mark.parametrize("first", [0, 1])
def test_class_names_belong_to_labels_from_0_or_from_1(save, first):
    data = load(save(y_train=labels() + first, class_names=np.array([b"a", b"b", b"c"])))
    assert (data.class_names, data.train.labels.tolist()) == (("a", "b", "c"), labels().tolist())


def test_classes_of_all_splits_are_known(save):
    data = load(save(y_train=labels() + 1, x_test=pixels(2), y_test=np.array([1, 3])))
    assert data.test.labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="no training image of '4'"):
        load(save(y_train=labels() + 1, x_test=pixels(2), y_test=np.array([1, 4]))).check_trainable()


@pytest.mark.parametrize("kind", ["bool", "uint8", "float32"])
def test_several_labels_an_image_are_named(save, kind):
    several = (np.random.default_rng(0).random((12, 14)) < 0.2).astype(kind)
    with pytest.raises(DataError, match=r"y_train: labels are 12×14 zeros and ones with \d to \d ones a row: several"):
        load(save(y_train=several))


def test_labels_that_are_probabilities_are_named(save):
    with pytest.raises(DataError, match="labels are probabilities"):
        load(save(y_train=np.full((12, 4), 0.25)))


def test_upper_case_names_and_the_home_folder_are_read(save, tmp_path, monkeypatch):
    save().rename(tmp_path / "OWN.NPZ")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/OWN.NPZ").name == "OWN"


def test_scaled_floats_are_rounded_to_the_nearest_level(save):
    levels = np.arange(144, dtype=np.float64).reshape(12, 4, 3)
    below = load(save(x_train=(levels + 0.4) / 255)).train.images[..., 0]
    above = load(save(x_train=(levels + 0.6) / 255)).train.images[..., 0]
    np.testing.assert_array_equal(below, levels)
    np.testing.assert_array_equal(above, levels + 1)


def test_reads_arrays_in_fortran_order(save):
    np.testing.assert_array_equal(load(save(x_train=np.asfortranarray(pixels()))).train.images[..., 0], pixels())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": pixels() + 0.5}, r"x_train: images must have values .* have 0\.5 to 255\.5"),
        ({"x_train": np.full((12, 4, 3), np.nan)}, "have nan to nan .*not finite"),
        ({"x_train": pixels() / 255 * 2 - 1}, r"have -1.0 to 1.0 .*\(\(images \+ 1\) \* 127.5\)"),
        ({"x_train": pixels() / 127 - 0.1}, "have -0.1 .*0 as black"),
        ({"x_train": pixels() * 0.99}, r"images.round\(\)"),
        ({"x_train": pixels().astype(int) * 257}, r"have 0 to 65535 .*images \* \(255 / 65535\)"),
        ({"x_train": pixels().astype(int) * 16}, r"have 0 to 4080 .*images \* \(255 / 4095\)"),
        ({"x_train": pixels().astype(int) - 1}, "have -1 to 254"),
        ({"x_train": pixels().astype(complex)}, "type complex128"),
        ({"x_train": pixels().astype(str)}, "images must be numbers"),
        ({"x_train": np.array(pixels().tolist(), object)}, "type object; .*never Python objects"),
        ({"x_train": np.zeros(12, [("a", "u1")])}, "only plain numbers"),
        ({"x_train": pixels(12, 784)}, r"12×784.*reshape\(-1, 28, 28, 1\)"),
        ({"x_train": pixels(12, 3072)}, r"reshape\(-1, 32, 32, 3\).*transpose\(0, 2, 3, 1\)"),
        ({"x_train": pixels(12, 12)}, r"12×12.*images\[None, ..., None\]"),
        ({"x_train": pixels(12, 3, 4, 4)}, r"12×3×4×4.*transpose\(0, 2, 3, 1\)"),
        ({"x_train": pixels(0)}, "empty"),
        ({"x_train": np.uint8(3)}, "N×H×W×C"),
        ({"y_train": np.eye(3)[labels()]}, r"y_train: labels are one-hot.*argmax"),
        ({"y_train": labels() + 0.5}, "labels must be whole numbers or names of classes; these hold 0.5"),
        ({"y_train": np.full(12, np.nan)}, "these hold nan"),
        ({"y_train": labels(11)}, "12 images but 11 labels"),
        ({"y_train": labels() - 1}, "smallest label is -1"),
        (
            {"x_train": np.zeros((1100, 1, 1), np.uint8), "y_train": np.arange(1100)},
            "1,100 different values for 1,100 images",
        ),
        (
            {"y_train": labels(), "class_names": ["a", "b"]},
            "but must be between 0 and 1: there are 2 classes",
        ),
        ({"class_names": [1, 2, 3]}, "save a list of strings"),
        ({"y_train": np.array(list("abc"))[labels()], "class_names": ["a", "b"]}, "Labels 'c' are not among"),
        ({"y_train": np.array(list("abc"))[labels()], "x_test": pixels(), "y_test": labels()}, "in the same form"),
        ({"x_test": pixels()}, "only one of x_test and y_test"),
    ],
)
def test_unusable_arrays_are_refused(save, arrays, message):
    with pytest.raises(DataError, match=r"own.*" + message):
        load(save(**arrays))


def test_nothing_is_trained_where_a_class_has_no_image(save):
    with pytest.raises(DataError, match="own has no training image of 'd'"):
        load(save(class_names=["a", "b", "c", "d"])).check_trainable()


def test_other_array_names_are_listed(tmp_path):
    np.savez(tmp_path / "o.npz", data=pixels(), target=labels())
    with pytest.raises(DataError, match="holds data, target, but not both x_train"):
        load(tmp_path / "o.npz")


class Boom:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(np.array([Boom()]), allow_pickle=True), "type object"),
        (header_of((10**6, 1000, 1000)), "does not match"),
        (header_of((12, 4, 3)) + bytes(143), "does not match"),
        (header_of((12, 4, 3)) + bytes(145), "does not match"),
        (header_of((-12, -4, 3)) + bytes(144), "does not match"),
        (header_of((1, 0)) + bytes(10), "does not match"),
        (header_of((10**30, 10**30)), "does not match"),
        (header_of((12,), "<U0"), "does not match"),
        (header_of((1,), "<U99999999"), "does not match"),
        (header("{" + "'a':1," * 3000 + "}"), "no valid NumPy header"),
        (b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + bytes(2**22), "no valid NumPy header"),
        (header("(" * 5000), "no valid NumPy header"),
        (header("__import__('os').abort()"), "no valid NumPy header"),
        (header_of((12, 4, 3), ()) + bytes(144), "no valid NumPy header"),
        (header_of((12, 4, 3), []) + bytes(144), "only plain numbers"),
        (header_of((True, True, True)) + bytes(1), "no valid NumPy header"),
        (header_of((1.0, 1, 1)) + bytes(1), "no valid NumPy header"),
        (header_of((12, 4), "<U1") + struct.pack("<I", 0x110000) * 48, "characters that do not exist"),
        (header_of((12, 4), ">U1") + struct.pack(">I", 0xFFFFFFFF) * 48, "characters that do not exist"),
        (b"\x93NUMPY\3\0" + bytes(100), "version"),
        (b"not numpy", "no valid NumPy header"),
        (b"", "no valid NumPy header"),
    ],
)
def test_members_that_misstate_their_content_are_refused(pack, member, message):
    with pytest.raises(DataError, match=r"bad\.npz, x_train.*" + message):
        load(pack(member))


def test_a_member_that_claims_an_impossible_size_is_refused(pack):
    path = pack(header_of((2**40,)), compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    struct.pack_into("<I", data, entry + 24, 2**31)  # the size that the central directory claims
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="claims 2,147,483,648 bytes"):
        load(path)


def test_a_decompression_bomb_takes_no_memory(pack, save, peak_memory):
    bomb = pack(header_of((12, 4, 3)) + bytes(128 * 2**20))
    assert bomb.stat().st_size < 2**20
    attempt = "import sys, foveola.datasets as d\ntry: d.load(sys.argv[1])\nexcept d.DataError as error: print(error)"
    assert peak_memory(attempt, bomb) < peak_memory(attempt, save()) + 16 * 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(pack, method):
    with pytest.raises(DataError, match="uses a compression that NumPy does not write"):
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


def test_names_of_members_that_are_not_utf_8_are_refused(save):
    path = save()
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 9] |= 8  # the names are UTF-8
    data[entry + 46] = 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"own\.npz cannot be read as NPZ"):
        load(path)


def test_a_damaged_member_is_refused(pack):
    path = pack(npy(pixels()), compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="Bad CRC"):
        load(path)


@pytest.fixture
def kuzushiji(tmp_path, monkeypatch):
    """Entry of Kuzushiji-49 whose published files are toy files in `tmp_path`."""
    for split, seed in (("train", 0), ("test", 1)):
        np.savez_compressed(tmp_path / f"k49-{split}-imgs.npz", pixels(49, seed=seed))
        np.savez_compressed(tmp_path / f"k49-{split}-labels.npz", np.arange(49, dtype=np.uint8))
    files = tuple(File(path.name, file_digests(path)[0]) for path in sorted(tmp_path.iterdir()))
    entry = replace(CATALOG["kuzushiji-49"], files=files)
    monkeypatch.setitem(CATALOG, "kuzushiji-49", entry)
    return entry


def test_published_folders_are_identified_by_checksum(kuzushiji, tmp_path):
    for data in (load(tmp_path), npz.read(tmp_path, ReadOptions(), kuzushiji)):
        assert data.name == "kuzushiji-49"
        np.testing.assert_array_equal(data.test.images[..., 0], pixels(49, seed=1))
        assert (data.class_names[0], data.class_names[48]) == ("あ", "ゝ")


def test_other_files_under_the_published_names_are_refused_by_name_and_read_by_path(kuzushiji, tmp_path):
    np.savez_compressed(tmp_path / "k49-train-labels.npz", np.arange(49)[::-1])
    with pytest.raises(DataError, match=r"k49-train-labels\.npz is not the published file of Kuzushiji-49"):
        npz.read(tmp_path, ReadOptions(), kuzushiji)
    assert load(tmp_path).class_names[0] == "0"


def test_incomplete_or_ambiguous_folders_are_refused(tmp_path):
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


def test_a_file_with_another_array_name_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "k-train-imgs.npz", images=pixels())
    np.savez_compressed(tmp_path / "k-train-labels.npz", labels())
    with pytest.raises(DataError, match=r"k-train-imgs\.npz has no array arr_0"):
        load(tmp_path)


def test_weights_of_images_are_read(tmp_path, toy):
    path = tmp_path / "weighted.npz"
    images, labels = toy.train.images, toy.train.labels
    weights = np.linspace(0, 2, 60, dtype=np.float32)
    np.savez(
        path, x_train=images, y_train=labels, weights_train=weights, x_test=images[:9], y_test=labels[:9],
        test_weights=np.arange(9)[:, None],
    )  # fmt: skip
    found = load(path)
    np.testing.assert_array_equal(found.train.weights, weights)
    assert found.test.weights.tolist() == list(range(9))
    np.savez(path, x_train=images, y_train=labels, weights_train=-weights)
    with pytest.raises(DataError, match=r"weighted\.npz, train: Weights must be 0 or more"):
        load(path)
