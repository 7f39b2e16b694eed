"""The reader of HDF5 files: what it reads equals what h5py reads; damage and what Keras never writes are refused."""

import io
import random

import h5py
import numpy as np
import pytest

from foveola.models.hdf5 import Hdf5File, UnsafeHdf5
from keras_cases import MODELS, NAMES, read_members

KERNEL = "layers/dense/vars/0"


def content_of(name):
    path = MODELS / name
    return path.read_bytes() if path.suffix == ".h5" else read_members(path)["model.weights.h5"]


def hdf5(fill, **settings):
    content = io.BytesIO()
    with h5py.File(content, "w", **settings) as file:
        fill(file)
    return content.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_read_as_h5py_reads_it(name):
    content = content_of(name)
    ours = Hdf5File(content)
    found = {}
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(lambda path, item: found.update({path: item[()]}) if isinstance(item, h5py.Dataset) else None)
        texts = dict(file.attrs)
    assert set(ours.arrays) == set(found)
    floats = {path: values for path, values in found.items() if values.dtype.kind == "f"}
    assert len(floats) >= 2
    for path, values in floats.items():
        np.testing.assert_array_equal(ours.array(path), values)
    assert {key: ours.text("", key) for key in texts} == texts
    assert ours.text("", "missing") is None


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
def test_floats_of_each_size_and_scalars(kind):
    values = np.linspace(-2, 2, 24).reshape(2, 3, 4).astype(kind)
    ours = Hdf5File(hdf5(lambda file: file.update({"a/b": values, "one": values[0, 0, 0]})))
    assert ours.array("a/b").dtype == kind
    np.testing.assert_array_equal(ours.array("a/b"), values)
    assert ours.array("one").shape == ()


def test_a_group_of_many_members_and_a_long_text():
    """Their tree has several levels, and the text lies in a collection of its own."""

    def fill(file):
        file.attrs["text"] = "ä" * 50_000
        file.attrs["fixed"] = np.bytes_("fixed")
        for number in range(2000):
            file[f"group/{number}"] = np.float32(number)

    ours = Hdf5File(hdf5(fill))
    assert [float(ours.array(f"group/{number}")) for number in range(2000)] == list(range(2000))
    assert (ours.text("", "text"), ours.text("", "fixed")) == ("ä" * 50_000, "fixed")


def soft_loop(file):
    file["a/b"] = h5py.SoftLink("/a")


def hard_loop(file):
    file["a/b"] = np.zeros(2, np.float32)
    file["a/loop"] = file["a"]


def external_link(file):
    file["a"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_storage(file):
    file.create_dataset("a", (4,), "<f4", external=[("/etc/passwd", 0, 16)])


def named_type(file):
    file["type"] = np.dtype("<f4")
    file.create_dataset("a", (4,), file["type"])


STRANGE = {
    "soft link": (soft_loop, "soft link, a/b"),
    "hard link that loops": (hard_loop, "loop of links"),
    "external link": (external_link, "an external link, to another file"),
    "external storage": (external_storage, "another file \\(external storage\\)"),
    "compressed": (lambda file: file.create_dataset("a", (9, 9), "<f4", compression="gzip"), "compresses or filters a"),
    "chunked": (lambda file: file.create_dataset("a", (9, 9), "<f4", chunks=(3, 3)), "keeps a in chunks"),
    "shared type": (named_type, "shares a part of a|does not write"),
    "integers": (lambda file: file.update({"a": np.arange(3)}), "not of floats"),
    "other byte order": (lambda file: file.update({"a": np.arange(3, dtype=">f4")}), "not of floats"),
    "texts": (lambda file: file.update({"a": "text"}), "not of floats"),
    "records": (lambda file: file.update({"a": np.zeros(2, "f4,f4")}), "not of floats"),
    "references": (lambda file: file.create_dataset("a", (2,), h5py.ref_dtype), "not of floats|no values"),
    "no values": (lambda file: file.create_dataset("a", (3,), "<f4"), "a has no values"),
    "empty": (lambda file: file.update({"a": np.zeros((0, 3), np.float32)}), "array of the shape \\(0, 3\\)"),
}


@pytest.mark.parametrize(("fill", "message"), STRANGE.values(), ids=STRANGE.keys())
def test_what_keras_never_writes_is_refused_by_name(fill, message):
    with pytest.raises(UnsafeHdf5, match=message):
        Hdf5File(hdf5(fill)).array("a")


def test_newer_forms_of_the_format_are_refused():
    with pytest.raises(UnsafeHdf5, match="newer or another layout"):
        Hdf5File(hdf5(lambda file: file.update({"a": np.zeros(3)}), libver="latest"))


def test_a_shape_that_the_file_does_not_hold_is_refused():
    """The kernel of 36×3 floats claims two thousand million rows."""
    content = bytearray(content_of("keras3-rows.keras"))
    place = content.index((36).to_bytes(8, "little") + (3).to_bytes(8, "little"))
    content[place : place + 8] = (2_000_000_000).to_bytes(8, "little")
    with pytest.raises(UnsafeHdf5, match=r"claims the shape \(2000000000, 3\), but holds 432 bytes"):
        Hdf5File(bytes(content)).array(KERNEL)


def test_a_file_truncated_anywhere_is_refused_or_read_the_same():
    content = content_of("keras3-rows.h5")
    path = next(path for path in Hdf5File(content).arrays if path.endswith("kernel"))
    whole = Hdf5File(content).array(path)
    for length in range(0, len(content), 97):
        try:
            found = Hdf5File(content[:length]).array(path)
        except UnsafeHdf5:
            continue
        np.testing.assert_array_equal(found, whole)


def test_damaged_files_are_refused_or_read_within_bounds():
    """2,000 files with some bytes changed: no other exception, and no work without end."""
    original = content_of("keras3-rows.h5")
    for seed in range(2000):
        draw = random.Random(seed)  # noqa: S311 - no secret
        content = bytearray(original)
        for _ in range(draw.choice((1, 2, 8))):
            place = draw.randrange(len(content) if draw.random() < 0.5 else 4096)
            size = min(draw.choice((1, 2, 4, 8)), len(content) - place)
            content[place : place + size] = bytes(
                draw.choice((0, 1, 127, 255, draw.randrange(256))) for _ in range(size)
            )
        try:
            file = Hdf5File(bytes(content))
            for path in file.arrays:
                file.array(path)
            file.text("", "model_config")
        except UnsafeHdf5:
            continue
