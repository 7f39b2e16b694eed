"""Augmentation against NumPy and SciPy, with fixed or seeded draws."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from foveola.models.batch_part import BatchPart
from foveola.recipe import Augment, load_recipe
from foveola.training import augment
from foveola.training.augment import (
    augment_images,
    cutout,
    draw_mixup,
    mixup,
    random_flip,
    rotate_and_zoom,
    shift,
    uses_flips,
)


def some_images(n=12, height=9, width=7, channels=1, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8))


def shifted(image, down, across, fill):
    """Move the pixel at (i, j) to (i + down, j + across); `fill`, or the border if it is None, fills the rest."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            inside = 0 <= i - down < height and 0 <= j - across < width
            nearest = image[min(max(i - down, 0), height - 1), min(max(j - across, 0), width - 1)]
            result[i, j] = nearest if inside or fill is None else fill
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", [None, 0, 255])
def test_shift_moves_whole_pixels_and_fills_uncovered_ones(channels, fill):
    images = some_images(300, channels=channels)
    torch.manual_seed(0)
    moved = shift(images, 2, fill).numpy()
    occurred = set()
    offsets = range(-2, 3)
    for before, after in zip(images.numpy(), moved, strict=True):
        matches = [(d, a) for d in offsets for a in offsets if np.array_equal(after, shifted(before, d, a, fill))]
        assert len(matches) == 1
        occurred.add(matches[0])
    assert len(occurred) == 25  # every shift occurs, and images differ in theirs
    assert moved.dtype == np.uint8


def test_shifts_may_exceed_the_image():
    moved = shift(some_images(50, height=3, width=3), 10)
    assert moved.shape == (50, 3, 3, 1)


def test_half_of_the_images_are_flipped_left_to_right():
    images = some_images(400, channels=3)
    torch.manual_seed(0)
    pairs = list(zip(images.numpy(), random_flip(images).numpy(), strict=True))
    flipped = [np.array_equal(after, before[:, ::-1]) for before, after in pairs]
    unchanged = [np.array_equal(after, before) for before, after in pairs]
    assert all(a != b for a, b in zip(flipped, unchanged, strict=True))
    assert 150 < sum(flipped) < 250


@pytest.fixture
def draw(monkeypatch):
    """Fix what `_uniform` draws: first the angles, then the scales, in -1..1."""

    def fix(*values):
        draws = iter(values)
        monkeypatch.setattr(augment, "_uniform", lambda n, device: torch.full((n,), next(draws), dtype=torch.float32))

    return fix


@pytest.mark.parametrize(("degrees", "zoom"), [(30, 0), (-17.5, 0), (90, 0), (0, 0.2), (0, -0.3), (25, 0.15)])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 14)])
@pytest.mark.parametrize(("fill", "mode"), [(None, "nearest"), (0, "grid-constant"), (255, "grid-constant")])
def test_rotation_and_zoom_match_scipy(degrees, zoom, height, width, fill, mode, draw):
    draw(math.copysign(1, degrees), math.copysign(1, zoom))
    images = some_images(2, height, width, 3)
    result = rotate_and_zoom(images, abs(degrees), abs(zoom), fill).numpy()
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # maps a pixel of the result to its origin in the image, both as (row, column) from the center
    matrix = np.array([[cosine, sine], [-sine, cosine]]) / (1 + zoom)
    center = (np.array([height, width]) - 1) / 2
    for before, after in zip(images.numpy(), result, strict=True):
        for channel in range(3):
            plane = before[..., channel].astype(np.float64)
            offset = center - matrix @ center
            expected = scipy.ndimage.affine_transform(plane, matrix, offset, order=1, mode=mode, cval=fill or 0)
            assert np.abs(after[..., channel] - expected).max() <= 0.52  # half a level of rounding


def test_no_rotation_and_no_zoom_change_nothing(draw):
    draw(0.0, 0.0)
    images = some_images(3, 9, 14, 3)
    assert torch.equal(rotate_and_zoom(images, 45, 0.5), images)


def test_angles_and_scales_differ_between_images():
    same = some_images(1).expand(30, -1, -1, -1)
    result = rotate_and_zoom(same, 20, 0.1)
    assert len({image.numpy().tobytes() for image in result}) == 30


