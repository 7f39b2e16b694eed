"""Change the size and the channels of an image."""

import numpy as np
from PIL import Image

from foveola.errors import DataError
from foveola.images import Images


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
    resized = np.array(pillow.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[2])


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
