"""Image folders come from the cache while they are unchanged, and never otherwise."""

import os
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets import folder, folder_cache
from foveola.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEOLA_FOLDER_CACHE", "1")
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number // 4}_{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (80, 70 + number, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pets"


@pytest.fixture
def reads(monkeypatch):
    """How often the folder itself was read."""
    calls, read = [], folder.read
    monkeypatch.setattr(folder, "read", lambda *arguments: (calls.append(1), read(*arguments))[1])
    return calls


@pytest.mark.parametrize("options", [{}, {"groups": r"(\d)_"}, {"image_size": (8, 9), "resize": "letterbox"}])
def test_a_folder_is_read_once(options, pictures, cache, reads):
    first, second = (foveola.load(pictures, **options) for _ in range(2))
    assert len(reads) == 1
    assert first.fingerprint == second.fingerprint
    for field in fields(first):
        if field.name not in ("train", "validation", "test", "originals"):
            assert getattr(first, field.name) == getattr(second, field.name), field.name
    np.testing.assert_array_equal(first.originals.widths, second.originals.widths)
    assert (first.train.groups is None) == (second.train.groups is None)


def test_every_change_is_seen(pictures, cache, reads):
    file = pictures / "cat" / "0_00.png"

    def rename():
        file.rename(file.with_name("0_99.png"))

    def touch():
        os.utime(pictures / "dog" / "0_01.png", ns=(1, 1))

    def add():
        Image.new("RGB", (70, 80)).save(pictures / "dog" / "new.png")

    def remove():
        (pictures / "dog" / "new.png").unlink()

    def new_class():
        (pictures / "emu").mkdir()
        Image.new("RGB", (70, 80)).save(pictures / "emu" / "new.png")

    foveola.load(pictures)
    for number, change in enumerate((touch, rename, add, remove, new_class)):
        change()
        found = foveola.load(pictures)
        assert len(reads) == number + 2, change.__name__
        assert found.fingerprint == folder.read(pictures, folder_cache.ReadOptions()).fingerprint
        del reads[number + 2 :]
        assert len(list(cache.iterdir())) == 1  # what the folder was before is removed


def test_faults_are_not_kept(pictures, cache):
    (pictures / "cat" / "broken.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match="1 file cannot be used"):
            foveola.load(pictures)
    assert foveola.load(pictures, skip_bad=1).skipped == foveola.load(pictures, skip_bad=1).skipped != ()
    with pytest.raises(DataError, match="1 file cannot be used"):
        foveola.load(pictures)


def test_damage_in_the_cache_is_as_if_there_were_none(pictures, cache, reads):
    expected = foveola.load(pictures).fingerprint
    for path in next(cache.iterdir()).iterdir():
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
        assert foveola.load(pictures).fingerprint == expected
    assert len(reads) > 2


def test_a_cache_that_cannot_be_written_is_no_error(pictures, cache, reads):
    cache.parent.write_text("a file where the cache should be")
    assert foveola.load(pictures).fingerprint == foveola.load(pictures).fingerprint
    assert len(reads) == 2


def test_the_cache_can_be_turned_off(pictures, cache, monkeypatch):
    monkeypatch.setenv("FOVEOLA_FOLDER_CACHE", "0")
    foveola.load(pictures)
    assert not cache.exists()


def test_the_least_used_folders_make_room(pictures, cache, monkeypatch):
    size = foveola.load(pictures, image_size=16).train.images.size
    (first,) = cache.iterdir()
    monkeypatch.setattr(folder_cache, "MAX_BYTES", int(2.9 * size) + 3000)
    foveola.load(pictures, image_size=(16, 17))
    os.utime(first)  # used
    (second,) = set(cache.iterdir()) - {first}
    os.utime(second, ns=(1, 1))
    foveola.load(pictures, image_size=(17, 16))
    assert first.exists()
    assert not second.exists()
    monkeypatch.setattr(folder_cache, "MAX_FOLDER_BYTES", 10)
    before = sorted(cache.iterdir())
    foveola.load(pictures, image_size=20)
    assert sorted(cache.iterdir()) == before


def test_only_packed_files_are_removed_from_the_cache(pictures, cache):
    foveola.load(pictures)
    (first,) = cache.iterdir()
    (first / "mine.txt").write_text("")
    os.utime(pictures / "cat" / "0_00.png", ns=(1, 1))
    foveola.load(pictures)
    assert [path.name for path in first.iterdir()] == ["mine.txt"]


def test_abandoned_temporary_folders_are_removed(pictures, cache):
    (cache / ".abandoned").mkdir(parents=True)
    (cache / ".recent").mkdir()
    os.utime(cache / ".abandoned", (1, 1))
    foveola.load(pictures)
    assert not (cache / ".abandoned").exists()
    assert (cache / ".recent").exists()
