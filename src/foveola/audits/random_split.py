"""What a random split would do to copies of an image: expected numbers, computed exactly."""

from collections.abc import Sequence

import numpy as np

from foveola.datasets.duplicates import DuplicateGroup
from foveola.images import Labels
from foveola.stratified import target_counts


def expected_leaks(labels: Labels, groups: Sequence[DuplicateGroup], fraction: float) -> tuple[float, float]:
    """What falls on both sides of a split that is random within each class, as `ImageSet.split` draws it.

    Parameters
    ----------
    labels : class of each image, N
    groups : copies among these images
    fraction : fraction of each class that is held out, such as 0.2

    Returns
    -------
    (groups, images) : expected number of groups on both sides, and of held-out images with a copy that is not held out

    Notes
    -----
    The held-out copies of a class are hypergeometric; classes are independent.

    Examples
    --------
    >>> expected_leaks(np.zeros(10, int), [DuplicateGroup((3, 7), True)], 0.2)  # 2 · 2/10 · 8/9
    (0.3555555555555556, 0.3555555555555556)
    """
    from scipy.stats import hypergeom

    sizes = np.bincount(labels)
    held_out = target_counts(sizes, fraction)
    both_sides = images = 0.0
    for group in groups:
        copies = np.bincount(labels[list(group.members)], minlength=len(sizes))
        present = copies > 0
        drawn = hypergeom(sizes[present], copies[present], held_out[present])
        none, every = float(drawn.pmf(0).prod()), float(drawn.pmf(copies[present]).prod())
        both_sides += 1 - none - every
        images += float((copies[present] * held_out[present] / sizes[present]).sum()) - every * len(group.members)
    return both_sides, images
