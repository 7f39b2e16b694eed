"""The input doctor: what makes a picture unlike the training images, and what would make it like them.

A model judges what it is shown: of a dark digit on white paper, an MNIST model, which has seen only light ones on
black, says anything. The doctor compares a picture with the statistics of the training images and says what differs. It
changes a picture only where it is asked to: `fix`.

What stands in a picture is here called its ink, whatever it is: all that differs clearly from the background.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from foveola.decoding import resize, to_channels
from foveola.errors import UserError, unknown
from foveola.images import Images, polarity
from foveola.ink import MEASURED_SIDE, Grey, Measures, as_grey, at_most, background_of, measure, take_apart

Fix = Literal["grey", "invert", "contrast", "crop", "center"]
FIXES: dict[Fix, str] = {
    "grey": "colour turned into grey",
    "invert": "dark and light swapped",
    "contrast": "background evened out, ink as strong and strokes as wide as in the training images",
    "crop": "cut or widened until the ink has the size it has in the training images",
    "center": "moved until the ink's centre of mass lies where it lies in the training images",
}
"""Every fix with what it does, in the order in which they are applied."""

WITHOUT_STATISTICS: tuple[Fix, ...] = ("grey", "invert")
"""The fixes that need to know nothing of the training images."""

# More images change the quantiles no more
_DESCRIBED_IMAGES = 500
# A picture is fixed at so many times the size that it will have, which averages noise as well, and at most at this side
_OVERSAMPLING, _FIXED_SIDE = 4, 1024


class Quantiles(BaseModel):
    """How a measurement spreads over the training images: its 1 %, 50 % and 99 % quantiles."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The quantiles of values, N, to four digits."""
        low, middle, high = (round(float(value), 4) for value in np.quantile(values, (0.01, 0.5, 0.99)))
        return cls(low=low, middle=middle, high=high)


class Statistics(BaseModel):
    """What the training images have in common.

    `background`, `unevenness` (of the background across an image) and `contrast` (the ink's distance from the
    background) are grey levels, 0 to 255; `ink` is the share
    of the pixels that are ink; `size` the longer side of the ink's box, as a share of the image's side; `stroke` the
    width of strokes, as a share of that longer side; `centre_y` and `centre_x` the ink's centre of mass, as shares of
    height and width.
    """

    model_config = ConfigDict(frozen=True)

    polarity: Literal["light on dark", "dark on light"]
    background: Quantiles
    unevenness: Quantiles
    contrast: Quantiles
    ink: Quantiles
    size: Quantiles
    stroke: Quantiles
    centre_y: Quantiles
    centre_x: Quantiles


@dataclass(frozen=True)
class Finding:
    """Something in which a picture is unlike the training images.

    `code` names it for programs, `text` says it of the picture, `fix` is the key of FIXES that would help, or None.
    """

    code: str
    text: str
    fix: Fix | None


