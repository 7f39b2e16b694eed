"""Which pixels speak for a class, read from a network's inside: Grad-CAM.

Maps are as large as the images that are given; those of another size than the network's are converted as for
predicting.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.errors import ModelError, require
from foveola.explanation.feature_maps import watched
from foveola.explanation.occlusion import check_explained
from foveola.images import Images, Labels
from foveola.models.classifier import INFERENCE_BATCH, Classifier


def grad_cam(classifier: Classifier, images: Images, classes: Labels) -> NDArray[np.float32]:
    """Where the last convolution found what speaks for a class (Selvaraju et al., 2017).

    Its maps are weighted by the mean gradient of the class's logit, summed, cut off below zero and enlarged
    bilinearly. They are taken after normalisation and activation, before the next pooling.

    Parameters
    ----------
    images : uint8 N×H×W×C
    classes : int64 N, the class to explain for each image

    Returns
    -------
    float32 N×H×W, 0 to 1 in each map; all 0 where nothing speaks for the class

    Raises
    ------
    ModelError
        If the network has no convolution that gives maps of more than one pixel.
    DataError
        If images or classes cannot be used.
    """
    check_explained(images, classes, len(classifier.class_names))
    methods = require("torchcam.methods", "train")
    maps = np.empty(images.shape[:3], np.float32)
    with classifier.in_use(), torch.enable_grad():
        layer = _last_convolution(classifier, images[:1])
        with methods.GradCAM(classifier.network, layer) as extractor:
            for start in range(0, len(images), INFERENCE_BATCH):
                batch = slice(start, start + INFERENCE_BATCH)
                # Needs a gradient of its own, because the weights may be frozen
                logits = classifier.network(_seen(classifier, images[batch]).requires_grad_())
                (cams,) = extractor(classes[batch].tolist(), logits, normalized=False)
                maps[batch] = _over_the_image(cams.detach(), classifier, images.shape[1:3]).cpu().numpy()
    return maps


def _seen(classifier: Classifier, images: Images) -> Tensor:
    """What the network gets, float N×C×H×W."""
    pixels = torch.from_numpy(images.copy()).to(classifier.mean.device)
    return classifier.normalize(classifier.fit_shape(pixels))


def _last_convolution(classifier: Classifier, image: Images) -> nn.Module:
    """The last layer with maps as large as those of the last convolution that has maps of more than one pixel."""
    last: list[tuple[nn.Module, torch.Size]] = []

    def look(_: str, layer: nn.Module, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2:].numel() == 1:
            return
        if isinstance(layer, nn.Conv2d) or (last and output.shape == last[-1][1]):
            last.append((layer, output.shape))

    with watched(classifier.network, look), torch.no_grad():
        classifier.network(_seen(classifier, image))
    if not last:
        raise ModelError(
            "Grad-CAM is not possible: it needs the maps of a convolution, and the network has none of more than one "
            "pixel. Occlusion works with every network."
        )
    return last[-1][0]


def _over_the_image(cams: Tensor, classifier: Classifier, shape: tuple[int, int]) -> Tensor:
    """Maps of a layer, N×h×w, laid over the image, without the network's padding, the highest value at 1."""
    height, width, _ = classifier.card.network_shape
    pad = classifier.card.pad
    maps = F.interpolate(cams[:, None], (height, width), mode="bilinear")[:, :, pad : height - pad, pad : width - pad]
    if maps.shape[2:] != shape:
        maps = F.interpolate(maps, shape, mode="bilinear")
    highest = maps.amax(dim=(2, 3), keepdim=True)
    return (maps / torch.where(highest > 0, highest, 1.0))[:, 0]
