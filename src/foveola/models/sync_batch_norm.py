"""Batch normalisation with the statistics of the whole batch, also where several processes share it.

PyTorch's own SyncBatchNorm runs on GPUs only. Without other processes, these are PyTorch's layers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveola.models.batch_part import BatchPart, sum_over_processes


class BatchNorm1d(nn.BatchNorm1d):
    batch_part: BatchPart | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.batch_part is None or not self.training:
            return super().forward(x)
        return _normalize_shared(self, x, self.batch_part.size)


class BatchNorm2d(nn.BatchNorm2d):
    batch_part: BatchPart | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.batch_part is None or not self.training:
            return super().forward(x)
        return _normalize_shared(self, x, self.batch_part.size)


def _normalize_shared(layer: BatchNorm1d | BatchNorm2d, x: Tensor, images: int) -> Tensor:
    """Normalise this process's part, N×C or N×C×H×W, of a batch of `images`, and update the running statistics."""
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None and variance is not None and layer.momentum is not None, "layers of recipes keep them"
    count = images * x.shape[2:].numel()
    y, batch_mean, batch_variance = _Normalize.apply(x, layer.weight, layer.bias, layer.eps, count)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        mean.lerp_(batch_mean, layer.momentum)
        variance.lerp_(batch_variance * (count / (count - 1)), layer.momentum)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
    return y  # type: ignore[no-any-return]


class _Normalize(torch.autograd.Function):
    """(x - mean) / √(variance + eps) × weight + bias, where all processes compute mean and variance together.

    The gradients of weight and bias are those of this process's part: they are summed with all other gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, count: int) -> tuple[Tensor, ...]:
        # Each process's variance is about its own mean, and the sums are in float64: no digits cancel
        own = len(x) * x.shape[2:].numel()
        mean, variance = 2 * (weight.new_zeros(x.shape[1]),)
        if own:
            mean, variance = torch.batch_norm_update_stats(x.to(weight.dtype), None, None, 0.0)
        mean, variance = mean.double(), variance.double()
        sums = own * torch.stack((mean, variance + mean**2))
        sum_over_processes(sums)
        mean, square = sums / count
        variance = (square - mean**2).clamp_(min=0).to(weight.dtype)
        mean = mean.to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.count = eps, count
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        dy = gradients[0]
        # As if mean and variance were constants; the rest of the gradient passes through them, to all images
        dx, d_weight, d_bias = dy, torch.zeros_like(weight), torch.zeros_like(weight)
        if len(x):
            dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
                dy, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        sums = torch.stack((d_weight, d_bias))
        sum_over_processes(sums)
        through_variance, through_mean = sums / ctx.count
        inverse_std = torch.rsqrt(variance + ctx.eps)
        slope = weight * through_variance * inverse_std**2
        offset = weight * inverse_std * through_mean - slope * mean
        shape = (1, -1, *(1,) * (x.ndim - 2))
        dx = torch.addcmul(dx - offset.view(shape), x, slope.view(shape), value=-1)
        return dx, d_weight, d_bias, None, None
