"""Augmentation against NumPy and SciPy, with fixed or seeded draws."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from PIL import Image, ImageEnhance

from foveola.models.batch_part import BatchPart
from foveola.recipe import load_recipe
from foveola.recipe_parts import Augment
from foveola.training import augment
from foveola.training.augment import (
    augment_images,
    cutout,
    describe,
    draw_mixup,
    jitter,
    mixup,
    random_flip,
    random_resized_crop,
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


def test_cutout_takes_a_fraction_of_the_shorter_side():
    x = torch.ones(50, 1, 8, 12)
    found = []
    for side in (3, 0.375):
        torch.manual_seed(0)
        found.append(cutout(x, side))
    assert torch.equal(*found)
    assert describe(Augment(cutout=0.375), flip=False) == "cutout of 37.5 % of the shorter side"
    assert describe(Augment(cutout=3), flip=False) == "cutout of 3 pixels"


def test_mixup_blends_with_its_weight():
    x, partners = torch.randn(2, 10, 1, 4, 4, dtype=torch.float64)
    np.testing.assert_allclose(mixup(x, partners, 0.3), 0.3 * x.numpy() + 0.7 * partners.numpy(), rtol=1e-12)


def test_mixup_draws_its_weight_from_the_beta_distribution_and_an_order():
    torch.manual_seed(0)
    draws = [draw_mixup(0.4, 10, torch.device("cpu")) for _ in range(500)]
    assert scipy.stats.kstest([weight for weight, _ in draws], scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.001
    assert all(sorted(order.tolist()) == list(range(10)) for _, order in draws)


@pytest.mark.parametrize("rows", [slice(3, 9), torch.tensor([11, 0, 4])])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_a_batch_is_changed_as_within_the_whole(rows, channels):
    images = some_images(12, channels=channels)
    everything = Augment(shift=2, rotation=10, zoom=0.1, strength=0.5).settled(colour=True)
    torch.manual_seed(0)
    whole = cutout(augment_images(images, everything, flip=True).float(), 3)
    torch.manual_seed(0)
    part = BatchPart(12, rows)
    own = cutout(augment_images(images[rows], everything, flip=True, part=part).float(), 3, part)
    assert torch.equal(own, whole[rows])


def test_nothing_changes_by_default():
    images = some_images()
    assert augment_images(images, Augment(), flip=False) is images
    assert augment_images(images, Augment(strength=0.0).settled(colour=True), flip=False) is images


def windows_of(images, smallest, monkeypatch):
    """What `random_resized_crop` crops to: int N×4, as (top, left, rows, columns)."""
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(augment, "_resize_each", lambda images, windows, shape: found.append(windows) or images)
        random_resized_crop(images, smallest)
    return found[0].numpy().astype(int)


@pytest.mark.parametrize("resize", [augment._resize_each, augment._resize_together])
@pytest.mark.parametrize(("height", "width", "channels"), [(40, 40, 3), (24, 51, 1)])
def test_crops_are_resized_as_pillow_resizes_them(resize, height, width, channels, monkeypatch):
    images = some_images(20, height, width, channels)
    windows = windows_of(images, 0.2, monkeypatch)
    resized = resize(images, torch.from_numpy(windows).float(), (height, width)).numpy()
    for before, after, (top, left, rows, columns) in zip(images.numpy(), resized, windows.tolist(), strict=True):
        picture = Image.fromarray(before.squeeze()).crop((left, top, left + columns, top + rows))
        expected = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.int64)
        assert np.abs(after.squeeze() - expected).max() <= 1  # Pillow rounds twice
    assert resized.dtype == np.uint8


@pytest.mark.parametrize(("height", "width"), [(200, 200), (100, 300)])
@pytest.mark.parametrize("smallest", [0.08, 0.5, 0.95])
def test_crops_keep_the_area_and_nearly_the_aspect_that_they_promise(smallest, height, width, monkeypatch):
    torch.manual_seed(0)
    top, left, rows, columns = windows_of(some_images(2000, height, width), smallest, monkeypatch).T
    assert min(top.min(), left.min()) == 0
    assert ((top + rows <= height) & (left + columns <= width)).all()
    area, aspect = rows * columns / (height * width), (columns / width) / (rows / height)
    assert smallest - 0.01 < area.min() < smallest + 0.02
    assert area.max() > 0.98
    assert max(aspect.max(), 1 / aspect.min()) < 4 / 3 + 0.05
    # Areas are drawn evenly, and places evenly among those that there are
    assert area.mean() == pytest.approx((1 + smallest) / 2, abs=0.02)
    assert (left[columns < width] / (width - columns[columns < width])).mean() == pytest.approx(0.5, abs=0.04)


def test_smaller_crops_are_resized_as_pillow_resizes_them(monkeypatch):
    images = some_images(20, 60, 60, 3)
    windows = windows_of(images, 0.5, monkeypatch)
    resized = augment._resize_each(images, torch.from_numpy(windows).float(), (24, 24)).numpy()
    for before, after, (top, left, rows, columns) in zip(images.numpy(), resized, windows.tolist(), strict=True):
        picture = Image.fromarray(before).crop((left, top, left + columns, top + rows))
        expected = np.asarray(picture.resize((24, 24), Image.Resampling.BILINEAR), np.int64)
        assert np.abs(after - expected).max() <= 1
    settings = Augment(crop_size=24, shift=2)
    assert augment_images(images, settings, flip=True).shape == (20, 24, 24, 3)


def test_a_crop_of_a_small_image_has_at_least_one_pixel():
    assert random_resized_crop(some_images(50, 4, 4), 0.01).shape == (50, 4, 4, 1)


ENHANCERS = {
    "brightness": (1, lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor)),
    "contrast": (2, lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor)),
    "saturation": (0, lambda picture, factor: ImageEnhance.Color(picture).enhance(factor)),
}


@pytest.fixture
def draw_colours(monkeypatch):
    """Fix what `jitter` draws, each in -1..1: saturation, brightness, contrast, turn of the hue."""

    def fix(**draws):
        values = iter([draws.get(name, 0.0) for name in ("saturation", "brightness", "contrast", "hue")])
        monkeypatch.setattr(augment, "_uniform", lambda n, device: torch.full((n,), next(values), dtype=torch.float32))

    return fix


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("drawn", [-1, -0.3, 0.6, 1])
def test_colours_change_as_pillow_changes_them(name, drawn, draw_colours):
    draw_colours(**{name: drawn})
    images = some_images(3, 30, 40, 3)
    amounts = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0} | {name: 0.4}
    changed = jitter(images, amounts["brightness"], amounts["contrast"], amounts["saturation"]).numpy()
    for before, after in zip(images.numpy(), changed, strict=True):
        expected = np.asarray(ENHANCERS[name][1](Image.fromarray(before), 1 + 0.4 * drawn), np.int64)
        assert np.abs(after - expected).max() <= 1  # Pillow rounds grey levels, and cuts fractions off


@pytest.mark.parametrize("drawn", [-1, 0.25, 1])
def test_the_hue_turns_in_yiq(drawn, draw_colours):
    draw_colours(hue=drawn)
    images = some_images(3, 30, 40, 3)
    changed = jitter(images, 0.0, 0.0, 0.4).numpy()
    yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    angle = 2 * np.pi * 0.1 * drawn
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    expected = np.clip(images.numpy() @ (np.linalg.inv(yiq) @ turn @ yiq).T, 0, 255)
    assert np.abs(changed - expected).max() <= 0.51


def test_all_changes_of_colour_together_are_one_after_the_other(draw_colours):
    draws = {"saturation": 0.5, "brightness": -0.4, "contrast": 0.3, "hue": -0.7}
    draw_colours(**draws)
    images = (some_images(300, 8, 9, 3) // 4 + 96).to(torch.uint8)  # far from 0 and 255: nothing is cut off
    together = jitter(images, 0.2, 0.3, 0.4).numpy()
    expected = images.numpy().astype(np.float64)
    luma = expected @ (0.299, 0.587, 0.114)
    expected = luma[..., None] + (expected - luma[..., None]) * 1.2
    yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    angle = -2 * np.pi * 0.1 * 0.7
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    expected = expected @ (np.linalg.inv(yiq) @ turn @ yiq).T
    mean = luma.mean(axis=(1, 2))[:, None, None, None]
    expected = (mean + (expected - mean) * 1.09) * 0.92
    assert np.abs(together - expected).max() <= 0.51


def test_saturation_and_hue_do_nothing_to_grey_images():
    grey = some_images(40, 12, 12)
    assert torch.equal(jitter(grey, 0.0, 0.0, 0.9), grey)
    assert torch.equal(jitter(grey.expand(-1, -1, -1, 3), 0.0, 0.0, 0.9), grey.expand(-1, -1, -1, 3))


def test_brightness_and_contrast_change_grey_images_as_those_in_colour():
    grey = some_images(40, 12, 12)
    torch.manual_seed(0)
    changed = jitter(grey, 0.3, 0.3, 0.0)
    torch.manual_seed(0)
    assert (jitter(grey.expand(-1, -1, -1, 3), 0.3, 0.3, 0.4).int() - changed.int()).abs().max() <= 1
    assert len({image.numpy().tobytes() for image in changed}) == 40


def test_colours_do_not_depend_on_how_many_images_are_changed_at_once(monkeypatch):
    images = some_images(13, 10, 10, 3)
    torch.manual_seed(0)
    together = jitter(images, 0.3, 0.3, 0.3)
    monkeypatch.setattr(augment, "CACHED_PIXELS", 200)
    torch.manual_seed(0)
    assert torch.equal(jitter(images, 0.3, 0.3, 0.3), together)


def test_the_strength_sets_what_is_not_set():
    settled = Augment(strength=1, contrast=0.1, shift=2).settled(colour=True)
    assert (settled.crop, settled.brightness, settled.contrast, settled.colour) == (0.08, 0.4, 0.1, 0.4)
    assert (settled.shift, settled.rotation) == (2, 0.0)
    assert Augment(strength=1).settled(colour=False).colour == 0
    assert Augment(strength=1, colour=0.2).settled(colour=False).colour == 0.2
    assert settled.settled(colour=False) == settled


def test_changes_are_described():
    assert describe(Augment().settled(colour=True), flip=False) == ""
    text = describe(Augment(strength=0.5, rotation=7.5).settled(colour=True), flip=True)
    assert text == (
        "mirror images, rotations up to 7.5°, crops to at least 54 % of the area, brightness up to ±20 %, contrast up "
        "to ±20 %, saturation up to ±20 %, hue up to ±18°"
    )


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
    everything = Augment(shift=2, rotation=10, zoom=0.1, strength=0.5).settled(colour=True)

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
