"""Small data under the names of the tutorials' data sets."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from foveola.datasets import CATALOG

# Images file, labels file, images per class
IDX_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 20),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 5),
)
NAMES = ("mnist", "fashion-mnist", "kmnist")


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """200 training and 50 test images under each name, as IDX files: ten classes of bright rectangles, with noise."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(NAMES):
        (root / name).mkdir()
        generator = np.random.default_rng(number)
        for images_name, labels_name, per_class in IDX_FILES:
            labels = generator.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
            images = generator.integers(0, 60, (len(labels), 28, 28), dtype=np.uint8)
            for image, label in zip(images, labels, strict=True):
                row, column = divmod(int(label), 4)
                image[3 + 8 * row : 9 + 8 * row, 1 + 7 * column : 6 + 7 * column] += 180
            (root / name / images_name).write_bytes(idx(images))
            (root / name / labels_name).write_bytes(idx(labels))
    return root


@pytest.fixture
def small_catalog(small_data, tmp_path, monkeypatch):
    """The catalog accepts the small files as the published ones."""
    monkeypatch.setenv("FOVEOLA_DATA", str(small_data))
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "no-cache"))
    for name in NAMES:
        entry = CATALOG[name]
        files = []
        for file in entry.files:
            content = (small_data / name / file.name.removesuffix(".gz")).read_bytes()
            files.append(replace(file, content_sha256=hashlib.sha256(content).hexdigest()))
        monkeypatch.setitem(CATALOG, name, replace(entry, files=tuple(files)))
