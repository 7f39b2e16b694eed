"""Placeholders: pictures that stand for a missing image, such as "image not found".

Three signs, none of which needs a plain background:

- It is drawn: most of its pixels have exactly one of two colours. Light and sensor vary those of a photograph. Drawn
  images in a set of drawn ones, such as digits, are told by the colour of their background.
- It is repeated under different labels, none of which most copies share.
- It is repeated under one label that networks which have not seen it find less probable than a guess.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.audits.outliers import MIN_DEVIATIONS, Mask, Outlier, Values
from foveola.datasets.duplicates import DuplicateGroup
from foveola.images import Images, ImageSet

# Pixels have the same colour if no channel differs by more than this, in grey levels of 255: as much as JPEG changes
MAX_COLOR_DIFFERENCE = 2
# A drawn image has at least this fraction of its pixels in two colours. No photograph of 2,062 hands has more than
# 0.38, one of 2,527 of waste (on white boards) has more.
MIN_DRAWN_FRACTION = 0.6
# Smaller images have too few pixels to be told as drawn
MIN_DRAWN_SIDE = 16
# If more images than this share (and number) are drawn, drawings belong to the set, and only copies are placeholders
MAX_DRAWN_SHARE, MAX_DRAWN = 0.05, 3
# An unusual background differs by more than this from the typical one, in grey levels of 255
MIN_BACKGROUND_DIFFERENCE = 48
# Copies under different labels are a placeholder from this number on, if no label has more than this share of them
MIN_COPIES, MAX_LABEL_SHARE = 3, 2 / 3
# Copies under a single label
MIN_COPIES_OF_ONE_LABEL = 5

_MAX_SAMPLED_SIDE = 32  # pixels a side that are examined


def find_placeholders(
    image_set: ImageSet, duplicates: Sequence[DuplicateGroup], probability: Values | None = None
) -> list[Outlier]:
    """Find placeholders, those with the most copies first.

    Parameters
    ----------
    duplicates : the groups that `find_duplicates` gives for these images
    probability : of each image's label, by networks that have seen neither it nor its copies, float N

    Returns
    -------
    Outliers of the kind "placeholder"; `score` is the number of copies, plus the fraction of pixels in two colours
    """
    fractions, backgrounds = zip(*map(_two_colors, image_set.images), strict=True)
    fraction, drawn = np.array(fractions), _unusually_drawn(np.array(fractions), np.array(backgrounds))
    drawn &= min(image_set.image_shape[:2]) >= MIN_DRAWN_SIDE
    repeated = dict(_repeated(image_set, duplicates, drawn, probability))
    single = drawn if np.count_nonzero(drawn) <= max(MAX_DRAWN_SHARE * len(drawn), MAX_DRAWN) else np.zeros_like(drawn)
    found = []
    for index in sorted({*map(int, np.flatnonzero(single)), *repeated}):
        copies, reason = repeated.get(index, (1, ""))
        colors = f"{100 * fraction[index]:.0f} % of its pixels have one of two colours" if drawn[index] else ""
        detail = "; ".join(filter(None, (reason, colors)))
        found.append(Outlier(index, "placeholder", detail, copies + float(fraction[index])))
    return sorted(found, key=lambda outlier: (-outlier.score, outlier.index))


def _repeated(
    image_set: ImageSet, duplicates: Sequence[DuplicateGroup], drawn: Mask, probability: Values | None
) -> Iterator[tuple[int, tuple[int, str]]]:
    """Members of groups of copies that are placeholders, each with their number and a sentence."""
    names, guess = image_set.class_names, 1 / len(image_set.class_names)
    for group in duplicates:
        members = np.array(group.members)
        counts = np.bincount(image_set.labels[members], minlength=len(names))
        classes = np.flatnonzero(counts)
        mixed = len(members) >= MIN_COPIES and counts.max() <= MAX_LABEL_SHARE * len(members)
        unlike = (
            probability is not None
            and len(members) >= MIN_COPIES_OF_ONE_LABEL
            and len(classes) == 1
            and float(probability[members].mean()) < guess
        )
        if mixed or unlike or drawn[members].mean() > 0.5:
            reason = f"{len(members)} copies in {len(classes)} class{'es' if len(classes) > 1 else ''}"
            if unlike:
                reason += ", unlike it to networks that have not seen them"
            for member in group.members:
                yield member, (len(members), reason)


def _two_colors(image: Images) -> tuple[float, NDArray[np.int64]]:
    """The fraction of an image's pixels, uint8 H×W×C, that have one of its two commonest colours, and the first, C."""
    steps = [max(side // _MAX_SAMPLED_SIDE, 1) for side in image.shape[:2]]
    pixels = image[:: steps[0], :: steps[1]].reshape(-1, image.shape[2]).astype(np.int64)
    first, rest = _without_commonest(pixels)
    if len(rest):
        _, rest = _without_commonest(rest)
    return 1 - len(rest) / len(pixels), first


def _without_commonest(pixels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The commonest colour of pixels, N×C, and the pixels of other colours."""
    codes, counts = np.unique(pixels @ 256 ** np.arange(pixels.shape[1]), return_counts=True)
    color = codes[counts.argmax()] // 256 ** np.arange(pixels.shape[1]) % 256
    return color, pixels[np.abs(pixels - color).max(axis=1) > MAX_COLOR_DIFFERENCE]


def _unusually_drawn(fraction: Values, background: NDArray[np.int64]) -> Mask:
    """Which images, N, are drawn although most are not, or have another background, N×C, than most."""
    flat: Mask = _is_far(fraction[:, None], 0) & (fraction > np.median(fraction))
    return (fraction >= MIN_DRAWN_FRACTION) & (flat | _is_far(background, MIN_BACKGROUND_DIFFERENCE))


def _is_far(values: NDArray[Any], least: float) -> Mask:
    """Which rows, N×C, are far from the median, and differ from it by more than `least`."""
    distance = np.abs(values - np.median(values, axis=0)).max(axis=1)
    spread = 1.4826 * np.median(distance)
    far: Mask = distance > max(MIN_DEVIATIONS * spread, least)
    return far
