"""Data augmentation: random changes to a whole batch of images at once, on the device.

Draws come from PyTorch's global generator, which the training loop seeds anew for every step: the same (seed, step)
gives the same changes. Where several processes share a batch, each draws for all images of the batch, and changes its
own: `part` says which. Pixels that a change uncovers take the background of the data, black or white; where the images
have no common background, as photographs, they repeat the image's border.

Crops, brightness, contrast and colour are for photographs. One number sets all of them, `augment.strength`: it scales
the changes with which ResNets are trained on ImageNet (Gross and Wilber, 2016), which are full at 1. Rotation is not
among them: on a CPU it takes ten times as long as a crop.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveola.images import Polarity
from foveola.models.batch_part import BatchPart
from foveola.models.classifier import LUMA
from foveola.recipe import Recipe
from foveola.recipe_parts import Augment

# Passes over the images from which on mirror images pay: docs/lab/recipes.md
MIN_FLIP_EPOCHS = 9
# Changes of a crop's aspect, in either direction
MAX_ASPECT = 4 / 3
# The hue turns by up to this much of the saturation's change, in turns (Chen et al., 2020)
HUE_PER_SATURATION = 0.25
# Pixels whose colours are changed at once on a CPU, so that they stay in its cache
CACHED_PIXELS = 2**18
# From red, green and blue to luma and two differences of colour, in which a turn of the hue is a rotation
YIQ = np.array((LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)))
# Added for the sine of a turn, as in SVG's hueRotate
HUE_SINE: list[list[float]] = (np.linalg.inv(YIQ) @ ((0, 0, 0), (0, 0, -1), (0, 1, 0)) @ YIQ).tolist()
BACKGROUND: dict[Polarity, int | None] = {"light on dark": 0, "dark on light": 255, "mixed": None}


def uses_flips(recipe: Recipe, flip_safe: bool, images: int) -> bool:
    """Whether training flips images.

    Parameters
    ----------
    recipe : its `augment.flip` is True, False, or "auto": if the data is flip-safe and the training long enough
    flip_safe : whether the data set declares that a mirror image keeps its class
    images : number of training images
    """
    if recipe.augment.flip != "auto":
        return recipe.augment.flip
    per_epoch = recipe.steps_per_epoch or math.ceil(images / recipe.batch_size)
    return flip_safe and recipe.count_steps(per_epoch) * recipe.batch_size >= MIN_FLIP_EPOCHS * images


def describe(augment: Augment, flip: bool) -> str:
    """The random changes in words, empty if there are none; `flip` is as `uses_flips` gives it.

    >>> from foveola.recipe_parts import Augment
    >>> from foveola.training.augment import describe
    >>> describe(Augment(shift=2, crop=0.54, brightness=0.2), flip=True)
    'mirror images, shifts up to 2 pixels, crops to at least 54 % of the area, brightness up to ±20 %'
    """
    changes = {
        "mirror images": flip,
        f"shifts up to {augment.shift} pixels": augment.shift,
        f"rotations up to {augment.rotation:g}°": augment.rotation,
        f"zoom up to ±{_percent(augment.zoom)}": augment.zoom,
        f"crops to at least {_percent(augment.crop)} of the area": augment.crop,
        f"trained on {augment.crop_size}×{augment.crop_size} pixels": augment.crop_size,
        f"brightness up to ±{_percent(augment.brightness)}": augment.brightness,
        f"contrast up to ±{_percent(augment.contrast)}": augment.contrast,
        f"saturation up to ±{_percent(augment.colour)}, hue up to ±{90 * (augment.colour or 0):.0f}°": augment.colour,
        _describe_cutout(augment.cutout): augment.cutout,
        f"mixup with alpha {augment.mixup:g}": augment.mixup,
    }
    return ", ".join(text for text, used in changes.items() if used)


def _describe_cutout(side: float) -> str:
    return f"cutout of {side} pixels" if side >= 1 else f"cutout of {_percent(side)} of the shorter side"


def _percent(value: float | None) -> str:
    return f"{100 * (value or 0):.3g} %"


def augment_images(
    images: Tensor, augment: Augment, flip: bool | Tensor, polarity: Polarity = "mixed", part: BatchPart | None = None
) -> Tensor:
    """Crop, rotate, zoom, shift and flip images, and change their colours: uint8 N×H×W×C → uint8 N×H×W×C.

    `flip` decides about flips: True flips each image with probability 1/2, a tensor, bool N, those it says;
    `augment.flip` is ignored. What is unset follows the strength, but colours stay: `settle_augmentation` sets them
    where they may change.
    """
    augment, fill = augment.settled(colour=False), BACKGROUND[polarity]
    if augment.crop or augment.crop_size:
        images = random_resized_crop(images, augment.crop or 1.0, augment.crop_size, part)
    if augment.rotation or augment.zoom:
        images = rotate_and_zoom(images, augment.rotation, augment.zoom, fill, part)
    if augment.shift:
        images = shift(images, augment.shift, fill, part)
    if isinstance(flip, Tensor):
        images = torch.where(flip[:, None, None, None], images.flip(2), images)
    elif flip:
        images = random_flip(images, part)
    if augment.brightness or augment.contrast or augment.colour:
        images = jitter(images, augment.brightness or 0.0, augment.contrast or 0.0, augment.colour or 0.0, part)
    return images


def random_resized_crop(
    images: Tensor, smallest: float, size: int | None = None, part: BatchPart | None = None
) -> Tensor:
    """Crop each image to a random window, and resize that to the image's size, or to size × size pixels, bilinearly.

    See Szegedy et al. (2015).

    The window has between `smallest` and all of the area, its aspect changes by up to a factor of 4/3, and lies
    anywhere. Aspects that would not fit into the image at this area are not drawn.
    """
    n, height, width = images.shape[:3]
    part = part or BatchPart(n)
    area, aspect, down, across = torch.rand(4, part.size, device=images.device)[:, part.rows]
    area = smallest + (1 - smallest) * area
    aspect = ((2 * aspect - 1) * (-area.log()).clamp(max=math.log(MAX_ASPECT))).exp()
    rows, columns = ((area / aspect).sqrt() * height).round(), ((area * aspect).sqrt() * width).round()
    rows, columns = rows.clamp(1, height), columns.clamp(1, width)
    top, left = (down * (height - rows + 1)).floor(), (across * (width - columns + 1)).floor()
    windows = torch.stack((top, left, rows, columns), 1)
    shape = (height, width) if size is None else (size, size)
    resize = _resize_each if images.device.type == "cpu" else _resize_together
    return resize(images, windows, shape)


def _resize_each(images: Tensor, windows: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize a window of each image, N×4 as (top, left, rows, columns), to a height and width.

    One after the other, as bytes: on a CPU ten times as fast as all together.
    """
    resized = images.new_empty((len(images), *shape, images.shape[3]))
    for image, target, (top, left, rows, columns) in zip(images, resized, windows.int().tolist(), strict=True):
        window = image[top : top + rows, left : left + columns].permute(2, 0, 1)[None]
        smaller = rows > shape[0] or columns > shape[1]
        target.copy_(F.interpolate(window, shape, mode="bilinear", antialias=smaller)[0].permute(1, 2, 0))
    return resized


