"""Random changes to a whole batch at once, on the device.

Draws come from PyTorch's global generator, which the loop seeds anew for every step: the same (seed, step) gives the
same changes. What an image uncovers is filled with the colour that the things of this data stand on, black or white;
where there is no such ground, as on photographs, with its border's pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from foveola.images import Polarity
from foveola.recipe import Augment

GROUND: dict[Polarity, int | None] = {"light on dark": 0, "dark on light": 255, "mixed": None}


def augment_images(images: Tensor, augment: Augment, flip: bool, polarity: Polarity = "mixed") -> Tensor:
    """Rotate and zoom, shift, mirror: uint8 N×H×W×C → uint8 N×H×W×C."""
    ground = GROUND[polarity]
    if augment.rotation or augment.zoom:
        images = rotate_and_zoom(images, augment.rotation, augment.zoom, ground)
    if augment.shift:
        images = shift(images, augment.shift, ground)
    if flip:
        images = mirror(images)
    return images


def rotate_and_zoom(images: Tensor, rotation: float, zoom: float, ground: int | None = None) -> Tensor:
    """Turn each image by up to ±`rotation` degrees and scale it by 1 ± `zoom`, bilinearly, about its centre.

    `ground`, 0 to 255, fills what is uncovered; None: the image's border.
    """
    n, height, width = images.shape[:3]
    angle = math.radians(rotation) * _uniform(n, images.device)
    scale = 1 / (1 + zoom * _uniform(n, images.device))
    sine, cosine, zero = angle.sin() * scale, angle.cos() * scale, torch.zeros_like(angle)
    # affine_grid works in units of half a side: the sides' ratio keeps a turn a turn on images that are not square
    rows = (cosine, -sine * height / width, zero, sine * width / height, cosine, zero)
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), [n, 1, height, width], align_corners=False)
    fill = "border" if ground is None else "zeros"
    planes = images.permute(0, 3, 1, 2).float() - (ground or 0)
    planes = F.grid_sample(planes, grid, padding_mode=fill, align_corners=False) + (ground or 0)
    return planes.round_().byte().permute(0, 2, 3, 1)


def shift(images: Tensor, pixels: int, ground: int | None = None) -> Tensor:
    """Move each image by up to ±`pixels` whole pixels along each side.

    `ground`, 0 to 255, fills what is uncovered; None: the image's border.
    """
    n, height, width = images.shape[:3]
    down, across = torch.randint(-pixels, pixels + 1, (2, n, 1), device=images.device)
    rows = torch.arange(height, device=images.device) - down
    columns = torch.arange(width, device=images.device) - across
    which = torch.arange(n, device=images.device)[:, None, None]
    if ground is None:
        rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    else:
        images = F.pad(images, (0, 0, pixels, pixels, pixels, pixels), value=ground)
        rows, columns = rows + pixels, columns + pixels
    return images[which, rows[:, :, None], columns[:, None, :]]


def mirror(images: Tensor) -> Tensor:
    """Mirror half of the images, left to right."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(2), images)


def cutout(x: Tensor, side: int) -> Tensor:
    """Blank a square of `side` pixels in each image, clipped at the border (DeVries and Taylor, 2017).

    `x` is float N×C×H×W after scaling, where zero is the mean colour under standard scaling.
    """
    n, _, height, width = x.shape
    top, left = torch.rand(2, n, 1, device=x.device)
    rows = torch.arange(height, device=x.device) - (top * height).floor() + side // 2
    columns = torch.arange(width, device=x.device) - (left * width).floor() + side // 2
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return x.masked_fill(inside, 0.0)


def mixup(x: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Blend the batch with itself in another order (Zhang et al., 2018).

    Returns
    -------
    (blend, order, share): `share` of each image's own, the rest of image `order[i]`
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(x), device=x.device)
    return share * x + (1 - share) * x[order], order, share


def _uniform(n: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(n, device=device) - 1
