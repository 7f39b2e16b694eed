"""Augmentation against NumPy and SciPy, with the draws in the test's hand."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from foveola.recipe import Augment
from foveola.training import augment
from foveola.training.augment import augment_images, cutout, mirror, mixup, rotate_and_zoom, shift


def some_images(n=12, height=9, width=7, channels=1, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8))


def shifted(image, down, across, ground):
    """What lay at (i, j) lies at (i + down, j + across); the ground, or the border's own pixels, fill the rest."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            inside = 0 <= i - down < height and 0 <= j - across < width
            own = image[min(max(i - down, 0), height - 1), min(max(j - across, 0), width - 1)]
            result[i, j] = own if inside or ground is None else ground
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ground", [None, 0, 255])
def test_shift_moves_whole_pixels_and_fills_what_it_uncovers(channels, ground):
    images = some_images(300, channels=channels)
    torch.manual_seed(0)
    moved = shift(images, 2, ground).numpy()
    found = set()
    offsets = range(-2, 3)
    for before, after in zip(images.numpy(), moved, strict=True):
        ways = [(d, a) for d in offsets for a in offsets if np.array_equal(after, shifted(before, d, a, ground))]
        assert len(ways) == 1
        found.add(ways[0])
    assert len(found) == 25  # every shift occurs, each image has its own
    assert moved.dtype == np.uint8


def test_a_shift_beyond_the_image_leaves_its_border():
    moved = shift(some_images(50, height=3, width=3), 10)
    assert moved.shape == (50, 3, 3, 1)


def test_mirror_turns_half_of_the_images_left_to_right():
    images = some_images(400, channels=3)
    torch.manual_seed(0)
    mirrored = mirror(images).numpy()
    turned = [np.array_equal(after, before[:, ::-1]) for before, after in zip(images.numpy(), mirrored, strict=True)]
    kept = [np.array_equal(after, before) for before, after in zip(images.numpy(), mirrored, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 150 < sum(turned) < 250


@pytest.fixture
def draw(monkeypatch):
    """Fix what `_uniform` draws: first the angles, then the scales, in -1..1."""

    def fix(*values):
        given = iter(values)
        monkeypatch.setattr(augment, "_uniform", lambda n, device: torch.full((n,), next(given), dtype=torch.float32))

    return fix


@pytest.mark.parametrize(("degrees", "zoom"), [(30, 0), (-17.5, 0), (90, 0), (0, 0.2), (0, -0.3), (25, 0.15)])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 14)])
@pytest.mark.parametrize(("ground", "mode"), [(None, "nearest"), (0, "grid-constant"), (255, "grid-constant")])
def test_rotation_and_zoom_are_scipys(degrees, zoom, height, width, ground, mode, draw):
    draw(math.copysign(1, degrees), math.copysign(1, zoom))
    images = some_images(2, height, width, 3)
    turned = rotate_and_zoom(images, abs(degrees), abs(zoom), ground).numpy()
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # from where in the old image a pixel of the new one comes, (row, column) about the centre
    matrix = np.array([[cosine, sine], [-sine, cosine]]) / (1 + zoom)
    centre = (np.array([height, width]) - 1) / 2
    for before, after in zip(images.numpy(), turned, strict=True):
        for channel in range(3):
            plane = before[..., channel].astype(np.float64)
            offset = centre - matrix @ centre
            expected = scipy.ndimage.affine_transform(plane, matrix, offset, order=1, mode=mode, cval=ground or 0)
            assert np.abs(after[..., channel] - expected).max() <= 0.52  # half a level of rounding


def test_no_turn_and_no_zoom_change_nothing(draw):
    draw(0.0, 0.0)
    images = some_images(3, 9, 14, 3)
    assert torch.equal(rotate_and_zoom(images, 45, 0.5), images)


def test_angles_and_scales_differ_between_images():
    same = some_images(1).expand(30, -1, -1, -1)
    turned = rotate_and_zoom(same, 20, 0.1)
    assert len({image.numpy().tobytes() for image in turned}) == 30


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


def test_mixup_blends_with_the_share_it_returns():
    x = torch.randn(10, 1, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    blend, order, share = mixup(x, 0.4)
    assert sorted(order.tolist()) == list(range(10))
    assert 0 <= share <= 1
    np.testing.assert_allclose(blend.numpy(), share * x.numpy() + (1 - share) * x.numpy()[order], rtol=1e-12)


def test_mixup_draws_its_share_from_the_beta_distribution():
    torch.manual_seed(0)
    shares = [mixup(torch.zeros(2, 1, 1, 1), 0.4)[2] for _ in range(500)]
    assert scipy.stats.kstest(shares, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.001


def test_nothing_is_changed_unless_told():
    images = some_images()
    assert augment_images(images, Augment(), flip=False) is images


@pytest.mark.parametrize(("polarity", "ground"), [("light on dark", 0), ("dark on light", 255), ("mixed", None)])
def test_what_is_uncovered_has_the_ground_of_the_data(polarity, ground):
    images = some_images(60)
    torch.manual_seed(0)
    changed = augment_images(images, Augment(shift=2, rotation=10), False, polarity)
    torch.manual_seed(0)
    assert torch.equal(changed, shift(rotate_and_zoom(images, 10, 0, ground), 2, ground))


def test_images_are_mirrored_only_when_told():
    images = some_images(60)
    torch.manual_seed(0)
    mirrored = augment_images(images, Augment(), flip=True)
    torch.manual_seed(0)
    assert torch.equal(mirrored, mirror(images))
    # the recipe's word is read where the data is known: the loop is told
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
