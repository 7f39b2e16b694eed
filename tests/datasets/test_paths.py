"""Which file an image comes from."""

import numpy as np
import pytest
from PIL import Image

from foveola.datasets import load
from foveola.datasets.paths import image_paths


@pytest.fixture
def root(tmp_path):
    """Folders in which the order of names, of numbers and of splits differ; one file is broken."""
    for number, name in enumerate(
        ["test/a/1.png", "train/10/x.png", "train/a/z.png", "train/10/b.png", "test/10/1.png"]
    ):
        path = tmp_path / "digits" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6), number, np.uint8)).save(path)
    (tmp_path / "digits" / "train" / "10" / "a.png").write_bytes(b"no picture")
    return tmp_path / "digits"


def test_every_image_of_a_folder_has_its_file(root):
    data = load(root, skip_bad=1)
    paths = image_paths(root, data)
    assert paths.keys() == {"train", "test"}
    for split in paths:
        images = getattr(data, split).images
        assert len(images) == len(paths[split])
        for image, path in zip(images, paths[split], strict=True):
            with Image.open(path) as picture:
                assert (np.asarray(picture) == image[..., 0]).all()


def test_a_folder_may_be_called_like_the_data_or_like_a_known_name(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    root.rename(root.with_name("pets"))
    assert image_paths("pets", load("pets", skip_bad=1))["test"] == ["pets/test/10/1.png", "pets/test/a/1.png"]
    assert image_paths("digits", load("digits")) == {}


def test_arrays_have_no_files(toy_npz):
    assert image_paths(toy_npz, load(toy_npz)) == {}