def _resize_together(images: Tensor, windows: Tensor, shape: tuple[int, int]) -> Tensor:
    """As `_resize_each`, without a number that leaves the device."""
    n, height, width = images.shape[:3]
    top, left, rows, columns = windows.unbind(1)
    y = _sources(top, rows, height, shape[0])[:, :, None].expand(n, *shape)
    x = _sources(left, columns, width, shape[1])[:, None, :].expand(n, *shape)
    planes = images.permute(0, 3, 1, 2).float()
    planes = F.grid_sample(planes, torch.stack((x, y), 3), padding_mode="border", align_corners=False)
    return planes.round_().byte().permute(0, 2, 3, 1)


def _sources(start: Tensor, length: Tensor, given: int, wanted: int) -> Tensor:
    """Where the `wanted` pixels of a resized side come from, N×wanted, in units of half the `given` side.

    Never from beyond the window.
    """
    pixels = torch.arange(wanted, device=start.device) + 0.5
    inside = (pixels * (length / wanted)[:, None]).clamp(min=0.5).minimum(length[:, None] - 0.5)
    return 2 * (start[:, None] + inside) / given - 1


def jitter(images: Tensor, brightness: float, contrast: float, colour: float, part: BatchPart | None = None) -> Tensor:
    """Change saturation and hue, then contrast, then brightness of each image at random.

    Factors are drawn between 1 - x and 1 + x, and angles of the hue up to ±`colour` / 4 of a turn. All changes of an
    image together are one matrix for its colours and one number to add, so that values are rounded and limited to 0 to
    255 once. Contrast changes about the image's mean luma. Grey images have no saturation and no hue.
    """
    n, height, width, channels = images.shape
    part = part or BatchPart(n)
    draws = torch.stack([_uniform(part.size, images.device) for _ in range(4)])[:, part.rows]
    saturation, light, steepness = 1 + draws[0] * colour, 1 + draws[1] * brightness, 1 + draws[2] * contrast
    turn = 2 * math.pi * HUE_PER_SATURATION * colour * draws[3]
    matrices = (light * steepness)[:, None, None] * _colour_matrices(saturation, turn, channels)
    changed = torch.empty_like(images, memory_format=torch.contiguous_format)
    count = max(1, CACHED_PIXELS // (height * width)) if images.device.type == "cpu" else n
    for start in range(0, n, count):
        rows = slice(start, start + count)
        values = images[rows].permute(0, 3, 1, 2).contiguous().view(-1, channels, height * width).float()
        means = values.mean(2).unbind(1)
        luma = means[0] if channels == 1 else sum(weight * mean for weight, mean in zip(LUMA, means, strict=True))
        added = light[rows] * (1 - steepness[rows]) * luma
        values = torch.baddbmm(added[:, None, None], matrices[rows], values).round_().clamp_(0, 255).byte()
        changed[rows] = values.view(-1, channels, height, width).permute(0, 2, 3, 1)
    return changed


def _colour_matrices(saturation: Tensor, turn: Tensor, channels: int) -> Tensor:
    """Matrices, N×C×C, that multiply the saturation and turn the hue, in radians; they keep luma and grey as they are.

    Made of numbers, because a CUDA graph cannot hold a tensor that comes from the CPU.
    """
    if channels == 1:
        return torch.ones_like(saturation)[:, None, None]
    sine, cosine = saturation * turn.sin(), saturation * turn.cos()
    entries = [
        LUMA[column] + ((row == column) - LUMA[column]) * cosine + HUE_SINE[row][column] * sine
        for row in range(3)
        for column in range(3)
    ]
    return torch.stack(entries, 1).view(-1, 3, 3)


def rotate_and_zoom(
    images: Tensor, rotation: float, zoom: float, fill: int | None = None, part: BatchPart | None = None
) -> Tensor:
    """Rotate each image by up to ±`rotation` degrees and scale it by 1 ± `zoom`, bilinearly, about its center.

    `fill` is the value of uncovered pixels, 0 to 255; None repeats the image's border.
    """
    n, height, width = images.shape[:3]
    part = part or BatchPart(n)
    angle = math.radians(rotation) * _uniform(part.size, images.device)[part.rows]
    scale = 1 / (1 + zoom * _uniform(part.size, images.device)[part.rows])
    sine, cosine, zero = angle.sin() * scale, angle.cos() * scale, torch.zeros_like(angle)
    # affine_grid measures each axis in units of half its side; without the sides' ratio, a rotation would shear
    # images that are not square
    rows = (cosine, -sine * height / width, zero, sine * width / height, cosine, zero)
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), [n, 1, height, width], align_corners=False)
    padding_mode = "border" if fill is None else "zeros"
    planes = images.permute(0, 3, 1, 2).float() - (fill or 0)
    planes = F.grid_sample(planes, grid, padding_mode=padding_mode, align_corners=False) + (fill or 0)
    return planes.round_().byte().permute(0, 2, 3, 1)


