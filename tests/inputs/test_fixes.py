"""Fixes of images: fixed photographs look like the training images, and nothing else is changed."""

import numpy as np
import pytest
from glyphs import ORIGINALS, SHAPE, STROKES, draw_glyph, photograph, training_image
from PIL import Image, ImageDraw

from foveola.errors import UserError
from foveola.inputs.checks import check_image, compute_statistics, proposed_fixes
from foveola.inputs.fixes import FIXES, apply_fixes, check_fixes
from foveola.inputs.resize import resize
from foveola.models.metadata import OriginalImages

SQUARE = ORIGINALS.aspect


def finding_codes(image, statistics, shape=SHAPE, originals=ORIGINALS):
    return {finding.code for finding in check_image(image, statistics, shape, originals)}


def test_fixes_are_ordered_however_they_are_given():
    assert check_fixes(["center", "invert", "grey", "crop"]) == ("grey", "invert", "crop", "center")
    assert tuple(FIXES) == ("grey", "invert", "contrast", "crop", "center")


def test_an_unknown_fix_is_refused_with_the_nearest_known_one(statistics):
    with pytest.raises(UserError, match=r"'inver'.*Did you mean 'invert'.*auto"):
        apply_fixes(np.zeros(SHAPE, np.uint8), ["inver"], statistics, SHAPE, SQUARE)


def test_only_requested_fixes_are_applied_and_the_original_is_kept(statistics):
    image = photograph(0, 0)
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    np.testing.assert_array_equal(apply_fixes(image, (), statistics, SHAPE, SQUARE), resize(grey, 28, 28))
    before = image.copy()
    apply_fixes(image, FIXES, statistics, SHAPE, SQUARE)
    np.testing.assert_array_equal(image, before)


def test_grey_and_invert_do_not_measure_the_image(statistics, images, monkeypatch):
    monkeypatch.setattr("foveola.inputs.fixes.measure", lambda _: pytest.fail("measured"))
    for fixes in [(), ("grey", "invert")]:
        apply_fixes(images[0], fixes, statistics, SHAPE, SQUARE)


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (28, 28, 1), (300, 2, 3)])
def test_a_blank_image_is_not_changed(statistics, level, shape):
    fixed = apply_fixes(np.full(shape, level, np.uint8), {"contrast", "crop", "center"}, statistics, SHAPE, SQUARE)
    np.testing.assert_array_equal(fixed, np.full(SHAPE, level))


@pytest.mark.parametrize("kind", range(len(STROKES)))
@pytest.mark.parametrize("seed", range(5))
def test_the_proposed_fixes_make_a_photograph_look_like_its_training_image(statistics, kind, seed):
    image = photograph(kind, seed)
    findings = check_image(image, statistics, SHAPE, ORIGINALS)
    assert {"polarity", "centring", "channels", "background", "size"} <= {finding.code for finding in findings}
    fixed = apply_fixes(image, proposed_fixes(findings), statistics, SHAPE, SQUARE)
    assert fixed.shape == SHAPE
    assert check_image(fixed, statistics, SHAPE, ORIGINALS) == []
    similarity = [
        max(
            np.corrcoef(fixed.ravel(), np.roll(training_image(other, width), (dy, dx), (0, 1)).ravel())[0, 1]
            for width in (0.08, 0.13)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )
        for other in range(len(STROKES))
    ]
    assert np.argmax(similarity) == kind


@pytest.mark.parametrize(
    ("fixes", "removed", "remaining"),
    [
        ({"invert"}, {"polarity"}, {"size", "centring"}),
        ({"crop", "center"}, {"size", "centring"}, {"polarity"}),
        ({"center"}, {"centring"}, {"polarity", "size"}),
    ],
)
def test_a_fix_removes_only_its_own_findings(statistics, images, fixes, removed, remaining):
    image = 255 - np.pad(images[1], ((0, 28), (0, 28), (0, 0)))
    assert finding_codes(image, statistics) == removed | remaining
    assert finding_codes(apply_fixes(image, fixes, statistics, SHAPE, SQUARE), statistics) == remaining


