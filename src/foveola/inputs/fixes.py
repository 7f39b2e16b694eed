"""Fixes that make an image more like the training images: grey, invert, contrast, crop, center."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from foveola.errors import UserError, unknown
from foveola.images import Images, Resize
from foveola.inputs.foreground import MEASURED_SIDE, Grey, as_grey, estimate_background, measure, segment
from foveola.inputs.resize import CommonShape, shrink, to_channels
from foveola.models.metadata import ImageStatistics, Range

Fix = Literal["grey", "invert", "contrast", "crop", "center"]
FIXES: dict[Fix, str] = {
    "grey": "convert colour to grey",
    "invert": "swap dark and light",
    "contrast": "even out the background; make the foreground as strong and strokes as wide as in the training images",
    "crop": "crop or pad until the foreground has the same relative size as in the training images",
    "center": "move the foreground's center of mass to where it is in the training images",
}
"""What each fix does, in the order in which they are applied."""

WITHOUT_STATISTICS: tuple[Fix, ...] = ("grey", "invert")
"""The fixes that work without statistics of the training images."""

# Fixes are applied at a multiple of the final size, which averages out noise, but at most at this side in pixels
_OVERSAMPLING, _MAX_SIDE = 4, 1024


def check_fixes(names: Collection[str]) -> tuple[Fix, ...]:
    """The named fixes, in the order in which they are applied.

    Raises
    ------
    UserError
        If a name is not a key of FIXES.
    """
    for name in names:
        if name not in FIXES:
            raise UserError(unknown("fix", name, [*FIXES, "auto"]))
    return tuple(fix for fix in FIXES if fix in names)


def apply_fixes(
    image: Images,
    fixes: Collection[str],
    statistics: ImageStatistics | None,
    image_shape: Sequence[int],
    aspect: Range,
    *,
    resize: Resize = "stretch",
    fill: int = 0,
) -> Images:
    """Apply fixes to an image, and resize it to the network's input shape.

    The fixes are applied in the order of FIXES. Without statistics, or without any foreground in the image, only `grey`
    and `invert` have an effect.

    Parameters
    ----------
    image : uint8 array, H×W×C, of any size
    fixes : keys of FIXES, in any order
    statistics : of the training images, or None
    image_shape : height, width and channels of the training images, as the network gets them
    aspect : height by width of the training images before they were resized; `crop` keeps an image's own if it is among
        theirs, because they were resized in the same way, and otherwise takes the nearest; in a letterbox, it takes
        that of `image_shape`
    resize : how the training images were brought to that shape
    fill : grey level beside a letterbox's image

    Returns
    -------
    uint8 array of `image_shape`

    Raises
    ------
    UserError
        If a fix is unknown.
    """
    ordered_fixes = check_fixes(fixes)
    height, width, channels = image_shape
    aspect_ratio = min(max(image.shape[0] / image.shape[1], aspect.low), aspect.high)
    if resize == "letterbox":
        aspect_ratio = height / width
    if statistics is not None and {"contrast", "crop", "center"} & set(ordered_fixes):
        image = _to_working_size(image, statistics, image_shape)
    if "grey" in ordered_fixes or channels == 1:
        image = to_channels(image, 1)
    if "invert" in ordered_fixes:
        image = 255 - image
    if statistics is not None:
        if "contrast" in ordered_fixes:
            image = _normalize_contrast(image, statistics)
        if {"crop", "center"} & set(ordered_fixes):  # measuring takes far longer than all other steps
            image = _crop_and_center(image, ordered_fixes, statistics, aspect_ratio, whole=resize == "letterbox")
    image = CommonShape(height, width, resize, fill).fit(to_channels(image, channels))
    return _restore_contrast(image, statistics) if statistics is not None and "contrast" in ordered_fixes else image


def _to_working_size(image: Images, statistics: ImageStatistics, image_shape: Sequence[int]) -> Images:
    """Reduce an image until its foreground is `_OVERSAMPLING` times as large as in the network's input."""
    measurements = measure(as_grey(shrink(image, MEASURED_SIDE)))
    size = measurements.size if measurements is not None else 1.0
    side = _OVERSAMPLING * max(image_shape[:2]) * max(statistics.size.middle / size, 1.0)
    return shrink(image, min(round(side), _MAX_SIDE))


