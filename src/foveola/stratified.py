"""A random part of labelled images that has every class in proportion, and keeps groups together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError

Indices = NDArray[np.int64]


def target_counts(class_counts: Indices, fraction: float) -> Indices:
    """How many images of each class to hold out, K: one at least, and one is left; of an empty class none."""
    wanted = np.clip(np.round(fraction * class_counts), 1, np.maximum(class_counts - 1, 1))
    targets: Indices = np.where(class_counts > 0, wanted, 0).astype(np.int64)
    return targets


def hold_out(
    labels: NDArray[Any], groups: Indices | None, class_names: Sequence[str], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose a stratified random part. Images of one group stay together; for several labels an image, see
    `hold_out_multilabel`.

    Of every class, round(fraction × its count) images are held out, or as near to it as whole groups come; at least
    one image is held out, and at least one is kept. A group is held out if that brings the classes nearer to their
    targets, in the random order of the groups: the greedy choice of scikit-learn's StratifiedGroupKFold, without its
    order by size, which would favour large groups. Images that stand for themselves fill up.

    Parameters
    ----------
    labels : int64 N, each an index into the K class names; or bool N×K
    groups : int64 N, the same number for images that stay together; None: every image stands for itself
    fraction : fraction to hold out, 0 < fraction < 1
    seed : the same seed gives the same part

    Returns
    -------
    Whether each image is held out, bool N

    Raises
    ------
    DataError
        If a class has a single image, or its images are of a single group: it cannot be in both parts.
    """
    if not 0 < fraction < 1:
        raise DataError(f"The fraction to hold out is {fraction}; it must be between 0 and 1.")
    if labels.ndim == 2:
        return hold_out_multilabel(labels, groups, class_names, fraction, seed)
    generator, class_count = np.random.default_rng(seed), len(class_names)
    class_counts = np.bincount(labels, minlength=class_count)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(group)
    several = np.flatnonzero(sizes > 1)
    single = sizes[group] == 1
    group_counts = np.zeros((len(several), class_count), np.int64)
    member = np.flatnonzero(~single)
    np.add.at(group_counts, (np.searchsorted(several, group[member]), labels[member]), 1)
    single_counts = np.bincount(labels[single], minlength=class_count)
    _check_divisible((group_counts > 0).sum(axis=0) + single_counts, class_counts, class_names)
    chosen = _choose_groups(group_counts, single_counts, fraction, class_names, generator)
    held_out: NDArray[np.bool_] = np.atleast_1d(np.isin(group, several[chosen]))
    missing = target_counts(class_counts, fraction) - group_counts[chosen].sum(axis=0)
    kept = (group_counts[~chosen] > 0).sum(axis=0)
    for label in np.flatnonzero(single_counts):
        least = int(not group_counts[chosen, label].any())
        most = single_counts[label] - int(not kept[label])
        members = np.flatnonzero(single & (labels == label))
        held_out[generator.choice(members, max(least, min(missing[label], most)), replace=False)] = True
    return held_out


