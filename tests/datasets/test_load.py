"""Loading by name and by path, image sizes and channels, consistency of the catalog."""

import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from foveola.datasets import CATALOG, READERS, load, locate
from foveola.datasets.download import cache_folder
from foveola.errors import DataError


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setenv("FOVEOLA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))


def test_digits_are_those_of_scikit_learn():
    data = load("digits")
    assert (data.name, len(data.train), data.test, data.image_shape) == ("digits", 1797, None, (8, 8, 1))
    np.testing.assert_array_equal(data.train.images[..., 0], np.rint(load_digits().images / 16 * 255))
    np.testing.assert_array_equal(data.train.labels, load_digits().target)
    assert not data.flip_safe


def test_arrays_are_resized_and_converted():
    plain = load("digits").train
    data = load("digits", image_size=(12, 10), channels=3)
    assert data.image_shape == (12, 10, 3)
    np.testing.assert_array_equal(data.train.labels, plain.labels)
    np.testing.assert_array_equal(data.train.images[..., 0], data.train.images[..., 2])
    assert load("digits", image_size=8).fingerprint == load("digits").fingerprint


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_unsupported_channels_are_refused(channels):
    with pytest.raises(DataError, match=f"{channels} channels. Choose 1"):
        load("digits", channels=channels)


@pytest.mark.parametrize("size", [0, -3, (4, 0)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(DataError, match="image size of at least 1"):
        load("digits", image_size=size)


@pytest.mark.parametrize(
    ("given", "near"), [("mnst", "mnist"), ("Fashion-MNIST", "fashion-mnist"), ("digit", "digits")]
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(given, near):
    with pytest.raises(DataError, match=f"Unknown data set '{given}'. Did you mean '{near}'?.*no file or folder"):
        load(given)


def test_an_empty_name_is_not_the_working_folder():
    with pytest.raises(DataError, match="name of the data is empty"):
        load("")


def test_a_path_that_does_not_exist_is_not_compared_with_names(tmp_path):
    for path in ("missing.csv", str(tmp_path / "mnst"), "photos/mnist.npz"):
        with pytest.raises(DataError, match=r"There is no file or folder .*\. Check the path\.$"):
            load(path)
    with pytest.raises(DataError, match=r"the name is hf:ylecun/mnist\."):
        load("ylecun/mnist")


def test_a_misspelt_path_is_refused_with_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    (tmp_path / "mnist-labels.csv").touch()
    for given, near in (
        ("shpaes", "shapes"),
        ("mnist-label.csv", "mnist-labels.csv"),
        (str(tmp_path / "shape"), "shapes"),
    ):
        with pytest.raises(DataError, match=rf"There is no file or folder .*\. Did you mean (\S+/)?{near}\?$"):
            load(given)
    with pytest.raises(DataError, match="Did you mean 'fashion-mnist'"):
        load("fashion-mnsit")


def test_only_a_bare_string_is_a_catalog_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load("digits").name == "digits"
    for path in ("./digits", tmp_path / "digits"):
        with pytest.raises(DataError, match="no class folders"):
            load(path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("train-images-idx3-ubyte.gz", "single IDX file; give the folder"),
        ("data.zip", "archive; unpack it"),
        ("data.tar.gz", "archive; unpack it"),
        ("train.csv.gz", "compressed table; unpack it"),
        ("train.xlsx", "table of another kind; save it as CSV"),
        ("cat.JPG", "single image; give a folder"),
        ("data.bin", "in an unsupported format"),
    ],
)
def test_unsupported_files_are_refused_with_advice(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"{re.escape(name)} .*{advice}.*Supported are"):
        load(tmp_path / name)


def test_locate_prefers_the_data_folder_and_needs_all_files(tmp_path):
    assert locate("mnist") is None
    assert locate("digits") is None
    data, cache = tmp_path / "data" / "mnist", tmp_path / "cache" / "mnist"
    files = [file.name for file in CATALOG["mnist"].files]
    for folder in (cache, data):
        folder.mkdir(parents=True)
        for name in files[:3]:
            (folder / name).touch()
        assert locate("mnist") == (None if folder == cache else cache)
        (folder / files[3].removesuffix(".gz")).touch()
        assert locate("mnist") == folder
    with pytest.raises(DataError, match="Did you mean 'kmnist'"):
        locate("kmnst")


def test_locate_finds_shared_archives_and_extracted_files(tmp_path):
    archive = tmp_path / "cache" / "emnist" / "gzip.zip"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert locate("emnist-digits") == locate("emnist-letters") == archive.parent
    extracted = tmp_path / "data" / "emnist-letters"
    extracted.mkdir(parents=True)
    for file in CATALOG["emnist-letters"].members:
        (extracted / file.name.removesuffix(".gz")).touch()
    assert locate("emnist-letters") == extracted


def test_the_cache_folder_can_be_set_by_environment_variable(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FOVEOLA_CACHE")
    assert cache_folder().is_absolute()
    assert "foveola" in cache_folder().parts


def test_a_damaged_file_of_a_named_data_set_is_refused(tmp_path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for file in CATALOG["mnist"].files:
        dimensions = 3 if "images" in file.name else 1
        (folder / file.name.removesuffix(".gz")).write_bytes(
            bytes([0, 0, 8, dimensions]) + b"\0\0\0\1" * dimensions + b"\0"
        )
    with pytest.raises(DataError, match=r"is not the published file of MNIST.*path .* instead of the name 'mnist'"):
        load("mnist")


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_every_entry_is_complete(entry):
    assert CATALOG[entry.name] is entry
    assert len(set(entry.class_names)) == len(entry.class_names) > 1
    assert entry.licence
    assert entry.citation
    assert entry.image_shape[2] in (1, 3)
    if entry.name == "digits":
        return
    assert entry.reader in READERS
    assert len(entry.sources) >= 2
    assert all(source.endswith("/") for source in entry.sources)
    assert entry.files
    for file in entry.files:
        assert re.fullmatch("[0-9a-f]{32}", file.md5)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in (file.sha256, file.content_sha256) if digest)


def test_checksums_are_all_different():
    files = {file for entry in CATALOG.values() for file in entry.files}
    checksums = [digest for file in files for digest in (file.md5, file.sha256, file.content_sha256) if digest]
    assert len(set(checksums)) == len(checksums)


def test_class_counts_and_flips():
    counts = {name: len(entry.class_names) for name, entry in CATALOG.items()}
    assert counts == {
        "digits": 10,
        "mnist": 10,
        "fashion-mnist": 10,
        "kmnist": 10,
        "kuzushiji-49": 49,
        "emnist-letters": 26,
        "emnist-balanced": 47,
        "emnist-digits": 10,
        "emnist-mnist": 10,
        "emnist-byclass": 62,
        "emnist-bymerge": 47,
        "cifar-10": 10,
    }
    assert {name for name, entry in CATALOG.items() if entry.flip_safe} == {"fashion-mnist", "cifar-10"}
    assert CATALOG["kmnist"].class_names == ("お", "き", "す", "つ", "な", "は", "ま", "や", "れ", "を")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, foveola.datasets; "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'pooch', 'requests', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
