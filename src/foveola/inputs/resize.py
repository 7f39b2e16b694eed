"""Change the size and the channels of an image, and choose both for a data set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from foveola.errors import DataError
from foveola.images import Images, Polarity, Resize, border_levels, letterbox_place, polarity_of

MAX_STRETCH = 1.25
"""A picture whose aspect differs from the target's by no more than this factor may be stretched."""

MAX_STRETCHED = 0.05
"""Largest fraction of the pictures that may be stretched further; if more would be, all are letterboxed."""

RESAMPLING = Image.Resampling.BILINEAR

MIN_REDUCTION = 2.0
"""Factor by which the sides of pictures may shrink without a word, if nobody asked for a size."""

_MIN_RECTANGLE_SIDE = 0.5  # of the square's side, for data of very long pictures


def resize(image: Images, height: int, width: int) -> Images:
    """Resize an image with Pillow's bilinear filter, which averages over all source pixels when it shrinks.

    Parameters
    ----------
    image : uint8 array, H×W×C, C = 1 or 3

    Returns
    -------
    uint8 array, height×width×C; the image itself if it already has that size
    """
    if image.shape[:2] == (height, width):
        return image
    pillow = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.array(pillow.resize((width, height), RESAMPLING))
    return resized.reshape(height, width, image.shape[2])


def letterbox(image: Images, height: int, width: int, fill: int) -> Images:
    """Resize an image without changing its aspect until it just fits into height×width, and fill what is left.

    Parameters
    ----------
    image : uint8 array, H×W×C, C = 1 or 3
    fill : grey level beside the image, 0 to 255

    Returns
    -------
    uint8 array, height×width×C, with the image where `foveola.images.letterbox_place` says
    """
    top, left, rows, columns = letterbox_place(image.shape[:2], height, width)
    box = np.full((height, width, image.shape[2]), fill, np.uint8)
    box[top : top + rows, left : left + columns] = resize(image, rows, columns)
    return box


