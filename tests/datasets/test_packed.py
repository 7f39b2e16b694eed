"""Packed data sets: the same data, read into memory or image by image; damage is named."""

import json
import os
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import foveola
from foveola.datasets import packed
from foveola.datasets.packed import FILES, Pack
from foveola.datasets.splits import Splits, divide
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet, polarity
from foveola.inputs.checks import compute_statistics
from foveola.lazy import as_lazy, blocks
from foveola.models.learnt import hash_images


def some_data(channels=3, count=60):
    random_numbers = np.random.default_rng(0)
    images = random_numbers.integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    images[7] = images[3]
    names, groups = ("a", "b", "c"), np.arange(count) // 2
    weights = np.linspace(0, 3, count - 20)
    train = ImageSet(images[: count - 20], np.arange(count - 20) % 3, names, groups[: count - 20], weights)
    test = ImageSet(images[count - 20 :], np.arange(20) % 3, names)
    return Dataset("some", train, test=test, flip_safe=True, licence="CC0", notes=("a note",), skipped=("x.png",))


@pytest.fixture
def pack(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    packed.write(folder, some_data(), groups="folder", flush=False)
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_packed_is_read_again(channels, in_memory, tmp_path):
    data = some_data(channels)
    packed.write(tmp_path, data, flush=False)
    found = Pack.open(tmp_path).load(in_memory=in_memory)
    assert found.fingerprint == data.fingerprint
    assert (found.name, found.class_names, found.notes, found.skipped) == (
        data.name, data.class_names, data.notes, data.skipped,
    )  # fmt: skip
    assert (found.flip_safe, found.licence, found.validation) == (True, "CC0", None)
    for name, images in Splits.of(data).by_name.items():
        own = Splits.of(found).by_name[name]
        np.testing.assert_array_equal(own.images[:], images.images)
        np.testing.assert_array_equal(own.labels, images.labels)
        np.testing.assert_array_equal(hash_images(own.images), hash_images(images.images))
        assert (own.groups is None) == (images.groups is None)
    np.testing.assert_array_equal(found.train.groups, data.train.groups)
    assert as_lazy(found.train.images) is None if in_memory else as_lazy(found.train.images) is not None


def test_numpy_reads_the_files(pack):
    data = some_data()
    np.testing.assert_array_equal(
        np.load(pack / "images.npy", mmap_mode="r"), np.concatenate([data.train.images, data.test.images])
    )
    assert np.load(pack / "labels.npy").tolist() == [*data.train.labels.tolist(), *data.test.labels.tolist()]


def test_packing_twice_gives_the_same_bytes(pack, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    packed.write(again, Pack.open(pack).load(in_memory=False), groups="folder", flush=False)
    assert {name: (again / name).read_bytes() for name in FILES} == {name: (pack / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(
    "index", [3, -1, slice(None), slice(2, 9), slice(None, None, 7), [5, 5, 0], np.arange(40)[::-1], np.arange(40) > 20]
)
def test_lazy_images_are_indexed_as_arrays(index, pack):
    data = some_data()
    lazy = Pack.open(pack).load(in_memory=False).train.images
    np.testing.assert_array_equal(lazy[index], data.train.images[index])
    np.testing.assert_array_equal(lazy.select(np.arange(5, 30))[2:4], data.train.images[7:9])


def test_what_depends_on_all_images_is_the_same_in_parts(pack, monkeypatch):
    data, lazy = some_data(), Pack.open(pack).load(in_memory=False)
    monkeypatch.setattr("foveola.lazy.MAX_BLOCK_BYTES", 1000)  # eleven images
    assert len(list(blocks(lazy.train.images))) > 3
    assert data.train.take(range(3, 33)).fingerprint == lazy.train.take(range(3, 33)).fingerprint
    assert polarity(lazy.train.images) == polarity(data.train.images)
    assert compute_statistics(lazy.train.images) == compute_statistics(data.train.images)
    both = [divide(each, 0.2, 0.2, seed=1) for each in (data, lazy)]
    for name, images in both[0][0].by_name.items():
        assert images.fingerprint == both[1][0].by_name[name].fingerprint
    assert both[0][1].different == both[1][1].different
    assert Splits.of(lazy).together.fingerprint == Splits.of(data).together.fingerprint


def test_nothing_reads_all_of_a_lazy_data_set_by_accident(pack):
    lazy = Pack.open(pack).load(in_memory=False).train.images
    for use in (np.asarray, lambda images: np.concatenate([images, images]), np.mean):
        with pytest.raises(DataError, match="in memory at once"):
            use(lazy)


def test_only_what_fits_is_read_into_memory(pack, monkeypatch):
    assert as_lazy(foveola.load(pack).train.images) is None
    monkeypatch.setattr(packed, "MAX_IN_MEMORY", 100)
    large = foveola.load(pack)
    assert as_lazy(large.train.images) is not None
    smaller = foveola.load(pack, image_size=3, channels=1)
    assert smaller.image_shape == (3, 3, 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(
        smaller.train.images[4:9], foveola.load(pack, image_size=3, channels=1).train.images[4:9]
    )


def test_other_groups_than_those_packed_are_refused(pack):
    assert foveola.load(pack, groups="folder").train.groups is not None
    with pytest.raises(DataError, match="Pack the images again with --groups"):
        foveola.load(pack, groups="(x)")


def test_an_audit_of_lazy_images_is_refused_by_name(pack, monkeypatch, tmp_path):
    monkeypatch.setattr(packed, "MAX_IN_MEMORY", 100)
    with pytest.raises(DataError, match="audit compares all images"):
        foveola.audit(pack, out=tmp_path / "audit", verbose=False)


# Damage


def reseal(pack, change):
    """Change pack.json as somebody does who also corrects its checksum."""
    document = json.loads((pack / "pack.json").read_text())
    change(document)
    document["sha256"] = document.pop("sha256", None) and packed._UNSET
    content = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    found = packed._CHECKSUM.search(content)
    digest = packed._info_digest(content, found).encode()
    (pack / "pack.json").write_bytes(content[: found.start(1)] + digest + content[found.end(1) :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.update(image_shape=[6, 5, 2]), "2 channels"),
        (lambda d: d.update(image_shape=[60000, 60000, 3]), "bytes instead of"),
        (lambda d: d.update(image_shape=[-6, -5, 3]), "image_shape"),
        (lambda d: d.update(image_shape=[5, 6, 3]), "does not begin as an array"),
        (lambda d: d["splits"]["train"].update(images=10**11), "bytes instead of"),
        (lambda d: d["splits"]["train"].update(images=10**30), "images"),
        (lambda d: d["splits"]["train"].update(images=39), "bytes instead of"),
        (lambda d: d["splits"]["train"].update(grouped=False), "images.npy|bytes|groups"),
        (lambda d: d["splits"].pop("train"), "no training split"),
        (lambda d: d["splits"].update({"../x": d["splits"]["test"]}), "splits"),
        (lambda d: d.update(name="../../x"), "name"),
        (lambda d: d.update(class_names=["a", "a", "b"]), "unique"),
        (lambda d: d.update(class_names=["a"]), "must be between 0 and 0"),
        (lambda d: d.update(class_names=["a", "b", "d"]), "does not hold the images"),
        (lambda d: d["files"].update({"labels.npy": "0" * 64}), "SHA-256 differs"),
        (lambda d: d["files"].clear(), "SHA-256 differs"),
        (lambda d: d.update(extra=1), "extra"),
    ],
)
def test_descriptions_that_lie_are_refused(change, message, pack):
    reseal(pack, change)
    if message == "images.npy|bytes|groups":
        assert foveola.load(pack).train.groups is None  # the file is then not looked at
        return
    with pytest.raises(DataError, match=message):
        foveola.load(pack)


@pytest.mark.parametrize("name", FILES)
def test_missing_exchanged_linked_and_cut_files_are_refused(name, pack, tmp_path):
    original = (pack / name).read_bytes()
    if name != "pack.json":
        (pack / name).unlink()
        with pytest.raises(DataError, match=f"{name} is missing"):
            foveola.load(pack)
    (tmp_path / "elsewhere").write_bytes(original)
    (pack / name).unlink(missing_ok=True)
    (pack / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{name} is a link"):
        foveola.load(pack)
    (pack / name).unlink()
    os.mkfifo(pack / name)
    with pytest.raises(DataError, match=r"not packed completely|is a link or not a file|does not exist|no class"):
        foveola.load(pack)
    (pack / name).unlink()
    for content in (original[:-1], original + b"\0", original[: len(original) // 2], b"", original[::-1]):
        (pack / name).write_bytes(content)
        with pytest.raises(DataError, match=re.escape(name)):
            foveola.load(pack)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_seen(name, pack):
    content = bytearray((pack / name).read_bytes())
    for position in range(0, len(content), max(len(content) // 40, 1)):
        content[position] ^= 1 << position % 8
        (pack / name).write_bytes(content)
        with pytest.raises(DataError, match=re.escape(name)):
            foveola.load(pack)
        content[position] ^= 1 << position % 8


def test_damage_of_a_large_data_set_is_found_by_verify(pack):
    Pack.open(pack).verify()
    content = bytearray((pack / "images.npy").read_bytes())
    content[-1] ^= 4
    (pack / "images.npy").write_bytes(content)
    Pack.open(pack).load(in_memory=False)
    with pytest.raises(DataError, match="does not hold the images that were packed"):
        Pack.open(pack).verify()


def test_a_file_that_is_cut_off_while_it_is_read_is_a_message(pack):
    lazy = Pack.open(pack).load(in_memory=False).train.images
    os.truncate(pack / "images.npy", 500)
    with pytest.raises(DataError, match="has become shorter"):
        lazy[30:]


def mutate(content: bytes, source: random.Random) -> bytes:
    """Content with one to three faults: bits, cuts, repetitions, numbers in texts."""
    changed = bytearray(content)
    for _ in range(source.randint(1, 3)):
        place, other = (source.randrange(len(changed) + 1) for _ in range(2))
        match source.randrange(5):
            case 0 if changed:
                changed[min(place, len(changed) - 1)] ^= 1 << source.randrange(8)
            case 1:
                del changed[place : place + source.randint(1, 40)]
            case 2:
                changed[place:place] = changed[other : other + source.randint(1, 40)]
            case 3:
                changed[place:place] = source.choice([b"9" * 400, b"[" * 2000, b"\xff", b"-1", b"1e999", b"null", b'"'])
            case _:
                del changed[place:]
    return bytes(changed)


def fuzz(pack: Path, executions: int, seed: int) -> None:
    """Load altered packs; each is refused with a message, or gives the data that was packed."""
    source = random.Random(seed)  # noqa: S311
    expected = foveola.load(pack).fingerprint
    whole = {name: (pack / name).read_bytes() for name in FILES}
    for _ in range(executions):
        name = source.choice(FILES)
        content = mutate(whole[name], source)
        (pack / name).write_bytes(content)
        if name == "pack.json" and source.random() < 0.7 and (found := packed._CHECKSUM.search(content)):
            digest = packed._info_digest(content, found).encode()
            (pack / name).write_bytes(content[: found.start(1)] + digest + content[found.end(1) :])
        try:
            assert foveola.load(pack).fingerprint == expected
        except DataError as error:
            assert str(pack) in str(error)
        (pack / name).write_bytes(whole[name])


def test_altered_packs_are_refused(pack):
    fuzz(pack, 600, seed=0)


@pytest.mark.slow
def test_many_altered_packs_are_refused(pack):
    fuzz(pack, 50_000, seed=1)


def test_a_pack_that_was_interrupted_is_named(tmp_path):
    (tmp_path / "pack" / packed.UNFINISHED).mkdir(parents=True)
    with pytest.raises(DataError, match="not packed completely"):
        foveola.load(tmp_path / "pack")
    shutil.rmtree(tmp_path / "pack")


@pytest.mark.parametrize("in_memory", [True, False])
def test_weights_are_packed(in_memory, tmp_path):
    data = some_data()
    info = packed.write(tmp_path, data, flush=False)
    assert [split.weighted for split in info.splits.values()] == [True, False]
    found = Pack.open(tmp_path).load(in_memory=in_memory)
    np.testing.assert_array_equal(found.train.weights, data.train.weights)
    assert found.test.weights is None
    assert found.fingerprint == data.fingerprint != replace(data, train=replace(data.train, weights=None)).fingerprint
    Pack.open(tmp_path).verify()
