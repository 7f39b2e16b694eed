"""Images that are read when they are indexed, in the place of an array that memory cannot hold."""

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]

MAX_BLOCK_BYTES = 2**25


class ImageSource(Protocol):
    """Where images are read from: a file, or files that are decoded."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        ...

    @property
    def hashes(self) -> NDArray[np.uint64] | None:
        """What `foveola.models.learnt.hash_images` gives for all images, if that is known."""
        ...

    def read(self, rows: Indices) -> Images:
        """The images with these numbers, uint8 N×H×W×C."""
        ...


class LazyImages:
    """Images, uint8 N×H×W×C, of which only those are in memory that are being used.

    `images[3]`, `images[10:20]` and `images[indices]` read arrays. What needs all images at once, such as
    `numpy.concatenate`, is refused.

    Parameters
    ----------
    source : where they are read from
    rows : int64 N, the numbers of the images there

    Examples
    --------
    >>> data = foveola.load("packed/many-images")       # doctest: +SKIP
    >>> data.train.images.shape, data.train.images[:2].shape   # doctest: +SKIP
    ((1500000, 64, 64, 3), (2, 64, 64, 3))
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, source: ImageSource, rows: Indices) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.rows), *self.source.image_shape)

    @property
    def size(self) -> int:
        """Number of values in all images."""
        height, width, channels = self.source.image_shape
        return len(self.rows) * height * width * channels

    def __getitem__(self, index: Any) -> Images:
        rows = self.rows[index]
        return self.source.read(rows) if isinstance(rows, np.ndarray) else cast(Images, self.source.read(rows[None])[0])

    def __iter__(self) -> Iterator[Images]:
        for block in blocks(cast(Images, self)):
            yield from block

    def select(self, index: Any) -> "LazyImages":
        """The images at these indices; they are not read yet."""
        return LazyImages(self.source, self.rows[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise DataError(
            f"This needs all {len(self):,} images in memory at once, and they are read from a file because they are "
            f"too large for that. Take a part of the data, or pack it with a smaller --image-size."
        )


def as_lazy(images: object) -> LazyImages | None:
    """The images if they are read when they are indexed; None if they are an array."""
    return images if isinstance(images, LazyImages) else None


def as_images(images: LazyImages) -> Images:
    """Lazy images, typed as the array in whose place they stand."""
    return cast(Images, images)


def blocks(images: Images) -> Iterator[Images]:
    """Yield all images in order, in arrays of at most MAX_BLOCK_BYTES, or of one image."""
    count = max(MAX_BLOCK_BYTES // max(int(np.prod(images.shape[1:])), 1), 1)
    for start in range(0, len(images), count):
        yield images[start : start + count]


def select(images: Images, index: Any) -> Images:
    """`images[index]`, where lazy images stay lazy."""
    lazy = as_lazy(images)
    return images[index] if lazy is None else as_images(lazy.select(index))


def concatenate(parts: Sequence[Images]) -> Images:
    """All images in one array; parts of one lazy source stay lazy.

    Raises
    ------
    DataError
        If some parts are lazy, and they are not of one source.
    """
    lazy = [part for part in map(as_lazy, parts) if part is not None]
    if len(lazy) == len(parts) and len({id(part.source) for part in lazy}) == 1:
        return as_images(LazyImages(lazy[0].source, np.concatenate([part.rows for part in lazy])))
    return np.concatenate(parts)
