"""Reader of the digits included in scikit-learn: 1,797 images of 8×8, available without a network."""

import numpy as np

from foveola.datasets.catalog import CATALOG
from foveola.datasets.reader import image_set
from foveola.images import Dataset


def read() -> Dataset:
    """Read the digits, uint8 1797×8×8×1, without a test split; the published values 0 to 16 are scaled to 0 to 255."""
    from sklearn.datasets import load_digits

    entry = CATALOG["digits"]
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    train = image_set(images, bunch.target, entry.class_names, entry.name)
    return Dataset(entry.name, train, flip_safe=entry.flip_safe, licence=entry.licence)
