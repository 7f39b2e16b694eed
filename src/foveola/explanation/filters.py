"""What the first convolution looks for."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from foveola.errors import ModelError
from foveola.models.classifier import Classifier


def first_filters(classifier: Classifier) -> NDArray[np.float32]:
    """The kernels of the first convolution, the only ones that look at the image itself.

    Returns
    -------
    float32 out×height×width×in

    Raises
    ------
    ModelError
        If the network has no convolution.
    """
    for module in classifier.network.modules():
        if isinstance(module, nn.Conv2d):
            kernels: NDArray[np.float32] = module.weight.detach().float().permute(0, 2, 3, 1).cpu().numpy().copy()
            return kernels
    raise ModelError(
        "The network has no two-dimensional convolution, and so no filters to look at. Use a recipe with Conv2D layers."
    )
