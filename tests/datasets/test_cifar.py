"""CIFAR-10 reader: extracted files and the published archive."""

import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from foveola.datasets import CATALOG, cifar, load
from foveola.datasets.entry import File, file_digests
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError

NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def batch(seed):
    generator = np.random.default_rng(seed)
    return np.arange(10, dtype=np.uint8), generator.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def extracted(tmp_path):
    folder = tmp_path / "extracted"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        labels, images = batch(seed)
        records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(10, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
    return folder


@pytest.fixture
def archive(tmp_path, extracted):
    folder = tmp_path / "cifar-10"
    folder.mkdir()
    (extracted / "readme.html").write_text("ignored")
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as opened:
        opened.add(extracted, "cifar-10-batches-bin")
    return folder


def entry_for(folder):
    published = File("cifar-10-binary.tar.gz", *file_digests(folder / "cifar-10-binary.tar.gz"))
    return replace(CATALOG["cifar-10"], files=(published,))


def check(data):
    assert (data.name, len(data.train), len(data.test), data.flip_safe) == ("cifar-10", 50, 10, True)
    np.testing.assert_array_equal(data.train.images[40:], batch(4)[1])
    np.testing.assert_array_equal(data.test.images, batch(5)[1])
    assert data.train.labels.tolist() == list(range(10)) * 5
    assert data.class_names[:2] == ("airplane", "automobile")


def test_extracted_files_are_read(extracted):
    check(load(extracted))


def test_the_archive_is_read_without_extracting_it(archive):
    check(cifar.read(archive, ReadOptions(), entry_for(archive)))
    assert len(list(archive.iterdir())) == 1


def test_an_archive_with_another_checksum_is_refused(archive):
    with pytest.raises(DataError, match="is not the published file of CIFAR-10"):
        cifar.read(archive, ReadOptions(), CATALOG["cifar-10"])


@pytest.mark.parametrize("keep", [0, 100, -2000])
def test_a_truncated_archive_is_refused(archive, keep):
    path = archive / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz cannot be read"):
        cifar.read(archive, ReadOptions(), entry_for(archive))


def test_an_archive_without_a_member_is_refused(archive):
    with tarfile.open(archive / "cifar-10-binary.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"lacks data_batch_1\.bin"):
        cifar.read(archive, ReadOptions(), entry_for(archive))


@pytest.mark.parametrize(("name", "size"), [("data_batch_2.bin", 3072), ("test_batch.bin", 0)])
def test_files_of_the_wrong_size_are_refused(extracted, name, size):
    (extracted / name).write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"{name} has {size:,} bytes"):
        load(extracted)


def test_a_missing_file_is_named(extracted):
    (extracted / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin cannot be read"):
        load(extracted)


def test_labels_out_of_range_are_refused(extracted):
    (extracted / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match="test: Labels run from 10 to 10"):
        load(extracted)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_refused_without_being_opened(extracted):
    (extracted / NAMES[2]).unlink()
    os.mkfifo(extracted / NAMES[2])
    with pytest.raises(DataError, match=r"data_batch_3\.bin is not a regular file"):
        load(extracted)
