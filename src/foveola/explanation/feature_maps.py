"""What every layer gives for an image."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.images import Images, check_images
from foveola.models.classifier import Classifier

# Called with a layer's name, the layer, and what it gives
Look = Callable[[str, nn.Module, object], None]


def feature_maps(classifier: Classifier, image: Images) -> dict[str, NDArray[np.float32]]:
    """Follow one image through the network, in the mode of use (no dropout, running statistics).

    Parameters
    ----------
    image : uint8 H×W×C; of another size or number of channels, it is converted as for predicting

    Returns
    -------
    By the layer's name, in the order of computation: maps, float32 height×width×channels, or a vector, float32.
    Of a network of the user's own, every innermost module is a layer; what one gives at its second call is kept as
    "name (call 2)", and what is neither maps nor a vector is left out.

    Raises
    ------
    DataError
        If the image is no uint8 H×W×C, or a colour one where the model has learnt from grey ones.
    """
    check_images(image[None])
    maps: dict[str, NDArray[np.float32]] = {}
    calls: Counter[str] = Counter()

    def keep(name: str, _: nn.Module, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor) and output.ndim in (2, 4):
            # copied, because a layer that follows may work in place
            values = output[0].movedim(0, -1).float().cpu().numpy().copy()
            maps[name if calls[name] == 1 else f"{name} (call {calls[name]})"] = values

    with classifier.in_use(), watched(classifier.network, keep), torch.no_grad():
        classifier(torch.from_numpy(image[None].copy()).to(classifier.mean.device))
    return maps


@contextmanager
def watched(network: nn.Module, look: Look) -> Iterator[None]:
    """Inside the block, `look` sees what every innermost module gives; a network that is one goes by its type."""
    handles = []
    try:
        for path, module in network.named_modules():
            if not any(True for _ in module.children()):
                name = path or type(module).__name__
                handles.append(
                    module.register_forward_hook(lambda layer, _, output, name=name: look(name, layer, output))
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