def _choose_groups(
    counts: Indices,
    single_counts: Indices,
    fraction: float,
    class_names: Sequence[str],
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which groups are held out, G, of groups with `counts` images of each class, G×K.

    Every class stays in both parts: at least one of its groups, or of the images that stand for themselves.
    """
    targets = fraction * counts.sum(axis=0)
    weights = 1 / np.maximum(targets, 1)
    has = counts > 0
    kept, held = has.sum(axis=0) + single_counts, np.zeros(len(class_names), np.int64)
    chosen: NDArray[np.bool_] = np.zeros(len(counts), bool)

    def growth(group: int) -> float:
        """Change of the weighted squared distance from the targets, if the group is held out."""
        return float(weights @ (counts[group] * (counts[group] + 2 * (held - targets))))

    def is_free(group: int) -> bool:
        return not chosen[group] and not (has[group] & (kept < 2)).any()

    def choose(group: int) -> None:
        nonlocal kept, held
        chosen[group] = True
        kept, held = kept - has[group], held + counts[group]

    order = generator.permutation(len(counts))
    for group in order:
        if growth(group) < 0 and is_free(group):
            choose(group)
    for label in map(int, np.flatnonzero(has.any(axis=0) & (single_counts == 0))):
        if not held[label]:
            free = [group for group in order if has[group, label] and is_free(group)]
            if not free:
                raise DataError(
                    f"Class {class_names[label]!r} cannot be held out: each of its groups is the last one of a class. "
                    f"Make smaller groups, or add images of further groups."
                )
            choose(min(free, key=growth))
    return chosen


def _check_divisible(units: Indices, class_counts: Indices, class_names: Sequence[str]) -> None:
    """Refuse a class, or label, with one unit: a group, or an image that stands for itself."""
    for label in map(int, np.flatnonzero(units == 1)):
        count, name = class_counts[label], class_names[label]
        if count == 1:
            raise DataError(
                f"Class {name!r} has a single image, which cannot be both in the training images and in the held-out "
                f"images. Add images of this class, or remove the class."
            )
        raise DataError(
            f"The {count:,} images of class {name!r} are of a single group, which cannot be both in the training "
            f"images and in the held-out images. Add images of another group, make smaller groups, or remove the class."
        )


def hold_out_multilabel(
    labels: NDArray[np.bool_], groups: Indices | None, class_names: Sequence[str], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose a random part of images with several labels that has every label in proportion; groups stay together.

    Iterative stratification (Sechidis et al. 2011): images, or groups, are dealt out label by label, the rarest of
    those that are left first, each to the side that lacks the label most; images without a label fill up. Every label
    is on both sides.

    Parameters
    ----------
    labels : bool N×K
    groups, class_names, fraction, seed : as of `hold_out`

    Returns
    -------
    Whether each image is held out, bool N

    Raises
    ------
    DataError
        If a label has a single image, or its images are of a single group: it cannot be in both parts.
    """
    generator = np.random.default_rng(seed)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(group)
    counts = np.zeros((len(sizes), labels.shape[1]), np.int64)
    np.add.at(counts, group, labels)
    has, totals = counts > 0, counts.sum(axis=0)
    _check_divisible(has.sum(axis=0), totals, class_names)
    side = _deal(counts, sizes, target_counts(totals, fraction), fraction, generator)
    for label in map(int, np.flatnonzero(totals)):
        for part in (0, 1):
            if not has[side == part, label].any():
                side[_movable(has, side, 1 - part, label, class_names[label])] = part
    held_out: NDArray[np.bool_] = side[group] == 1
    return held_out


def _deal(
    counts: Indices, sizes: Indices, targets: Indices, fraction: float, generator: np.random.Generator
) -> Indices:
    """The side of each unit, U, 1: held out; units have so many images of each label, U×K, and in all, U."""
    wanted = np.stack([counts.sum(axis=0) - targets, targets])  # what each side lacks of each label
    room = np.array([1 - fraction, fraction]) * sizes.sum()
    side, has = np.full(len(sizes), -1), counts > 0
    order = generator.permutation(len(sizes))
    while len(left := order[(side[order] < 0) & has[order].any(axis=1)]):
        units = has[left].sum(axis=0)
        label = int(np.where(units > 0, units, units.max() + 1).argmin())
        for unit in left[has[left, label]]:
            lacking = wanted[:, label]
            part = int(lacking[1] > lacking[0] or (lacking[1] == lacking[0] and room[1] > room[0]))
            side[unit] = part
            wanted[part] -= counts[unit]
            room[part] -= sizes[unit]
    for unit in order[side[order] < 0]:
        side[unit] = int(room[1] > room[0])
        room[side[unit]] -= sizes[unit]
    return side


def _movable(has: NDArray[np.bool_], side: Indices, part: int, label: int, name: str) -> int:
    """A unit with this label on this side that leaves the side no label short; that with the fewest labels."""
    units = np.flatnonzero((side == part) & has[:, label])
    left = has[side == part].sum(axis=0)
    free = [unit for unit in units if not (has[unit] & (left < 2)).any()]
    if not free:
        raise DataError(
            f"The label {name!r} cannot be on both sides of a split: each of its images is the last one of another "
            f"label. Add images of it, or leave the label out."
        )
    return int(min(free, key=lambda unit: has[unit].sum()))
