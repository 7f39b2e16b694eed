"""Which pixels speak for a class: Grad-CAM and occlusion.

Maps are as large as the images that are given; those of another size than the network's are converted as for
predicting.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.errors import DataError, ModelError, require
from foveola.explanation.feature_maps import in_use, watched
from foveola.images import Images, Labels, Polarity, check_images
from foveola.models.classifier import INFERENCE_BATCH, Classifier
from foveola.predictions import softmax

# A patch covers about a fiftieth of the image, and moves by half its side
PATCHES_A_SIDE = 7


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
    _check(classifier, images, classes)
    methods = require("torchcam.methods", "train")
    maps = np.empty(images.shape[:3], np.float32)
    with in_use(classifier), torch.enable_grad():
        layer = _last_convolution(classifier, images[:1])
        with methods.GradCAM(classifier.network, layer) as extractor:
            for start in range(0, len(images), INFERENCE_BATCH):
                batch = slice(start, start + INFERENCE_BATCH)
                # Needs a gradient of its own, because the weights may be frozen
                logits = classifier.network(_seen(classifier, images[batch]).requires_grad_())
                (cams,) = extractor(classes[batch].tolist(), logits, normalized=False)
                maps[batch] = _over_the_image(cams.detach(), classifier, images.shape[1:3]).cpu().numpy()
    return maps


def occlusion(
    classifier: Classifier,
    images: Images,
    classes: Labels,
    size: int | None = None,
    stride: int | None = None,
) -> NDArray[np.float32]:
    """How much the class's probability falls when a square of the image is covered (Zeiler and Fergus, 2014).

    The square has the colour of the background: black where the model has learnt from light on dark, white where from
    dark on light, otherwise the image's mean. A pixel's drop is the mean over all squares that cover it.

    Parameters
    ----------
    images : uint8 N×H×W×C
    classes : int64 N, the class to explain for each image
    size : side of the square in pixels, by default a seventh of the longer side
    stride : pixels between squares, by default half their side

    Returns
    -------
    float32 N×H×W, -1 to 1; above 0 speaks for the class

    Raises
    ------
    DataError
        If images, classes, size or stride cannot be used.
    """
    _check(classifier, images, classes)
    height, width = images.shape[1:3]
    size = max(round(max(height, width) / PATCHES_A_SIDE), 1) if size is None else size
    stride = max(size // 2, 1) if stride is None else stride
    if size < 1 or not 1 <= stride <= size:
        raise DataError(
            f"A square of {size} pixels that moves by {stride} does not cover the image. Choose 1 ≤ stride ≤ size."
        )
    squares = [
        np.s_[top : top + size, left : left + size]
        for top in _starts(height, size, stride)
        for left in _starts(width, size, stride)
    ]
    covering = np.zeros((height, width))
    for square in squares:
        covering[square] += 1
    drops = np.zeros(images.shape[:3])
    with in_use(classifier):
        before = _probabilities(classifier, images, classes)
        for number, drop in enumerate(drops):
            for start in range(0, len(squares), INFERENCE_BATCH):
                batch = squares[start : start + INFERENCE_BATCH]
                covered = _covered(images[number], batch, classifier.card.polarity)
                after = _probabilities(classifier, covered, np.full(len(batch), classes[number]))
                for square, remaining in zip(batch, after, strict=True):
                    drop[square] += before[number] - remaining
    return (drops / covering).astype(np.float32)


def _check(classifier: Classifier, images: Images, classes: Labels) -> None:
    check_images(images)
    known = len(classifier.class_names)
    if np.shape(classes) != (len(images),) or not 0 <= np.min(classes) <= np.max(classes) < known:
        raise DataError(f"Give each of the {len(images)} images a class to explain, as a number from 0 to {known - 1}.")


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


def _probabilities(classifier: Classifier, images: Images, classes: Labels) -> NDArray[np.float64]:
    """Each image's probability of its class, float64 N."""
    return softmax(classifier.predict_logits(images))[np.arange(len(images)), classes]


def _covered(image: Images, squares: Sequence[tuple[slice, slice]], polarity: Polarity) -> Images:
    """The image once for each square, with that square covered."""
    background = image.mean(axis=(0, 1)).round() if polarity == "mixed" else 255 * (polarity == "dark on light")
    images = np.repeat(image[None], len(squares), axis=0)
    for copy, square in zip(images, squares, strict=True):
        copy[square] = background
    return images


def _starts(side: int, size: int, stride: int) -> list[int]:
    """Where squares begin, so that the last one ends at the border."""
    last = max(side - size, 0)
    return [*range(0, last, stride), last]
