"""Grad-CAM: heat maps of the pixels that speak for a class, from the gradients of a network's last convolution.

Heat maps have the size of the given images; images of another size than the network's are converted as for prediction.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.errors import ModelError
from foveola.explanation.activations import forward_hooks
from foveola.explanation.occlusion import check_explained
from foveola.images import Images, Labels
from foveola.models.classifier import INFERENCE_BATCH, Classifier


def grad_cam(classifier: Classifier, images: Images, classes: Labels) -> NDArray[np.float32]:
    """Compute Grad-CAM heat maps (Selvaraju et al., 2017) at the last convolution.

    Its feature maps are weighted by the mean gradient of the class's logit, summed, cut off below zero and enlarged
    bilinearly. They are taken after normalisation and activation, before the next pooling.

    Parameters
    ----------
    images : uint8 N×H×W×C
    classes : int64 N, the class to explain for each image

    Returns
    -------
    float32 N×H×W, 0 to 1 in each heat map; all 0 where nothing speaks for the class

    Raises
    ------
    ModelError
        If the network has no convolution with feature maps of more than one pixel.
    DataError
        If images or classes cannot be used.
    """
    check_explained(images, classes, len(classifier.class_names))
    heat_maps = np.empty(images.shape[:3], np.float32)
    with classifier.eval_mode(), torch.enable_grad():
        layer = _last_convolution(classifier, images[:1])
        for start in range(0, len(images), INFERENCE_BATCH):
            batch = slice(start, start + INFERENCE_BATCH)
            cams = _class_activation_maps(classifier, layer, images[batch], classes[batch])
            heat_maps[batch] = _upsample_to_image(cams, classifier, images.shape[1:3]).cpu().numpy()
    return heat_maps


def _network_input(classifier: Classifier, images: Images) -> Tensor:
    """Preprocessed images, float N×C×H×W."""
    pixels = torch.from_numpy(images.copy()).to(classifier.mean.device)
    return classifier.normalize(classifier.fit_shape(pixels))


def _last_convolution(classifier: Classifier, image: Images) -> nn.Module:
    """The layer whose output Grad-CAM weights.

    This is the last convolution with feature maps of more than one pixel, or the last layer after it whose output has
    the same shape, such as its normalisation or activation.
    """
    last: list[tuple[nn.Module, torch.Size]] = []

    def find(_: str, layer: nn.Module, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2:].numel() == 1:
            return
        if isinstance(layer, nn.Conv2d) or (last and output.shape == last[-1][1]):
            last.append((layer, output.shape))

    with forward_hooks(classifier.network, find), torch.no_grad():
        classifier.network(_network_input(classifier, image))
    if not last:
        raise ModelError(
            "Grad-CAM is not possible: it needs a convolution with feature maps of more than one pixel, and the "
            "network has none. Use occlusion, which works with every network."
        )
    return last[-1][0]


def _class_activation_maps(classifier: Classifier, layer: nn.Module, images: Images, classes: Labels) -> Tensor:
    """The feature maps of a layer, weighted and summed for each image's class, float N×h×w."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    try:
        # The input requires a gradient, because the weights may be frozen
        logits = classifier.network(_network_input(classifier, images).requires_grad_())
    finally:
        handle.remove()
    feature_maps = outputs[-1]
    class_logits = logits[range(len(classes)), classes.tolist()]
    (gradients,) = torch.autograd.grad(class_logits.sum(), feature_maps)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * feature_maps).sum(dim=1)).detach()


def _upsample_to_image(cams: Tensor, classifier: Classifier, shape: tuple[int, int]) -> Tensor:
    """Enlarge maps, float N×h×w, to the images' shape, without the network's padding, and scale their maximum to 1."""
    height, width, _ = classifier.metadata.network_shape
    pad = classifier.metadata.pad
    maps = F.interpolate(cams[:, None], (height, width), mode="bilinear")[:, :, pad : height - pad, pad : width - pad]
    if maps.shape[2:] != shape:
        maps = F.interpolate(maps, shape, mode="bilinear")
    highest = maps.amax(dim=(2, 3), keepdim=True)
    return (maps / torch.where(highest > 0, highest, 1.0))[:, 0]
