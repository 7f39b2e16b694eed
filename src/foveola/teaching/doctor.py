"""What is unusual in a picture that arrives, compared with the project's pictures as a training will see them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foveola.datasets.image_files import decode_files
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError
from foveola.images import Images, Resize
from foveola.inputs.checks import check_image, compute_statistics
from foveola.inputs.foreground import MEASURED_SIDE, as_grey
from foveola.inputs.resize import shrink
from foveola.models.metadata import ImageStatistics, OriginalImages
from foveola.teaching.listing import Picture

MIN_PICTURES = 20
"""With fewer, nothing is usual yet."""

_MIN_SPREAD = 3.0  # standard deviation of the grey levels of a picture that is not blank
_MAX_SAMPLE = 100  # pictures that are read, evenly spaced
_MIN_GROWTH = 1.25  # of the number of pictures, before they are read again


@dataclass(frozen=True)
class _Usual:
    statistics: ImageStatistics | None
    image_shape: tuple[int, int, int]
    originals: OriginalImages
    resize: Resize


class Doctor:
    """Knows what is usual among a project's pictures."""

    def __init__(self) -> None:
        self._usual: _Usual | None = None
        self._count = 0  # of pictures, when they were read

    def is_outdated(self, count: int) -> bool:
        """Whether a project has become much larger or smaller, so that `learn` is due."""
        if count < MIN_PICTURES or not self._count:
            return count >= MIN_PICTURES
        return not self._count / _MIN_GROWTH < count < self._count * _MIN_GROWTH

    def learn(self, pictures: Sequence[Picture]) -> None:
        """Read some of the pictures of a project, evenly spaced."""
        sample = [picture.path for picture in pictures[:: -(-len(pictures) // _MAX_SAMPLE)]]
        self._count = len(pictures)
        try:
            decoded = decode_files(sample, [True] * len(sample), ReadOptions())
        except DataError:  # files of 16 bits with too few levels; a training says so
            return
        sound = np.array([number for number in range(len(sample)) if number not in decoded.unusable])
        if len(sound) < MIN_PICTURES:
            return
        before = decoded.originals
        originals = OriginalImages.of(before.heights, before.widths, before.colour / len(before.heights))
        images = decoded.images.read(sound)
        self._usual = _Usual(compute_statistics(images), decoded.images.image_shape, originals, decoded.shape.resize)

    def findings(self, pixels: Images) -> tuple[str, ...]:
        """How an image, uint8 H×W×C, differs from the project's pictures, a phrase each; also that it is blank."""
        usual = self._usual
        if usual is not None and usual.statistics is not None:
            found = check_image(pixels, usual.statistics, usual.image_shape, usual.originals, usual.resize)
            return tuple(finding.text for finding in found)
        found = [] if usual is None else check_image(pixels, None, usual.image_shape, usual.originals, usual.resize)
        blank = float(as_grey(shrink(pixels, MEASURED_SIDE)).std()) < _MIN_SPREAD
        return (*(finding.text for finding in found), *(["blank: nearly all of it has one colour"] if blank else []))