def test_thin_strokes_are_widened(statistics):
    thin = (255 * draw_glyph(1, 400, 0.02)).astype(np.uint8)[..., None]
    assert {"contrast", "ink"} & finding_codes(thin, statistics)
    fixed = apply_fixes(thin, {"contrast", "crop", "center"}, statistics, SHAPE, SQUARE)
    assert check_image(fixed, statistics, SHAPE, ORIGINALS) == []
    assert (
        compute_statistics(fixed[None]).stroke.middle
        > 1.5 * compute_statistics(resize(thin, 28, 28)[None]).stroke.middle
    )


def test_colour_images_are_fixed_in_colour():
    random = np.random.default_rng(0)
    images = np.stack([training_image(i % 4, 0.13).repeat(3, axis=2) for i in range(20)])
    images[..., 2] //= 2
    statistics = compute_statistics(images)
    dark = 255 - np.pad(images[0], ((10, 30), (20, 20), (0, 0)))
    dark = (dark * 0.8 + random.normal(0, 3, (*dark.shape[:2], 1))).clip(0, 255).astype(np.uint8)
    fixed = apply_fixes(dark, {"invert", "contrast", "crop", "center"}, statistics, (28, 28, 3), SQUARE)
    assert fixed.shape == (28, 28, 3)
    shifted = [np.roll(fixed, (y, x), axis=(0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert max(np.corrcoef(image.ravel(), images[0].ravel())[0, 1] for image in shifted) > 0.94
    assert fixed[..., 0].max() > 1.6 * fixed[..., 2].max()


def test_images_that_are_not_square_keep_their_proportions():
    random = np.random.default_rng(0)
    tall = np.zeros((30, 40, 20, 1), np.uint8)
    for each in tall:
        each[10:30, 5:15] = random.integers(150, 255)
    statistics = compute_statistics(tall)
    image = np.full((300, 500, 1), 10, np.uint8)
    image[50:150, 30:80] = 240
    originals = OriginalImages.of(np.array([40]), np.array([20]))
    assert finding_codes(image, statistics, (40, 20, 1), originals) >= {"shape", "size", "centring"}
    fixed = apply_fixes(image, {"crop", "center"}, statistics, (40, 20, 1), originals.aspect)[..., 0] > 128
    assert np.flatnonzero(fixed.any(axis=1))[[0, -1]] == pytest.approx([10, 29], abs=1)
    assert np.flatnonzero(fixed.any(axis=0))[[0, -1]] == pytest.approx([5, 14], abs=1)


def ellipse(shape, centre, radii):
    """A dark ellipse on white, uint8 H×W×1."""
    image = Image.new("L", shape[::-1], 255)
    (y, x), (high, wide) = centre, radii
    ImageDraw.Draw(image).ellipse((x - wide, y - high, x + wide, y + high), fill=0)
    return np.asarray(image)[..., None]


@pytest.mark.parametrize("wide", [1, 2.8])
@pytest.mark.parametrize("shape", [(300, 300), (400, 200), (120, 900)])
def test_images_of_another_shape_are_cropped_to_that_of_the_training_images(wide, shape):
    """Images of 100×300 that were stretched to 64×64; an ellipse stays one, and a disc a disc."""
    random = np.random.default_rng(0)
    originals = OriginalImages.of(np.full(20, 100), np.full(20, 300))
    heights = random.uniform(28, 36, 20)
    train = [ellipse((100, 300), (50, random.integers(140, 160)), (high, wide * high)) for high in heights]
    statistics = compute_statistics(np.stack([resize(image, 64, 64) for image in train]))
    for image in train:
        assert check_image(image, statistics, (64, 64, 1), originals) == []

    given = ellipse(shape, (shape[0] / 2, shape[1] / 2), (32, wide * 32))
    findings = check_image(given, statistics, (64, 64, 1), originals)
    assert ("shape", "crop") in {(finding.code, finding.fix) for finding in findings}
    fixed = apply_fixes(given, {"crop", "center"}, statistics, (64, 64, 1), originals.aspect)
    assert np.abs(fixed.astype(int) - resize(ellipse((100, 300), (50, 150), (32, wide * 32)), 64, 64)).mean() < 12
