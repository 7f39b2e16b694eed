"""Dropout, 2×2 max pooling and depthwise convolution that run faster on a CPU than those of PyTorch."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
    """Max pooling with 2×2 windows, faster than PyTorch's on a CPU; an odd last row or column is dropped, as there.

    Without gradients it is two to nine times as fast. With them it is PyTorch's, except in bf16 with whole vectors of
    32 channels or with fewer than eight, where this takes 0.6 to 0.9 times as long (docs/lab/engine.md). Of equal
    values in a window, the upper one of the left column has the gradient; PyTorch goes by rows.

    Parameters
    ----------
    x : float N×C×H×W, with channels last in memory
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return torch.maximum(*_columns(torch.maximum(*_rows(x))))
    channels = x.shape[1]
    if x.dtype != torch.bfloat16 or (channels % 32 and channels >= 8):
        return F.max_pool2d(x, 2)
    y: Tensor = _MaxPool2x2.apply(x)  # type: ignore[no-untyped-call]
    return y


class _MaxPool2x2(torch.autograd.Function):
    """The larger of two rows, then of two columns; the gradient goes where the difference of the two says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        upper, lower = _rows(x)
        rows = torch.maximum(upper, lower)
        left, right = _columns(rows)
        ctx.save_for_backward(lower - upper, right - left)
        ctx.shape = x.shape
        return torch.maximum(left, right)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        between_rows, between_columns = ctx.saved_tensors
        of_rows = torch.empty_like(between_rows)
        _split(grad, between_columns, *_columns(of_rows))
        if of_rows.shape[3] % 2:
            of_rows[..., -1] = 0
        count, channels, height, width = ctx.shape
        of_input = grad.new_empty(count, height, width, channels).permute(0, 3, 1, 2)
        _split(of_rows, between_rows, *_rows(of_input))
        if height % 2:
            of_input[:, :, -1] = 0
        return of_input


def _rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Views of the upper and the lower rows of the windows."""
    height = x.shape[2] // 2 * 2
    return x[:, :, 0:height:2], x[:, :, 1:height:2]


def _columns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Views of the left and the right columns of the windows."""
    width = x.shape[3] // 2 * 2
    return x[..., 0:width:2], x[..., 1:width:2]


def _split(grad: Tensor, difference: Tensor, first: Tensor, second: Tensor) -> None:
    """Write the gradient into `second` where the difference, second minus first, is above 0, else into `first`."""
    torch.ops.aten.threshold_backward.grad_input(grad, difference, 0, grad_input=second)
    torch.sub(grad, second, out=first)


def depthwise_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The convolution of each channel with a kernel of its own, with faster gradients in bf16 on a CPU.

    In bf16, two gradients take PyTorch 2.13 10 to 300 times as long as the convolution itself: that of the input if the
    stride is 2, and that of kernels larger than 3×3. They were more than half of a training step of EfficientNet-Lite0
    (docs/lab/photographs.md).

    Parameters
    ----------
    x : float N×C×H×W
    weight : float C×1×height×width
    bias : float C, or None
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))
    low = torch.get_autocast_dtype("cpu")
    y: Tensor = _DepthwiseConvolution.apply(x.to(low), weight.to(low), stride, padding)  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias.to(low).view(1, -1, 1, 1)


class _DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution whose gradients are computed by convolutions that PyTorch is fast at."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_input = _gradient_of_input(grad, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        of_weight = _gradient_of_kernels(grad, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        return of_input, of_weight, None, None


def _gradient_of_input(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """With a stride: zeros between the gradients, and then the convolution with turned kernels, as without a stride."""
    if max(stride) == 1:
        return _native_gradient(grad, x, weight, stride, padding, of_input=True)
    count, channels, height, width = x.shape
    rows, columns = weight.shape[2:]
    spread_shape = (count, height + 2 * padding[0] - rows + 1, width + 2 * padding[1] - columns + 1, channels)
    spread = grad.new_zeros(spread_shape).permute(0, 3, 1, 2)  # channels last in memory
    spread[:, :, :: stride[0], :: stride[1]] = grad
    around = (rows - 1 - padding[0], columns - 1 - padding[1])
    return F.conv2d(spread, weight.flip(2, 3), None, 1, around, groups=channels)


def _gradient_of_kernels(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Of a kernel larger than 3×3: the gradients of the 3×3 kernels that it is made of, which overlap."""
    rows, columns = weight.shape[2:]
    if max(rows, columns) <= 3:
        return _native_gradient(grad, x, weight, stride, padding, of_input=False)
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = (stride[side] * (grad.shape[2 + side] - 1) for side in (0, 1))
    found = torch.empty_like(weight)
    for top in _starts(rows):
        for left in _starts(columns):
            part = weight[:, :, top : top + 3, left : left + 3]
            seen = x[:, :, top : top + height + part.shape[2], left : left + width + part.shape[3]]
            gradient = _native_gradient(grad, seen, part, stride, (0, 0), of_input=False)
            found[:, :, top : top + 3, left : left + 3] = gradient
    return found


def _starts(size: int) -> list[int]:
    """Where pieces of three begin that together cover so many rows or columns."""
    return sorted({min(start, max(size - 3, 0)) for start in range(0, size, 3)})


def _native_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], of_input: bool
) -> Tensor:
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), (of_input, not of_input, False)
    )
    found: Tensor = gradients[0 if of_input else 1]
    return found