def describe(images: Images) -> Statistics | None:
    """The statistics of training images.

    Parameters
    ----------
    images : uint8 array, N×H×W×C; at most about 500, evenly spread, are looked at

    Returns
    -------
    None where the images have no common background to stand on, as photographs; nothing can be said of those.
    """
    common = polarity(images)
    if common == "mixed":
        return None
    chosen = images[:: max(len(images) // _DESCRIBED_IMAGES, 1)]
    found = [measures for image in chosen if (measures := measure(as_grey(image))) is not None]
    found = [measures for measures in found if measures.light == (common == "light on dark")]
    if 2 * len(found) < len(chosen):
        return None
    return Statistics(
        polarity=common,
        background=Quantiles.of([measures.background for measures in found]),
        unevenness=Quantiles.of([measures.unevenness for measures in found]),
        contrast=Quantiles.of([measures.contrast for measures in found]),
        ink=Quantiles.of([measures.ink for measures in found]),
        size=Quantiles.of([measures.size for measures in found]),
        stroke=Quantiles.of([measures.stroke for measures in found]),
        centre_y=Quantiles.of([measures.centre[0] for measures in found]),
        centre_x=Quantiles.of([measures.centre[1] for measures in found]),
    )


def examine(picture: Images, statistics: Statistics | None, image_shape: Sequence[int]) -> list[Finding]:
    """In what a picture is unlike the training images.

    Where things lie and which way round they are is measured on the picture itself; how strong the ink is, on what
    the network would get of it: thin strokes fade when a large picture is reduced.

    Parameters
    ----------
    picture : uint8 array, H×W×C, of any size
    statistics : of the training images; without them only shape and channels are compared
    image_shape : height, width and channels of the training images

    Returns
    -------
    The findings, those first that should be fixed first; none for a picture like the training images.
    """
    found = _shape_findings(picture, image_shape)
    if statistics is None:
        return found
    whole = measure(as_grey(at_most(picture, MEASURED_SIDE)))
    if whole is None:
        return [*found, Finding("blank", "blank: nothing stands out from the background", None)]
    as_seen = picture.shape[:2] == tuple(image_shape[:2]) and max(picture.shape[:2]) <= MEASURED_SIDE
    reduced = whole if as_seen else measure(as_grey(resize(picture, *image_shape[:2])))
    return [
        *found,
        *_polarity_findings(whole, statistics),
        *_background_findings(whole, statistics),
        *_place_findings(whole, statistics),
        *_ink_findings(whole, reduced, statistics),
    ]


def _shape_findings(picture: Images, image_shape: Sequence[int]) -> list[Finding]:
    (height, width, channels), (rows, columns, wanted) = picture.shape, image_shape
    found = []
    if channels > wanted and in_colour(picture):
        found.append(Finding("channels", "in colour, where the training images are grey", "grey"))
    if channels < wanted:
        found.append(Finding("channels", "grey, where the training images are in colour", None))
    if height < rows / 2 or width < columns / 2:
        text = f"only {height}×{width} pixels, where the training images have {rows}×{columns}"
        found.append(Finding("resolution", text, None))
    stretch = (height / width) / (rows / columns)
    if max(stretch, 1 / stretch) > 1.25:
        text = f"{height}×{width} pixels (height × width), which resizing to {rows}×{columns} distorts"
        found.append(Finding("shape", text, "crop"))
    return found


def in_colour(picture: Images) -> bool:
    """Whether a picture, uint8 H×W×C, has a pixel that is not grey; grey ones are often saved as RGB."""
    return any(not np.array_equal(picture[..., 0], picture[..., channel]) for channel in range(1, picture.shape[2]))


def _polarity_findings(whole: Measures, statistics: Statistics) -> list[Finding]:
    found = "light on dark" if whole.light else "dark on light"
    if found == statistics.polarity:
        return []
    return [Finding("polarity", f"{found}, where the training images are {statistics.polarity}; invert it", "invert")]


def _background_findings(whole: Measures, statistics: Statistics) -> list[Finding]:
    light_as_wanted = whole.light == (statistics.polarity == "light on dark")
    level = whole.background if light_as_wanted else 255 - whole.background
    if whole.unevenness > statistics.unevenness.high + 25:
        text = f"unevenly lit: the background varies by {whole.unevenness:.0f} grey levels"
        return [Finding("background", f"{text}; even it out", "contrast")]
    if not statistics.background.low - 25 <= level <= statistics.background.high + 25:
        inverted = "" if light_as_wanted else " once inverted"
        text = f"on a background of grey level {level:.0f}{inverted}, where the training images have "
        return [Finding("background", f"{text}{statistics.background.middle:.0f}; even it out", "contrast")]
    return []


def _place_findings(whole: Measures, statistics: Statistics) -> list[Finding]:
    found = []
    size = statistics.size
    if not 0.85 * size.low <= whole.size <= min(1.15 * size.high, 0.99 + size.high / 20):
        word = "small" if whole.size < size.low else "large"
        text = f"too {word}: it takes {whole.size:.0%} of the side, {size.middle:.0%} in the training images"
        found.append(Finding("size", f"{text}; crop it to size", "crop"))
    away = [
        word
        for value, spread, (before, after) in zip(
            whole.centre,
            (statistics.centre_y, statistics.centre_x),
            (("high", "low"), ("far left", "far right")),
            strict=True,
        )
        for word in (before * (value < spread.low - 0.05) or after * (value > spread.high + 0.05),)
        if word
    ]
    if away:
        found.append(Finding("centring", f"off centre: too {' and too '.join(away)}; centre it", "center"))
    return found


def _ink_findings(whole: Measures, reduced: Measures | None, statistics: Statistics) -> list[Finding]:
    if reduced is None or reduced.contrast < 0.75 * statistics.contrast.low:
        strength = 0 if reduced is None else reduced.contrast
        text = f"faint: at the network's size its ink is {strength:.0f} grey levels from the background, "
        return [Finding("contrast", f"{text}{statistics.contrast.middle:.0f} in the training images", "contrast")]
    # Ink of another size covers another share: then the size is what is to be mended
    scale = (statistics.size.middle / whole.size) ** 2
    share = reduced.ink * scale
    if not 0.6 * statistics.ink.low <= share <= 1.6 * statistics.ink.high:
        thin = share < statistics.ink.low
        text = f"too {'thin' if thin else 'thick'}: of its size, ink covers {share:.0%} of the picture, "
        text += f"{statistics.ink.low:.0%} to {statistics.ink.high:.0%} in the training images"
        return [Finding("ink", text, "contrast" if thin else None)]
    return []


def check_fixes(names: Collection[str]) -> tuple[Fix, ...]:
    """The named fixes in the order in which they are applied.

    Raises
    ------
    UserError
        If a name is no key of FIXES.
    """
    for name in names:
        if name not in FIXES:
            raise UserError(unknown("fix", name, [*FIXES, "auto"]))
    return tuple(fix for fix in FIXES if fix in names)


def proposed(findings: Sequence[Finding]) -> tuple[Fix, ...]:
    """The fixes that findings propose, in the order in which they are applied."""
    return check_fixes({finding.fix for finding in findings if finding.fix is not None})


def fix(picture: Images, fixes: Collection[str], statistics: Statistics | None, image_shape: Sequence[int]) -> Images:
    """The picture as the network gets it, with these fixes and no others.

    The fixes are applied in the order of FIXES, however they are given. Where there is no ink to go by, or there are
    no statistics, only `grey` and `invert` change anything.

    Parameters
    ----------
    picture : uint8 array, H×W×C, of any size
    fixes : keys of FIXES
    statistics : of the training images
    image_shape : height, width and channels of the training images

    Returns
    -------
    uint8 array of `image_shape`

    Raises
    ------
    UserError
        If a fix is unknown.
    """
    wanted = check_fixes(fixes)
    height, width, channels = image_shape
    if statistics is not None and {"contrast", "crop", "center"} & set(wanted):
        picture = _oversampled(picture, statistics, image_shape)
    if "grey" in wanted or channels == 1:
        picture = to_channels(picture, 1)
    if "invert" in wanted:
        picture = 255 - picture
    if statistics is not None:
        if "contrast" in wanted:
            picture = _evened(picture, statistics)
        if {"crop", "center"} & set(wanted):  # measuring takes far longer than the rest
            picture = _framed(picture, wanted, statistics, height / width)
    picture = resize(to_channels(picture, channels), height, width)
    return _strengthened(picture, statistics) if statistics is not None and "contrast" in wanted else picture


def _oversampled(picture: Images, statistics: Statistics, image_shape: Sequence[int]) -> Images:
    """The picture reduced until its ink has a few times the size that it will have."""
    measures = measure(as_grey(at_most(picture, MEASURED_SIDE)))
    size = measures.size if measures is not None else 1.0
    side = _OVERSAMPLING * max(image_shape[:2]) * max(statistics.size.middle / size, 1.0)
    return at_most(picture, min(round(side), _FIXED_SIDE))


def _evened(picture: Images, statistics: Statistics) -> Images:
    """Background and ink at the levels of the training images, thin strokes widened."""
    parts, measures = take_apart(as_grey(picture)), measure(as_grey(picture))
    if parts is None or measures is None:
        return picture
    planes = np.moveaxis(picture.astype(np.float32), 2, 0)
    ink = np.stack([(1 if parts.light else -1) * (plane - background_of(plane)) for plane in planes], axis=2)
    # What the noise reaches is background; full ink keeps its strength
    ink = (ink - parts.noise).clip(0) * (parts.contrast / max(parts.contrast - parts.noise, 1.0))
    if measures.stroke < statistics.stroke.low:
        missing = (statistics.stroke.middle - measures.stroke) * measures.size * max(picture.shape[:2])
        for step in range(round(missing / 2)):  # a pixel on either side
            ink = _widened(ink, diagonally=step % 2 == 1)
    return _drawn(ink * statistics.contrast.middle / parts.contrast, parts.light, statistics)


def _widened(ink: Grey, *, diagonally: bool) -> Grey:
    """The largest value of each pixel and its 4 or 8 neighbours; taken in turns, strokes widen nearly roundly."""
    rows = np.pad(ink, ((1, 1), (0, 0), (0, 0)))
    column = np.maximum(np.maximum(rows[:-2], rows[2:]), ink)
    columns = np.pad(column if diagonally else ink, ((0, 0), (1, 1), (0, 0)))
    widened: Grey = np.maximum(np.maximum(columns[:, :-2], columns[:, 2:]), column)
    return widened


def _framed(picture: Images, wanted: Collection[Fix], statistics: Statistics, proportion: float) -> Images:
    """The picture cut, or widened with background, to the window that the network shall see."""
    measures = measure(as_grey(picture))
    if measures is None:
        return picture
    rows, columns = picture.shape[:2]
    top, left, bottom, right = np.array(measures.box) * (rows, columns, rows, columns)
    height, width = float(rows), float(columns)
    if "crop" in wanted:
        height = max(bottom - top, (right - left) * proportion) / statistics.size.middle
        width = height / proportion
    y, x = rows / 2, columns / 2
    if "center" in wanted:
        y = measures.centre[0] * rows + (0.5 - statistics.centre_y.middle) * height
        x = measures.centre[1] * columns + (0.5 - statistics.centre_x.middle) * width
    elif "crop" in wanted:
        y, x = (top + bottom) / 2, (left + right) / 2
    first_row, first_column = round(y - height / 2), round(x - width / 2)
    size = max(round(height), 1), max(round(width), 1)
    return _window(picture, (first_row, first_column), size, fill=measures.background)


def _window(picture: Images, first: tuple[int, int], size: tuple[int, int], fill: float) -> Images:
    """`size` rows and columns from row and column `first` on, which may lie outside of the picture."""
    window = np.full((*size, picture.shape[2]), round(fill), np.uint8)
    target, source = [], []
    for start, length, available in zip(first, size, picture.shape, strict=False):
        begin, end = max(start, 0), min(start + length, available)
        source.append(slice(begin, max(end, begin)))
        target.append(slice(begin - start, max(end, begin) - start))
    window[tuple(target)] = picture[tuple(source)]
    return window


def _strengthened(picture: Images, statistics: Statistics) -> Images:
    """Full ink brought to full strength once more: strokes fade where a picture is reduced."""
    parts = take_apart(as_grey(picture))
    if parts is None:
        return picture
    sign = 1 if parts.light else -1
    ink = (sign * (picture - parts.background[..., None])).clip(0)
    return _drawn(ink * max(statistics.contrast.middle / parts.contrast, 1.0), parts.light, statistics)


def _drawn(ink: Grey, light: bool, statistics: Statistics) -> Images:
    """Ink, float H×W×C in grey levels, on the background of the training images."""
    level = statistics.background.middle
    if light != (statistics.polarity == "light on dark"):
        level = 255 - level  # not inverted, for nobody has asked for that
    pixels: Images = (level + (ink if light else -ink)).round().clip(0, 255).astype(np.uint8)
    return pixels
