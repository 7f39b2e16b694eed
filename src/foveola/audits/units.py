"""Units: images that stay on one side of every fold, because they are copies or of one group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.components import join
from foveola.datasets.duplicates import DuplicateGroup, first_copies
from foveola.errors import DataError
from foveola.images import ImageSet

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def find_units(images: ImageSet, learnt: Mask, copies: Sequence[DuplicateGroup], folds: int) -> Indices:
    """A number for each image, N: the same for exact and near copies, and for images of a group.

    Near copies are kept apart where they would leave a class in fewer units than folds: frames of one video of a
    class, say, are all connected. Exact copies never are.

    Parameters
    ----------
    learnt : which images are training images, N
    copies : the groups that `find_duplicates` gives for these images

    Raises
    ------
    DataError
        If the images have groups that are too large for the folds.
    """
    near = np.arange(len(images))
    for copy in copies:
        near[list(copy.members)] = copy.members[0]
    units, without_near = (
        same if images.groups is None else join(images.groups, same) for same in (near, first_copies(images.images))
    )
    labels = images.labels[learnt]
    for label in np.unique(labels):
        count, most = (len(np.unique(numbers[learnt][labels == label])) for numbers in (units, without_near))
        if count < min(folds, most):
            units = without_near
    if images.groups is not None:
        _check_groups(units[learnt], labels, images.class_names, folds)
    return units


def _check_groups(units: Indices, labels: NDArray[np.int64], names: Sequence[str], folds: int) -> None:
    """Refuse training images in too few units."""
    count = len(np.unique(units))
    if count < folds:
        cure = f"Use --folds {count}, or" if count > 1 else "Give"
        raise DataError(
            f"The training images are in {count} group{'s' if count > 1 else ''} (images of a group, and copies of "
            f"them, stay together), which cannot make {folds} folds. {cure} smaller groups, or none."
        )
    for label in np.unique(labels):
        if len(np.unique(units[labels == label])) < 2:
            raise DataError(
                f"All training images of class {names[label]!r} are in one group, so that networks which have not "
                f"seen it have never seen the class. Give the class images of other groups, or audit without groups."
            )
