"""Dropout and 2×2 max pooling that run faster on a CPU than those of PyTorch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveola.models.batch_part import BatchPart


class FastDropout(nn.Module):
    """Dropout whose mask takes a tenth of the time on a CPU.

    PyTorch draws one random number for each value; here a random number of 64 bits serves eight values. If 256 × rate
    is not a whole number, it serves four, 16 bits each, and the rate is rounded to a multiple of 1/65536.

    Where processes share a batch, each draws the mask of all images, as one process would, and uses that of its own.
    """

    batch_part: BatchPart | None = None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.draw_type = torch.int8 if (256 * rate).is_integer() else torch.int16

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if self.batch_part is not None:
            return x * self._mask(x, self.batch_part.size)[self.batch_part.rows]
        return F.dropout(x, self.rate) if x.device.type != "cpu" else x * self._mask(x, len(x))

    def _mask(self, x: Tensor, images: int) -> Tensor:
        """Mask of 0 and 1 / (1 - rate) for so many images like those in `x`, with channels last in memory."""
        shape = (images, *x.shape[2:], x.shape[1]) if x.ndim == 4 else (images, *x.shape[1:])
        mask = self._draw(shape, x) if x.device.type == "cpu" else F.dropout(x.new_ones(shape), self.rate)
        return mask.permute(0, 3, 1, 2) if x.ndim == 4 else mask

    def _draw(self, shape: tuple[int, ...], x: Tensor) -> Tensor:
        limits = torch.iinfo(self.draw_type)
        levels = limits.max - limits.min + 1
        dropped = round(self.rate * levels)
        first_kept = limits.min + max(dropped, 1)
        count = math.prod(shape)
        random_words = torch.empty(-(-count * limits.bits // 64), dtype=torch.int64).random_(-(2**63), None)
        draws = random_words.view(self.draw_type)[:count]
        kept = draws.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)
        return kept.to(x.dtype).mul_(1 / (1 - dropped / levels)).view(shape)


def max_pool_2x2(x: Tensor) -> Tensor:
    """Max pooling with 2×2 windows, two to nine times as fast as PyTorch's on a CPU.

    An odd last row or column is dropped, as in PyTorch.
    """
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])
