"""Statistics of the training images, and findings: how a new image differs from them."""

from collections.abc import Sequence
from dataclasses import dataclass

from foveola.arrays import shape_text
from foveola.images import Images, Resize, border_levels, polarity
from foveola.inputs.fixes import Fix, check_fixes
from foveola.inputs.foreground import MEASURED_SIDE, Measurements, as_grey, measure
from foveola.inputs.resize import CommonShape, is_colour, letterbox, shrink
from foveola.lazy import select
from foveola.models.metadata import ImageStatistics, OriginalImages, Quantiles, Range

# More images hardly change the quantiles
_MAX_MEASURED_IMAGES = 500
_SIMILAR_ASPECT = 1.25


@dataclass(frozen=True)
class Finding:
    """A difference between an image and the training images.

    `code` identifies it for programs, `text` describes it, `fix` is the key of FIXES that would help, or None.
    """

    code: str
    text: str
    fix: Fix | None


def compute_statistics(images: Images) -> ImageStatistics | None:
    """Measure what training images have in common.

    Parameters
    ----------
    images : uint8 array, N×H×W×C; of more than 500, evenly spaced ones are measured

    Returns
    -------
    None if most images have no plain background of the same polarity, as photographs.
    """
    common_polarity = polarity(images)
    if common_polarity == "mixed":
        return None
    sample = select(images, slice(None, None, max(len(images) // _MAX_MEASURED_IMAGES, 1)))
    measured = [measurements for image in sample if (measurements := measure(as_grey(image))) is not None]
    typical = [each for each in measured if each.light_on_dark == (common_polarity == "light on dark")]
    if 2 * len(typical) < len(sample):
        return None
    return ImageStatistics(
        polarity=common_polarity,
        background=Quantiles.of([each.background for each in typical]),
        unevenness=Quantiles.of([each.unevenness for each in typical]),
        contrast=Quantiles.of([each.contrast for each in typical]),
        ink=Quantiles.of([each.foreground for each in typical]),
        size=Quantiles.of([each.size for each in typical]),
        stroke=Quantiles.of([each.stroke for each in typical]),
        centre_y=Quantiles.of([each.center[0] for each in typical]),
        centre_x=Quantiles.of([each.center[1] for each in typical]),
    )


def check_image(
    image: Images,
    statistics: ImageStatistics | None,
    image_shape: Sequence[int],
    originals: OriginalImages,
    resize: Resize = "stretch",
) -> list[Finding]:
    """Find differences between an image and the training images.

    Size and shape are compared with those of the training images before they were resized. Polarity, background, size
    and position of the foreground are measured on the image itself. Contrast and stroke width are measured after
    resizing to the network's input size, because reducing a large image fades thin strokes.

    Parameters
    ----------
    image : uint8 array, H×W×C, of any size
    statistics : of the training images; without them only size, shape and channels are compared
    image_shape : height, width and channels of the training images, as the network gets them
    originals : sizes of the training images before they were resized
    resize : how images are brought to that shape; in a letterbox, no aspect is distorted, and position and size are
        those in the whole letterbox

    Returns
    -------
    The findings, in the order in which they should be fixed; empty if the image is like the training images.
    """
    findings = [
        *_channel_findings(image, image_shape[2], originals.colour),
        *_resolution_findings(image, image_shape, originals),
    ]
    if resize == "stretch":
        findings += _shape_findings(image, originals.aspect, can_crop=statistics is not None)
    if statistics is None:
        return findings
    height, width, _ = image_shape
    small, background = shrink(image, MEASURED_SIDE), round(float(border_levels(image[None])[0]))
    original = measure(as_grey(_whole_letterbox(small, image_shape, background) if resize == "letterbox" else small))
    if original is None:
        return [*findings, Finding("blank", "blank: nothing stands out from the background", None)]
    same_size = image.shape[:2] == (height, width) and max(image.shape[:2]) <= MEASURED_SIDE
    resized = original if same_size else measure(as_grey(CommonShape(height, width, resize, background).fit(image)))
    return [
        *findings,
        *_polarity_findings(original, statistics),
        *_background_findings(original, statistics),
        *_position_findings(original, statistics),
        *_foreground_findings(original, resized, statistics),
    ]


def _whole_letterbox(image: Images, image_shape: Sequence[int], background: int) -> Images:
    """The image with background beside it, in the aspect of the network's input."""
    height, width = image.shape[:2]
    ratio = image_shape[0] / image_shape[1]
    return letterbox(image, max(height, round(width * ratio)), max(width, round(height / ratio)), background)


def _channel_findings(image: Images, channels: int, colour: float | None) -> list[Finding]:
    """In colour or grey, as no training image was; if `colour` is unknown, all were as the network gets them."""
    fraction = float(channels == 3) if colour is None or channels == 1 else colour
    if fraction == 0 and is_colour(image):
        return [Finding("channels", "in colour, but the training images are grey", "grey")]
    if fraction == 1 and not is_colour(image):
        return [Finding("channels", "grey, but the training images are in colour", None)]
    return []


def _resolution_findings(image: Images, image_shape: Sequence[int], originals: OriginalImages) -> list[Finding]:
    """Far fewer pixels than the smallest training image, and than the network gets."""
    smallest = min(image_shape[0], originals.height.low), min(image_shape[1], originals.width.low)
    if all(2 * here >= there for here, there in zip(image.shape, smallest, strict=False)):
        return []
    here, there = shape_text(image.shape[:2]), shape_text(list(map(round, smallest)))
    return [Finding("resolution", f"only {here} pixels, but the training images have at least {there}", None)]


def _shape_findings(image: Images, aspect: Range, *, can_crop: bool) -> list[Finding]:
    """An aspect that no training image had, nor any that the eye hardly tells from it."""
    height, width = image.shape[:2]
    if aspect.low / _SIMILAR_ASPECT <= height / width <= aspect.high * _SIMILAR_ASPECT:
        return []
    text = f"{_ratio(width / height)} times as wide as high, but the training images {_aspect_text(aspect)}"
    return [Finding("shape", f"{text}; resizing distorts it", "crop" if can_crop else None)]


def _ratio(value: float) -> str:
    return f"{round(100 * value) / 100:.2f}"


def _aspect_text(aspect: Range) -> str:
    low, high = _ratio(1 / aspect.high), _ratio(1 / aspect.low)
    return low if low == high else f"{low} to {high}"


def _polarity_findings(original: Measurements, statistics: ImageStatistics) -> list[Finding]:
    own_polarity = "light on dark" if original.light_on_dark else "dark on light"
    if own_polarity == statistics.polarity:
        return []
    text = f"{own_polarity}, but the training images are {statistics.polarity}; invert it"
    return [Finding("polarity", text, "invert")]


def _background_findings(original: Measurements, statistics: ImageStatistics) -> list[Finding]:
    same_polarity = original.light_on_dark == (statistics.polarity == "light on dark")
    level = original.background if same_polarity else 255 - original.background
    if original.unevenness > statistics.unevenness.high + 25:
        text = f"unevenly lit: the background varies by {original.unevenness:.0f} grey levels"
        return [Finding("background", f"{text}; even it out", "contrast")]
    if not statistics.background.low - 25 <= level <= statistics.background.high + 25:
        inverted = "" if same_polarity else " once inverted"
        text = f"on a background of grey level {level:.0f}{inverted}, but the training images have "
        return [Finding("background", f"{text}{statistics.background.middle:.0f}; even it out", "contrast")]
    return []


def _position_findings(original: Measurements, statistics: ImageStatistics) -> list[Finding]:
    findings = []
    size = statistics.size
    if not 0.85 * size.low <= original.size <= min(1.15 * size.high, 0.99 + size.high / 20):
        word = "small" if original.size < size.low else "large"
        text = f"too {word}: it fills {original.size:.0%} of the side, {size.middle:.0%} in the training images"
        findings.append(Finding("size", f"{text}; crop or pad it", "crop"))
    directions = [
        word
        for value, spread, (before, after) in zip(
            original.center,
            (statistics.centre_y, statistics.centre_x),
            (("high", "low"), ("far left", "far right")),
            strict=True,
        )
        for word in (before * (value < spread.low - 0.05) or after * (value > spread.high + 0.05),)
        if word
    ]
    if directions:
        findings.append(Finding("centring", f"off center: too {' and too '.join(directions)}; center it", "center"))
    return findings


def _foreground_findings(
    original: Measurements, resized: Measurements | None, statistics: ImageStatistics
) -> list[Finding]:
    if resized is None or resized.contrast < 0.75 * statistics.contrast.low:
        contrast = 0 if resized is None else resized.contrast
        text = f"faint: at the network's input size its contrast is {contrast:.0f} grey levels, "
        return [Finding("contrast", f"{text}{statistics.contrast.middle:.0f} in the training images", "contrast")]
    # Scaled to the usual size: a small or large image is a finding of its own
    fraction = resized.foreground * (statistics.size.middle / original.size) ** 2
    if not 0.6 * statistics.ink.low <= fraction <= 1.6 * statistics.ink.high:
        thin = fraction < statistics.ink.low
        text = f"too {'thin' if thin else 'thick'}: scaled to the usual size, it covers {fraction:.0%} of the image, "
        text += f"{statistics.ink.low:.0%} to {statistics.ink.high:.0%} in the training images"
        return [Finding("ink", text, "contrast" if thin else None)]
    return []


def proposed_fixes(findings: Sequence[Finding]) -> tuple[Fix, ...]:
    """The fixes that the findings propose, in the order in which they are applied."""
    return check_fixes({finding.fix for finding in findings if finding.fix is not None})
