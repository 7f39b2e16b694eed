"""Statistics of training images, and findings: planted faults are named, training images have none."""

import numpy as np
import pytest
from glyphs import ORIGINALS, SHAPE

from foveola.inputs.checks import check_image, compute_statistics
from foveola.models.metadata import ImageStatistics, OriginalImages


def finding_codes(image, statistics):
    return {finding.code for finding in check_image(image, statistics, SHAPE, ORIGINALS)}


def test_statistics_match_the_drawn_glyphs(statistics, images):
    assert statistics.polarity == "light on dark"
    assert statistics.background.high == 0
    assert statistics.contrast.low > 200
    assert statistics.size.middle == pytest.approx(20 / 28, abs=2 / 28)
    assert statistics.centre_y.middle == pytest.approx(0.5, abs=0.5 / 28)
    assert statistics.centre_x.middle == pytest.approx(0.5, abs=0.5 / 28)
    assert statistics.ink.middle == pytest.approx(np.median((images > 84).mean(axis=(1, 2, 3))), abs=0.01)
    widths = [0.13 * 22 / (size * 28) for size in (statistics.size.low, statistics.size.high)]
    assert min(widths) * 0.75 < statistics.stroke.middle < max(widths) * 1.25


def test_statistics_round_trip_through_json(statistics):
    assert ImageStatistics.model_validate_json(statistics.model_dump_json()) == statistics


def test_inverted_images_have_the_same_statistics_but_inverted_polarity_and_background(statistics, images):
    inverted = compute_statistics(255 - images)
    assert inverted.polarity == "dark on light"
    assert inverted.background.middle == 255
    for name in ("contrast", "ink", "size", "stroke", "centre_y", "centre_x"):
        assert getattr(inverted, name) == getattr(statistics, name)


def test_photographs_have_no_statistics():
    assert compute_statistics(np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)) is None


def test_repeating_the_images_does_not_change_the_statistics(images):
    assert compute_statistics(images.repeat(30, axis=0)).size.middle == compute_statistics(images).size.middle


@pytest.mark.parametrize("index", range(0, 80, 7))
def test_a_training_image_has_no_findings_in_any_channels_or_size(statistics, images, index):
    assert check_image(images[index], statistics, SHAPE, ORIGINALS) == []
    assert check_image(images[index].repeat(3, axis=2), statistics, SHAPE, ORIGINALS) == []
    assert check_image(images[index].repeat(10, axis=0).repeat(10, axis=1), statistics, SHAPE, ORIGINALS) == []