def _normalize_contrast(image: Images, statistics: ImageStatistics) -> Images:
    """Bring background and foreground to the grey levels of the training images, and widen thin strokes."""
    segmentation, measurements = segment(as_grey(image)), measure(as_grey(image))
    if segmentation is None or measurements is None:
        return image
    planes = np.moveaxis(image.astype(np.float32), 2, 0)
    sign = 1 if segmentation.light_on_dark else -1
    foreground = np.stack([sign * (plane - estimate_background(plane)) for plane in planes], axis=2)
    # Differences up to the noise level become background; full-strength foreground keeps its contrast
    foreground = (foreground - segmentation.noise).clip(0) * (
        segmentation.contrast / max(segmentation.contrast - segmentation.noise, 1.0)
    )
    if measurements.stroke < statistics.stroke.low:
        missing = (statistics.stroke.middle - measurements.stroke) * measurements.size * max(image.shape[:2])
        for step in range(round(missing / 2)):  # each step adds a pixel on either side
            foreground = _dilate(foreground, diagonally=step % 2 == 1)
    foreground = foreground * statistics.contrast.middle / segmentation.contrast
    return _draw_on_background(foreground, segmentation.light_on_dark, statistics)


def _dilate(foreground: Grey, *, diagonally: bool) -> Grey:
    """Maximum of each pixel and its 4 or 8 neighbours; alternating between the two widens strokes almost roundly."""
    rows = np.pad(foreground, ((1, 1), (0, 0), (0, 0)))
    vertical = np.maximum(np.maximum(rows[:-2], rows[2:]), foreground)
    columns = np.pad(vertical if diagonally else foreground, ((0, 0), (1, 1), (0, 0)))
    dilated: Grey = np.maximum(np.maximum(columns[:, :-2], columns[:, 2:]), vertical)
    return dilated


def _crop_and_center(
    image: Images, fixes: Collection[Fix], statistics: ImageStatistics, aspect_ratio: float, *, whole: bool
) -> Images:
    """Crop an image, or pad it with background, around its foreground.

    `aspect_ratio` is the result's height by width; without `crop`, only if the `whole` image shall lie in a letterbox.
    """
    measurements = measure(as_grey(image))
    if measurements is None:
        return image
    rows, columns = image.shape[:2]
    top, left, bottom, right = np.array(measurements.box) * (rows, columns, rows, columns)
    height, width = float(rows), float(columns)
    if whole:
        height = max(height, width * aspect_ratio)
        width = height / aspect_ratio
    if "crop" in fixes:
        height = max(bottom - top, (right - left) * aspect_ratio) / statistics.size.middle
        width = height / aspect_ratio
    y, x = rows / 2, columns / 2
    if "center" in fixes:
        y = measurements.center[0] * rows + (0.5 - statistics.centre_y.middle) * height
        x = measurements.center[1] * columns + (0.5 - statistics.centre_x.middle) * width
    elif "crop" in fixes:
        y, x = (top + bottom) / 2, (left + right) / 2
    start = round(y - height / 2), round(x - width / 2)
    size = max(round(height), 1), max(round(width), 1)
    return _cut_window(image, start, size, fill=measurements.background)


def _cut_window(image: Images, start: tuple[int, int], size: tuple[int, int], fill: float) -> Images:
    """The window of `size` rows and columns at row and column `start`; outside of the image it is filled."""
    window = np.full((*size, image.shape[2]), round(fill), np.uint8)
    target, source = [], []
    for first, length, available in zip(start, size, image.shape, strict=False):
        begin, end = max(first, 0), min(first + length, available)
        source.append(slice(begin, max(end, begin)))
        target.append(slice(begin - first, max(end, begin) - first))
    window[tuple(target)] = image[tuple(source)]
    return window


def _restore_contrast(image: Images, statistics: ImageStatistics) -> Images:
    """Strengthen the foreground again after resizing, which fades thin strokes."""
    segmentation = segment(as_grey(image))
    if segmentation is None:
        return image
    sign = 1 if segmentation.light_on_dark else -1
    foreground = (sign * (image - segmentation.background[..., None])).clip(0)
    foreground = foreground * max(statistics.contrast.middle / segmentation.contrast, 1.0)
    return _draw_on_background(foreground, segmentation.light_on_dark, statistics)


def _draw_on_background(foreground: Grey, light_on_dark: bool, statistics: ImageStatistics) -> Images:
    """Draw foreground, float H×W×C in grey levels, on the background level of the training images."""
    level = statistics.background.middle
    if light_on_dark != (statistics.polarity == "light on dark"):
        level = 255 - level  # the image keeps its polarity: `invert` was not requested
    pixels: Images = (level + (foreground if light_on_dark else -foreground)).round().clip(0, 255).astype(np.uint8)
    return pixels
