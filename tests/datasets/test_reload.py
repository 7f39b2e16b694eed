"""Paths of the images in a reloaded image folder."""

import numpy as np
import pytest
from PIL import Image

from foveola.datasets import load
from foveola.datasets.reload import image_paths


@pytest.fixture
def root(tmp_path):
    """Image folder in which the orders of names, numbers and splits differ; one file is damaged."""
    for number, name in enumerate(
        ["test/a/1.png", "train/10/x.png", "train/a/z.png", "train/10/b.png", "test/10/1.png"]
    ):
        path = tmp_path / "digits" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6), number, np.uint8)).save(path)
    (tmp_path / "digits" / "train" / "10" / "a.png").write_bytes(b"not an image")
    return tmp_path / "digits"


def test_every_image_of_a_folder_has_its_path(root):
    data = load(root, skip_bad=1)
    paths = image_paths(root, data)
    assert paths.keys() == {"train", "test"}
    for split in paths:
        images = getattr(data, split).images
        assert len(images) == len(paths[split])
        for image, path in zip(images, paths[split], strict=True):
            with Image.open(path) as file:
                assert (np.asarray(file) == image[..., 0]).all()


def test_a_folder_may_have_the_name_of_the_data_or_of_a_catalog_entry(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    root.rename(root.with_name("pets"))
    assert image_paths("pets", load("pets", skip_bad=1))["test"] == ["pets/test/10/1.png", "pets/test/a/1.png"]
    assert image_paths("digits", load("digits")) == {}


def test_arrays_have_no_paths(toy_npz):
    assert image_paths(toy_npz, load(toy_npz)) == {}
