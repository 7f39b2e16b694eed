"""Data augmentation: random changes to a whole batch of images at once, on the device.

Draws come from PyTorch's global generator, which the training loop seeds anew for every step: the same (seed, step)
gives the same changes. Where several processes share a batch, each draws for all images of the batch, and changes its
own: `part` says which. Pixels that a change uncovers take the background of the data, black or white; where the images
have no common background, as photographs, they repeat the image's border.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from foveola.images import Polarity
from foveola.models.batch_part import BatchPart
from foveola.recipe import Augment, Recipe

# Passes over the images from which on mirror images pay: docs/lab/recipes.md
MIN_FLIP_EPOCHS = 9
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


def augment_images(
    images: Tensor, augment: Augment, flip: bool, polarity: Polarity = "mixed", part: BatchPart | None = None
) -> Tensor:
    """Rotate, zoom, shift and flip images: uint8 N×H×W×C → uint8 N×H×W×C.

    `flip` decides about flips, as `uses_flips` gives it, and `augment.flip` is ignored.
    """
    fill = BACKGROUND[polarity]
    if augment.rotation or augment.zoom:
        images = rotate_and_zoom(images, augment.rotation, augment.zoom, fill, part)
    if augment.shift:
        images = shift(images, augment.shift, fill, part)
    if flip:
        images = random_flip(images, part)
    return images


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


def cutout(x: Tensor, side: int, part: BatchPart | None = None) -> Tensor:
    """Blank a square of `side` pixels in each image, clipped at the border (DeVries and Taylor, 2017).

    `x` is float N×C×H×W after scaling, where zero is the mean colour under standard scaling.
    """
    n, _, height, width = x.shape
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