def test_each_planted_fault_is_named_alone(statistics, images):
    image = images[0]
    assert finding_codes(255 - image, statistics) == {"polarity"}
    assert finding_codes(np.roll(image, 4, axis=1), statistics) == {"centring"}
    assert finding_codes(np.pad(image, ((14, 14), (14, 14), (0, 0))), statistics) == {"size"}
    assert finding_codes(image // 4, statistics) == {"contrast"}
    assert finding_codes(image // 2 + 100, statistics) == {"background", "contrast"}
    assert finding_codes(np.pad(image, ((0, 0), (20, 20), (0, 0))), statistics) == {"shape"}
    gradient = np.linspace(0, 90, 28).astype(np.uint8)[None, :, None]
    assert finding_codes(np.maximum(image, gradient), statistics) >= {"background"}
    reddish = np.concatenate([image, image // 2, image // 2], axis=2)
    assert "channels" in finding_codes(reddish, statistics)


def test_findings_give_direction_and_size(statistics, images):
    (finding,) = check_image(np.roll(images[0], -3, axis=(0, 1)), statistics, SHAPE, ORIGINALS)
    assert finding.text.startswith("off center: too high and too far left")
    (finding,) = check_image(np.pad(images[0], ((14, 14), (14, 14), (0, 0))), statistics, SHAPE, ORIGINALS)
    assert finding.text.startswith("too small: it fills 3")
    assert finding.fix == "crop"


def test_strokes_that_are_too_thick_are_named_and_cannot_be_fixed(statistics):
    square = np.zeros(SHAPE, np.uint8)
    square[4:24, 4:24] = 255
    (finding,) = check_image(square, statistics, SHAPE, ORIGINALS)
    assert finding.text.startswith("too thick")
    assert finding.fix is None


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (28, 28, 1), (300, 2, 3)])
def test_a_blank_image_is_called_blank(statistics, level, shape):
    assert "blank" in finding_codes(np.full(shape, level, np.uint8), statistics)


def test_an_image_of_noise_is_called_blank(statistics):
    random = np.random.default_rng(0)
    assert "blank" in finding_codes(random.normal(120, 12, (200, 200, 1)).clip(0, 255).astype(np.uint8), statistics)


def test_without_statistics_only_shape_and_channels_are_compared(images):
    assert check_image(255 - images[0], None, SHAPE, ORIGINALS) == []
    (finding,) = check_image(images[0], None, (28, 28, 3), ORIGINALS)
    assert (finding.code, finding.fix) == ("channels", None)
    (finding,) = check_image(images[0][:5, :5], None, SHAPE, ORIGINALS)
    assert finding.code == "resolution"


WIDE = OriginalImages.of(np.full(9, 100), np.full(9, 300))
SMALL = OriginalImages.of(np.arange(20, 30), np.arange(20, 30))


def test_size_and_shape_are_compared_with_the_images_before_they_were_resized():
    """Images of 100×300 and of 20 to 29 pixels, learnt at 64×64."""
    wide, small, shape = np.zeros((100, 300, 1), np.uint8), np.zeros((20, 20, 1), np.uint8), (64, 64, 1)
    assert check_image(wide, None, shape, WIDE) == []
    assert check_image(small, None, shape, SMALL) == []
    assert check_image(np.zeros((300, 900, 1), np.uint8), None, shape, WIDE) == []
    assert check_image(np.zeros((10, 10, 1), np.uint8), None, shape, SMALL) == []
    (finding,) = check_image(np.zeros((64, 64, 1), np.uint8), None, shape, WIDE)
    assert (finding.code, finding.fix) == ("shape", None)
    assert finding.text == "1.00 times as wide as high, but the training images 3.00; resizing distorts it"
    (finding,) = check_image(np.zeros((9, 9, 1), np.uint8), None, shape, SMALL)
    assert finding.text == "only 9×9 pixels, but the training images have at least 20×20"


def test_colour_is_compared_with_the_images_before_they_were_converted(images):
    """A network of colour images may have learnt grey ones, or both."""
    grey, colour = images[0].repeat(3, axis=2), images[0] * np.array([1, 0, 0], np.uint8)
    for fraction, of_grey, of_colour in ((0, [], ["grey"]), (0.5, [], []), (1, [None], []), (None, [None], [])):
        originals = OriginalImages.of(np.array([28]), np.array([28]), fraction)
        for given, fixes in ((images[0], of_grey), (grey, of_grey), (colour, of_colour)):
            found = check_image(given, None, (28, 28, 3), originals)
            assert [(finding.code, finding.fix) for finding in found] == [("channels", fix) for fix in fixes]


def test_fewer_pixels_than_in_training_are_no_finding_if_the_network_gets_fewer_still():
    large = OriginalImages.of(np.array([3000]), np.array([4000]))
    assert check_image(np.zeros((300, 400, 1), np.uint8), None, (64, 64, 1), large) == []
    assert [each.code for each in check_image(np.zeros((30, 40, 1), np.uint8), None, (64, 64, 1), large)] == [
        "resolution"
    ]


def test_every_aspect_of_the_training_images_is_usual():
    mixed = OriginalImages.of(np.array([100, 100, 200]), np.array([100, 250, 100]))
    for height, width in ((100, 100), (80, 200), (200, 100), (150, 120)):
        assert check_image(np.zeros((height, width, 1), np.uint8), None, (64, 64, 1), mixed) == []
    (finding,) = check_image(np.zeros((50, 200, 1), np.uint8), None, (64, 64, 1), mixed)
    assert finding.text.startswith("4.00 times as wide as high, but the training images 0.50 to 2.50;")
