"""What the network makes of images, just before it decides."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.images import Images, check_images
from foveola.models.classifier import INFERENCE_BATCH, Classifier


def last_features(classifier: Classifier, images: Images) -> NDArray[np.float32]:
    """What the last dense layer gets: the features between which it draws straight borders.

    Parameters
    ----------
    images : uint8 N×H×W×C

    Returns
    -------
    float32 N×D; of a network without a dense layer, the logits

    Raises
    ------
    DataError
        If the images are no uint8 N×H×W×C, or colour ones where the model has learnt from grey ones.
    """
    check_images(images)
    dense = [module for module in classifier.network.modules() if isinstance(module, nn.Linear)]
    if not dense:
        return classifier.predict_logits(images)
    kept: list[Tensor] = []
    handle = dense[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].flatten(1).float().cpu()))
    try:
        with classifier.in_use(), torch.no_grad():
            for start in range(0, len(images), INFERENCE_BATCH):
                batch = torch.from_numpy(images[start : start + INFERENCE_BATCH].copy())
                classifier(batch.to(classifier.mean.device))
    finally:
        handle.remove()
    return torch.cat(kept).numpy()