@dataclass(frozen=True)
class CommonShape:
    """The size that all images of a data set get, and how: stretched, or letterboxed with a grey level beside them."""

    height: int
    width: int
    resize: Resize = "stretch"
    fill: int = 0

    def fit(self, image: Images) -> Images:
        """An image, uint8 H×W×C, in this size."""
        if self.resize == "letterbox":
            return letterbox(image, self.height, self.width, self.fill)
        return resize(image, self.height, self.width)

    def reduced_size(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this height and width has in it, with nothing beside it.

        `fit` gives the same of an image and of the image in this size.
        """
        if self.resize == "letterbox":
            place = letterbox_place((height, width), self.height, self.width)
            return place.rows, place.columns
        return self.height, self.width


def common_size(sizes: Sequence[tuple[int, int]], side: int) -> tuple[int, int]:
    """The height and width to which to resize pictures of these heights and widths, about side×side pixels in all.

    A rectangle of the pictures' median aspect, at most 4 to 1, if few pictures have another one; otherwise the square,
    and also if that stretches few pictures.
    """
    aspects = [height / width for height, width in sizes]
    aspect = float(np.median(aspects)) if aspects else 1.0
    if stretched_fraction(sizes, (1, 1)) <= MAX_STRETCHED or _fraction_beyond(aspects, aspect) > MAX_STRETCHED:
        return side, side
    root = min(max(aspect**0.5, _MIN_RECTANGLE_SIDE), 1 / _MIN_RECTANGLE_SIDE)
    return round(side * root), round(side / root)


def choose_resize(sizes: Sequence[tuple[int, int]], target: tuple[int, int]) -> Resize:
    """Whether to stretch or to letterbox pictures of these heights and widths to the target's."""
    return "letterbox" if stretched_fraction(sizes, target) > MAX_STRETCHED else "stretch"


def stretched_fraction(sizes: Sequence[tuple[int, int]], target: tuple[int, int]) -> float:
    """Fraction of pictures of these heights and widths that would be stretched by more than MAX_STRETCH."""
    return _fraction_beyond([height / width for height, width in sizes], target[0] / target[1])


def _fraction_beyond(aspects: Sequence[float], aspect: float) -> float:
    return sum(max(each / aspect, aspect / each) > MAX_STRETCH for each in aspects) / max(len(aspects), 1)


def choose_fill(pictures: Iterable[Images]) -> tuple[int, Polarity]:
    """The grey level beside letterboxed pictures, uint8 H×W×C, and the polarity that they have without it.

    The grey level is the median of their borders if they are light on dark or dark on light, otherwise 0, black.
    """
    levels = np.array([border_levels(picture[None])[0] for picture in pictures])
    common = polarity_of(levels)
    return 0 if common == "mixed" else round(float(np.median(levels))), common


def describe_resize(sizes: Sequence[tuple[int, int]], shape: CommonShape, *, chosen: bool) -> tuple[str, ...]:
    """Sentences about what resizing does to pictures of these heights and widths.

    None if their aspects stay and they were not reduced much. `chosen` means that nobody asked for this size: it was
    chosen by the aspects of the pictures.
    """
    return (*_describe_aspects(sizes, shape, chosen), *(_describe_reduction(sizes, shape) if chosen else ()))


def _describe_reduction(sizes: Sequence[tuple[int, int]], shape: CommonShape) -> tuple[str, ...]:
    """What is lost if most pictures were larger by MIN_REDUCTION or more."""
    if not sizes:
        return ()
    height, width = (round(float(np.median(sides))) for sides in zip(*sizes, strict=True))
    if max(height, width) < MIN_REDUCTION * max(shape.height, shape.width):
        return ()
    return (
        f"Images of about {height:,}×{width:,} pixels are reduced to {shape.height}×{shape.width} (height × width). "
        f"--set image_size={min(max(height, width), 160)} keeps more of them; time and memory grow with the number of "
        f"pixels.",
    )


def _describe_aspects(sizes: Sequence[tuple[int, int]], shape: CommonShape, chosen: bool) -> tuple[str, ...]:
    target = f"{shape.height}×{shape.width} pixels (height × width)"
    stretched = round(stretched_fraction(sizes, (shape.height, shape.width)) * len(sizes))
    if stretched and shape.resize == "letterbox":
        return (
            f"Images keep their aspect: each is resized to fit into {target}, and the rest is grey level {shape.fill}. "
            f"--set resize=stretch stretches them instead.",
        )
    if stretched:
        return (
            f"{stretched:,} of {len(sizes):,} images are stretched to {target}, which changes their aspect by more "
            f"than a factor of {MAX_STRETCH}. --set resize=letterbox keeps it.",
        )
    if chosen and shape.height != shape.width and any(size != (shape.height, shape.width) for size in sizes):
        return (f"Images are resized to {target}, the aspect that they have in common.",)
    return ()


def shrink(image: Images, max_side: int) -> Images:
    """Reduce an image until its longer side has at most `max_side` pixels."""
    scale = max_side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(round(scale * length), 1) for length in image.shape[:2])
    return resize(image, height, width)


def to_channels(image: Images, channels: int) -> Images:
    """Convert grey to RGB by repetition, or RGB to grey by the weights of ITU-R 601 (0.299, 0.587, 0.114).

    Parameters
    ----------
    image : uint8 array, H×W×C, C = 1 or 3
    channels : 1 or 3

    Returns
    -------
    uint8 array, H×W×channels; the image itself if it already has that many

    Raises
    ------
    DataError
        If `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise DataError(f"Images cannot have {channels} channels. Choose 1 (grey) or 3 (RGB).")
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.array(Image.fromarray(image).convert("L"))[..., None]


def is_colour(image: Images) -> bool:
    """Whether an image, uint8 H×W×C, has a pixel that is not grey; grey images are often saved as RGB."""
    return any(not np.array_equal(image[..., 0], image[..., channel]) for channel in range(1, image.shape[2]))
