"""The input doctor on drawn glyphs: what is planted is named, and what is fixed looks like the training images."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from foveola.decoding import resize
from foveola.doctor import FIXES, Statistics, check_fixes, describe, examine, fix, proposed
from foveola.errors import UserError

SHAPE = (28, 28, 1)
STROKES = (  # in a box of 1×1, y downwards
    [(0.1, 0.0), (0.9, 0.0), (0.3, 1.0)],
    [(0.6, 0.0), (0.1, 0.6), (0.9, 0.6), (0.6, 0.3), (0.6, 1.0)],
    [(0.5, 0.0), (0.5, 1.0)],
    [(0.9, 0.1), (0.2, 0.3), (0.2, 0.9), (0.8, 0.8), (0.7, 0.5), (0.2, 0.6)],
)


def ink(kind, side, width, rotation=0):
    """A glyph that fills a box of about side×side pixels: float 0 to 1."""
    image = Image.new("L", (4 * side, 4 * side))
    points = [((x * 0.88 + 0.06) * 4 * side, (y * 0.88 + 0.06) * 4 * side) for x, y in STROKES[kind]]
    ImageDraw.Draw(image).line(points, fill=255, width=round(4 * side * width), joint="curve")
    image = image.rotate(rotation, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32) / 255


def training_image(kind, width):
    """Light on black, 20 pixels large, the centre of mass in the middle, as MNIST's are."""
    canvas, glyph = np.zeros((60, 60), np.float32), ink(kind, 22, width)
    canvas[20:42, 20:42] = glyph
    y, x = (np.average(np.arange(60) + 0.5, weights=canvas.sum(axis=axis)) for axis in (1, 0))
    top, left = round(y - 14), round(x - 14)
    return (255 * canvas[top : top + 28, left : left + 28]).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return np.stack([training_image(i % len(STROKES), random.uniform(0.1, 0.16)) for i in range(80)])


@pytest.fixture(scope="module")
def statistics(images) -> Statistics:
    return describe(images)


def photograph(kind, seed):
    """Dark ink on tinted paper under uneven light, off centre, noisy: uint8 H×W×3."""
    random = np.random.default_rng(seed)
    height, width = random.integers(200, 360, 2)
    side = round(min(height, width) * random.uniform(0.25, 0.5))
    glyph = ink(kind, side, random.uniform(0.05, 0.16), random.uniform(-8, 8))
    top, left = (round((length - side) * random.choice([0.05, 0.95])) for length in (height, width))
    sheet = np.zeros((height, width), np.float32)
    sheet[top : top + side, left : left + side] = glyph
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    light = 1 - 0.12 * (x**2 + y**2) + 0.15 * random.choice([-1, 1]) * x
    paper, colour = random.uniform(170, 220) * np.array([1, 0.97, 0.9]), np.array([40, 45, 90])
    picture = (paper + (colour - paper) * sheet[..., None]) * light[..., None] + random.normal(0, 5, (height, width, 1))
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    return np.asarray(image)


def codes(picture, statistics):
    return {finding.code for finding in examine(picture, statistics, SHAPE)}


def test_statistics_are_what_was_drawn(statistics, images):
    assert statistics.polarity == "light on dark"
    assert statistics.background.high == 0
    assert statistics.contrast.low > 200
    assert statistics.size.middle == pytest.approx(20 / 28, abs=2 / 28)
    assert statistics.centre_y.middle == pytest.approx(0.5, abs=0.5 / 28)
    assert statistics.centre_x.middle == pytest.approx(0.5, abs=0.5 / 28)
    assert statistics.ink.middle == pytest.approx(np.median((images > 84).mean(axis=(1, 2, 3))), abs=0.01)
    widths = [0.13 * 22 / (size * 28) for size in (statistics.size.low, statistics.size.high)]
    assert min(widths) * 0.75 < statistics.stroke.middle < max(widths) * 1.25


def test_statistics_survive_json(statistics):
    assert Statistics.model_validate_json(statistics.model_dump_json()) == statistics


def test_inverted_images_have_the_same_statistics_the_other_way_round(statistics, images):
    inverted = describe(255 - images)
    assert inverted.polarity == "dark on light"
    assert inverted.background.middle == 255
    for name in ("contrast", "ink", "size", "stroke", "centre_y", "centre_x"):
        assert getattr(inverted, name) == getattr(statistics, name)


