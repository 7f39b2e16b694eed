"""Weight initialisation: Glorot and He with the fan counts of Keras, Dirac, and a whitening first convolution."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Initialization = Literal["glorot-uniform", "he-normal", "he-uniform", "dirac", "whitened"]

# As a fraction of the largest variance; directions with less are noise, and are not scaled up to variance 1
_NOISE_FLOOR = 5e-4


def initialize(network: nn.Module, initialization: Initialization, seed: int) -> None:
    """Draw the weights of convolutions and dense layers, and set their biases to zero.

    Glorot and Bengio (2010), He et al. (2015), with the fan counts that Keras uses. "dirac" is "he-uniform", except
    that the first filters of a hidden convolution pass its input through, one filter for each channel (Zagoruyko and
    Komodakis, 2017; airbench). "whitened" starts as "dirac"; `whiten` does the rest, because it needs images.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if initialization == "glorot-uniform":
                nn.init.xavier_uniform_(module.weight, generator=generator)
            elif initialization == "he-normal":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if initialization in ("dirac", "whitened"):
        for kernel in hidden_kernels(network):
            nn.init.dirac_(kernel.data[: kernel.shape[1]])


def first_kernel(network: nn.Module) -> Tensor | None:
    """The kernel of the first convolution, out×in×height×width; None if a dense layer comes first."""
    weighted = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    first = next(weighted, None)
    return first.weight if isinstance(first, nn.Conv2d) else None


def hidden_kernels(network: nn.Module) -> list[Tensor]:
    """The kernels of all convolutions except the first, out×in×height×width, and except depthwise ones."""
    kernels = [(module.weight, module.groups) for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [kernel for kernel, groups in kernels[1:] if groups == 1]


@torch.no_grad()
def whiten(kernel: Tensor, images: Tensor) -> None:
    """Set the first filters of a kernel to whiten the patches of images, float N×C×H×W.

    Filters come in pairs, each with its negative: the eigenvectors of the patches' covariance, by descending
    eigenvalue, divided by the square roots of their eigenvalues, which gives each output variance 1 (airbench: Jordan,
    2024, arXiv:2404.00498, where they are frozen). Filters beyond the pairs stay as they are. The whole kernel does if
    the patches do not vary, or if it is larger than the images.
    """
    positions = [side - size + 1 for side, size in zip(images.shape[2:], kernel.shape[2:], strict=True)]
    if min(positions) < 1 or len(images) * math.prod(positions) < 2:
        return
    patches = F.unfold(images, kernel.shape[2:]).transpose(1, 2).flatten(0, 1)
    variances, directions = torch.linalg.eigh(patches.T.cov().double())
    if variances[-1] <= 1e-9 * patches.square().mean():  # only rounding errors
        return
    pairs = min(len(kernel) // 2, len(variances))
    scales = (variances + _NOISE_FLOOR * variances[-1]).clamp(min=0).rsqrt()
    filters = (directions * scales).T.flip(0)[:pairs]
    # The sign of an eigenvector is arbitrary: make its largest component positive
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = (filters * largest.sign()).view(pairs, *kernel.shape[1:])
    kernel[:pairs], kernel[pairs : 2 * pairs] = filters, -filters