def shift(images: Tensor, pixels: int, fill: int | None = None, part: BatchPart | None = None) -> Tensor:
    """Shift each image by up to ±`pixels` whole pixels along each side.

    `fill` is the value of uncovered pixels, 0 to 255; None repeats the image's border.
    """
    n, height, width = images.shape[:3]
    part = part or BatchPart(n)
    down, across = torch.randint(-pixels, pixels + 1, (2, part.size, 1), device=images.device)[:, part.rows]
    rows = torch.arange(height, device=images.device) - down
    columns = torch.arange(width, device=images.device) - across
    indices = torch.arange(n, device=images.device)[:, None, None]
    if fill is None:
        rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    else:
        images = F.pad(images, (0, 0, pixels, pixels, pixels, pixels), value=fill)
        rows, columns = rows + pixels, columns + pixels
    return images[indices, rows[:, :, None], columns[:, None, :]]


def random_flip(images: Tensor, part: BatchPart | None = None) -> Tensor:
    """Flip each image left to right with probability 1/2."""
    part = part or BatchPart(len(images))
    flipped = torch.rand(part.size, 1, 1, 1, device=images.device)[part.rows] < 0.5
    return torch.where(flipped, images.flip(2), images)


def cutout(x: Tensor, side: float, part: BatchPart | None = None) -> Tensor:
    """Blank a square in each image, clipped at the border (DeVries and Taylor, 2017).

    `side` is in pixels or, below 1, a fraction of the shorter side. `x` is float N×C×H×W after scaling, where zero is
    the mean colour under standard scaling.
    """
    n, _, height, width = x.shape
    side = int(side) if side >= 1 else round(side * min(height, width))
    part = part or BatchPart(n)
    top, left = torch.rand(2, part.size, 1, device=x.device)[:, part.rows]
    rows = torch.arange(height, device=x.device) - (top * height).floor() + side // 2
    columns = torch.arange(width, device=x.device) - (left * width).floor() + side // 2
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return x.masked_fill(inside, 0.0)


def draw_mixup(alpha: float, size: int, device: torch.device) -> tuple[float, Tensor]:
    """Draw the weight of the images in a blend, and the order in which the batch is blended with itself, N."""
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    return weight, torch.randperm(size, device=device)


def mixup(x: Tensor, partners: Tensor, weight: float) -> Tensor:
    """Blend images with others: `weight` × x + (1 - `weight`) × partners (Zhang et al., 2018)."""
    return weight * x + (1 - weight) * partners


def _uniform(n: int, device: torch.device) -> Tensor:
    """Random numbers between -1 and 1, N."""
    return 2 * torch.rand(n, device=device) - 1