@pytest.mark.parametrize("side", [1, 2, 3, 4, 9, 30])
def test_cutout_blanks_one_square_clipped_at_the_border(side):
    height, width, n = 9, 7, 400
    x = torch.ones(n, 2, height, width)
    torch.manual_seed(0)
    blanked = cutout(x, side).numpy() == 0
    squares = {}
    for i in range(height):
        for j in range(width):
            square = np.zeros((height, width), bool)
            top, left = i - side // 2, j - side // 2
            square[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
            squares.setdefault(square.tobytes(), (i, j))
    seen = set()
    for first, second in blanked:
        assert np.array_equal(first, second)  # every channel of an image loses the same square
        assert first.tobytes() in squares
        seen.add(first.tobytes())
    assert len(seen) > 0.9 * len(squares)
    assert torch.equal(x, torch.ones_like(x))


def test_mixup_blends_with_its_weight():
    x, partners = torch.randn(2, 10, 1, 4, 4, dtype=torch.float64)
    np.testing.assert_allclose(mixup(x, partners, 0.3), 0.3 * x.numpy() + 0.7 * partners.numpy(), rtol=1e-12)


def test_mixup_draws_its_weight_from_the_beta_distribution_and_an_order():
    torch.manual_seed(0)
    draws = [draw_mixup(0.4, 10, torch.device("cpu")) for _ in range(500)]
    assert scipy.stats.kstest([weight for weight, _ in draws], scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.001
    assert all(sorted(order.tolist()) == list(range(10)) for _, order in draws)


@pytest.mark.parametrize("rows", [slice(3, 9), torch.tensor([11, 0, 4])])
def test_a_part_of_a_batch_is_changed_as_within_the_whole(rows):
    images = some_images(12)
    everything = Augment(shift=2, rotation=10, zoom=0.1)
    torch.manual_seed(0)
    whole = cutout(augment_images(images, everything, flip=True).float(), 3)
    torch.manual_seed(0)
    part = BatchPart(12, rows)
    own = cutout(augment_images(images[rows], everything, flip=True, part=part).float(), 3, part)
    assert torch.equal(own, whole[rows])


def test_nothing_changes_by_default():
    images = some_images()
    assert augment_images(images, Augment(), flip=False) is images


@pytest.mark.parametrize(("polarity", "fill"), [("light on dark", 0), ("dark on light", 255), ("mixed", None)])
def test_uncovered_pixels_take_the_background_of_the_data(polarity, fill):
    images = some_images(60)
    torch.manual_seed(0)
    changed = augment_images(images, Augment(shift=2, rotation=10), False, polarity)
    torch.manual_seed(0)
    assert torch.equal(changed, shift(rotate_and_zoom(images, 10, 0, fill), 2, fill))


def test_the_flip_argument_decides_about_flips():
    images = some_images(60)
    torch.manual_seed(0)
    flipped = augment_images(images, Augment(), flip=True)
    torch.manual_seed(0)
    assert torch.equal(flipped, random_flip(images))
    assert torch.equal(augment_images(images, Augment(flip=True), flip=False), images)


def test_draws_follow_the_global_seed():
    images = some_images(20)
    everything = Augment(shift=2, rotation=10, zoom=0.1)

    def changed(seed):
        torch.manual_seed(seed)
        return augment_images(images, everything, flip=True)

    assert torch.equal(changed(1), changed(1))
    assert not torch.equal(changed(1), changed(2))
    assert changed(1).dtype == torch.uint8
    assert changed(1).shape == images.shape


@pytest.mark.parametrize(
    ("setting", "flip_safe", "expected"),
    [
        ("auto", False, False),
        ("auto", True, True),
        (True, False, True),
        (True, True, True),
        (False, False, False),
        (False, True, False),
    ],
)
def test_auto_flips_only_data_that_is_flip_safe(setting, flip_safe, expected):
    recipe = load_recipe("strong", {"augment.flip": setting, "epochs": 20})
    assert uses_flips(recipe, flip_safe, 50_000) is expected


@pytest.mark.parametrize(
    ("length", "images", "expected"),
    [
        ({"epochs": 8}, 50_000, False),
        ({"epochs": 9}, 50_000, True),
        ({"steps": 1400}, 50_000, False),
        ({"steps": 4000}, 50_000, True),
        ({"steps": 90}, 1280, True),
        ({}, 10_000, True),  # `strong` then takes its 1,500 steps
        ({"batches": "random", "steps_per_epoch": 100, "epochs": 20}, 50_000, False),
    ],
)
def test_auto_flips_only_in_long_trainings(length, images, expected):
    assert uses_flips(load_recipe("strong", length), True, images) is expected
