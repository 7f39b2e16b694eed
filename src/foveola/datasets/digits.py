"""The digits that come inside scikit-learn: 1,797 images of 8×8, for a first run without any network."""

import numpy as np

from foveola.datasets.catalog import CATALOG
from foveola.datasets.reader import labelled
from foveola.images import Dataset


def read() -> Dataset:
    """The embedded digits, uint8 1797×8×8×1 (published values 0 to 16, scaled to 0 to 255); no test split."""
    from sklearn.datasets import load_digits

    entry = CATALOG["digits"]
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    train = labelled(images, bunch.target, entry.class_names, entry.name)
    return Dataset(entry.name, train, flip_safe=entry.flip_safe, licence=entry.licence)