def test_photographs_have_no_statistics():
    assert describe(np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)) is None


def test_of_many_images_a_part_is_enough(images):
    assert describe(images.repeat(30, axis=0)).size.middle == describe(images).size.middle


@pytest.mark.parametrize("index", range(0, 80, 7))
def test_nothing_is_wrong_with_a_training_image(statistics, images, index):
    assert examine(images[index], statistics, SHAPE) == []
    assert examine(images[index].repeat(3, axis=2), statistics, SHAPE) == []
    assert examine(images[index].repeat(10, axis=0).repeat(10, axis=1), statistics, SHAPE) == []


def test_each_planted_fault_is_named_alone(statistics, images):
    image = images[0]
    assert codes(255 - image, statistics) == {"polarity"}
    assert codes(np.roll(image, 4, axis=1), statistics) == {"centring"}
    assert codes(np.pad(image, ((14, 14), (14, 14), (0, 0))), statistics) == {"size"}
    assert codes(image // 4, statistics) == {"contrast"}
    assert codes(image // 2 + 100, statistics) == {"background", "contrast"}
    assert codes(np.pad(image, ((0, 0), (20, 20), (0, 0))), statistics) == {"shape"}
    gradient = np.linspace(0, 90, 28).astype(np.uint8)[None, :, None]
    assert codes(np.maximum(image, gradient), statistics) >= {"background"}
    reddish = np.concatenate([image, image // 2, image // 2], axis=2)
    assert "channels" in codes(reddish, statistics)


def test_a_finding_says_where_to(statistics, images):
    (finding,) = examine(np.roll(images[0], -3, axis=(0, 1)), statistics, SHAPE)
    assert finding.text.startswith("off centre: too high and too far left")
    (finding,) = examine(np.pad(images[0], ((14, 14), (14, 14), (0, 0))), statistics, SHAPE)
    assert finding.text.startswith("too small: it takes 3")
    assert finding.fix == "crop"


def test_strokes_that_are_too_thick_are_named_and_cannot_be_fixed(statistics):
    square = np.zeros(SHAPE, np.uint8)
    square[4:24, 4:24] = 255
    (finding,) = examine(square, statistics, SHAPE)
    assert finding.text.startswith("too thick")
    assert finding.fix is None


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (28, 28, 1), (300, 2, 3)])
def test_a_blank_picture_is_called_blank_and_stays_as_it_is(statistics, level, shape):
    picture = np.full(shape, level, np.uint8)
    assert "blank" in codes(picture, statistics)
    np.testing.assert_array_equal(
        fix(picture, {"contrast", "crop", "center"}, statistics, SHAPE), np.full(SHAPE, level)
    )


def test_noise_alone_is_blank(statistics):
    random = np.random.default_rng(0)
    assert "blank" in codes(random.normal(120, 12, (200, 200, 1)).clip(0, 255).astype(np.uint8), statistics)


def test_without_statistics_shape_and_channels_are_compared(images):
    assert examine(255 - images[0], None, SHAPE) == []
    (finding,) = examine(images[0], None, (28, 28, 3))
    assert (finding.code, finding.fix) == ("channels", None)
    (finding,) = examine(images[0][:5, :5], None, SHAPE)
    assert finding.code == "resolution"


def test_nothing_is_changed_without_being_asked(statistics):
    picture = photograph(0, 0)
    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    np.testing.assert_array_equal(fix(picture, (), statistics, SHAPE), resize(grey, 28, 28))
    before = picture.copy()
    fix(picture, FIXES, statistics, SHAPE)
    np.testing.assert_array_equal(picture, before)


def test_only_fixes_that_go_by_the_ink_have_it_measured(statistics, images, monkeypatch):
    monkeypatch.setattr("foveola.doctor.measure", lambda _: pytest.fail("measured"))
    for fixes in [(), ("grey", "invert")]:
        fix(images[0], fixes, statistics, SHAPE)


@pytest.mark.parametrize("kind", range(len(STROKES)))
@pytest.mark.parametrize("seed", range(5))
def test_a_photograph_is_diagnosed_and_cured(statistics, kind, seed):
    picture = photograph(kind, seed)
    findings = examine(picture, statistics, SHAPE)
    assert {"polarity", "centring", "channels", "background", "size"} <= {finding.code for finding in findings}
    cured = fix(picture, proposed(findings), statistics, SHAPE)
    assert cured.shape == SHAPE
    assert examine(cured, statistics, SHAPE) == []
    similarity = [
        max(
            np.corrcoef(cured.ravel(), np.roll(training_image(other, width), (dy, dx), (0, 1)).ravel())[0, 1]
            for width in (0.08, 0.13)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )
        for other in range(len(STROKES))
    ]
    assert np.argmax(similarity) == kind


@pytest.mark.parametrize(
    ("fixes", "cured", "left"),
    [
        ({"invert"}, {"polarity"}, {"size", "centring"}),
        ({"crop", "center"}, {"size", "centring"}, {"polarity"}),
        ({"center"}, {"centring"}, {"polarity", "size"}),
    ],
)
def test_a_fix_cures_its_own_finding_only(statistics, images, fixes, cured, left):
    picture = 255 - np.pad(images[1], ((0, 28), (0, 28), (0, 0)))
    assert codes(picture, statistics) == cured | left
    assert codes(fix(picture, fixes, statistics, SHAPE), statistics) == left


def test_thin_strokes_are_widened(statistics):
    thin = (255 * ink(1, 400, 0.02)).astype(np.uint8)[..., None]
    assert {"contrast", "ink"} & codes(thin, statistics)
    fixed = fix(thin, {"contrast", "crop", "center"}, statistics, SHAPE)
    assert examine(fixed, statistics, SHAPE) == []
    assert describe(fixed[None]).stroke.middle > 1.5 * describe(resize(thin, 28, 28)[None]).stroke.middle


def test_colour_pictures_are_fixed_in_colour():
    random = np.random.default_rng(0)
    images = np.stack([training_image(i % 4, 0.13).repeat(3, axis=2) for i in range(20)])
    images[..., 2] //= 2
    statistics = describe(images)
    dark = 255 - np.pad(images[0], ((10, 30), (20, 20), (0, 0)))
    dark = (dark * 0.8 + random.normal(0, 3, (*dark.shape[:2], 1))).clip(0, 255).astype(np.uint8)
    fixed = fix(dark, {"invert", "contrast", "crop", "center"}, statistics, (28, 28, 3))
    assert fixed.shape == (28, 28, 3)
    shifted = [np.roll(fixed, (y, x), axis=(0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert max(np.corrcoef(image.ravel(), images[0].ravel())[0, 1] for image in shifted) > 0.94
    assert fixed[..., 0].max() > 1.6 * fixed[..., 2].max()


def test_images_that_are_not_square_keep_their_proportions():
    random = np.random.default_rng(0)
    tall = np.zeros((30, 40, 20, 1), np.uint8)
    for image in tall:
        image[10:30, 5:15] = random.integers(150, 255)
    statistics = describe(tall)
    picture = np.full((300, 500, 1), 10, np.uint8)
    picture[50:150, 30:80] = 240
    assert codes_of_shape(picture, statistics, (40, 20, 1)) >= {"shape", "size", "centring"}
    fixed = fix(picture, {"crop", "center"}, statistics, (40, 20, 1))[..., 0] > 128
    assert np.flatnonzero(fixed.any(axis=1))[[0, -1]] == pytest.approx([10, 29], abs=1)
    assert np.flatnonzero(fixed.any(axis=0))[[0, -1]] == pytest.approx([5, 14], abs=1)


def codes_of_shape(picture, statistics, shape):
    return {finding.code for finding in examine(picture, statistics, shape)}


def test_fixes_have_one_order_however_they_are_given():
    assert check_fixes(["center", "invert", "grey", "crop"]) == ("grey", "invert", "crop", "center")
    assert tuple(FIXES) == ("grey", "invert", "contrast", "crop", "center")


def test_an_unknown_fix_is_refused_by_name(statistics):
    with pytest.raises(UserError, match=r"'inver'.*Did you mean 'invert'.*auto"):
        fix(np.zeros(SHAPE, np.uint8), ["inver"], statistics, SHAPE)
