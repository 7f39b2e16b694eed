"""Reader of the embedded digits: 1,797 images of 8×8, available without a network."""

from importlib import resources

import numpy as np

from foveola.datasets.catalog import CATALOG
from foveola.datasets.reader import image_set
from foveola.images import Dataset

# Images, uint8 1797×8×8 from 0 to 16, and labels, uint8 1797, as scikit-learn distributes them
FILE = "digits.npz"


def read() -> Dataset:
    """Read the digits, uint8 1797×8×8×1, without a test split; the published values 0 to 16 are scaled to 0 to 255."""
    entry = CATALOG["digits"]
    with (resources.files("foveola.datasets") / FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    images = np.rint(images * (255 / 16)).astype(np.uint8)[..., None]
    train = image_set(images, labels, entry.class_names, entry.name)
    return Dataset(entry.name, train, flip_safe=entry.flip_safe, licence=entry.licence)
