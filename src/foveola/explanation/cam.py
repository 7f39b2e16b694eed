"""Class activation maps: where a network's last feature maps speak for a class, and where against it.

HiResCAM is the default. Grad-CAM is here for comparison.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.errors import ModelError, UserError, unknown
from foveola.explanation.occlusion import check_explained
from foveola.images import Images, Labels, letterbox_place
from foveola.models.classifier import Classifier
from foveola.predictions import Predictor

CamMethod = Literal["hires-cam", "grad-cam"]
CAM_TITLES: dict[CamMethod, str] = {"hires-cam": "HiResCAM", "grad-cam": "Grad-CAM"}


def class_activation_maps(
    classifier: Predictor, images: Images, classes: Labels, method: CamMethod = "hires-cam"
) -> NDArray[np.float32]:
    """Compute class activation maps, in logits, with the resolution of the network's last feature maps.

    HiResCAM (Draelos and Carin, 2020, arXiv:2011.08891) multiplies each value of the feature maps by its gradient, the
    derivative of the class's logit, and adds up the channels. Positive values speak for the class, negative ones
    against it. How exact that is depends on the layers after the feature maps:

    - One dense layer after flattening or global pooling, as in `fast`, `strong` and `best` for images of 16 pixels or
      more: exact. The values of a map add up to the logit minus the bias of the dense layer. Pooling, ReLU and dropout
      in between change nothing.
    - Hidden layers with ReLU, as in `west` and `lenet5`: the values add up to the logit minus what the biases of all
      these layers contribute to it. The gradients hold for this image, and for others only while the same units are
      active.
    - Other hidden activations, such as tanh or GELU: a first-order approximation around this image.

    Grad-CAM (Selvaraju et al., 2017) replaces the gradients of a channel by their mean, and negative sums by 0. This is
    as exact before global average pooling only. Before other layers, its maps can be 0 even for the predicted class.

    The feature maps are the last ones of more than one pixel, after normalisation and activation and before pooling.
    Images of another size than the network's are converted as for prediction.

    Parameters
    ----------
    images : uint8 N×H×W×C
    classes : int64 N, the class to explain for each image

    Returns
    -------
    float32 N×h×w; with Grad-CAM, at least 0

    Raises
    ------
    ModelError
        If the network has no convolution with feature maps of more than one pixel, or the model is an export.
    DataError
        If images or classes cannot be used.
    UserError
        If the method is unknown.

    Examples
    --------
    >>> data = foveola.load("digits")
    >>> run = foveola.train(data, "fast", overrides={"epochs": 1}, verbose=False)
    >>> model, image = foveola.open(run.path), data.train.images[:1]
    >>> logit, bias = model.predict_logits(image)[0, 3], model.network.dense_1.bias[3].item()
    >>> maps = class_activation_maps(model, image, np.array([3]))
    >>> bool(np.isclose(maps.sum(), logit - bias / model.metadata.temperature, rtol=1e-3))
    True
    """
    check_cam_method(method)
    check_explained(images, classes, len(classifier.class_names))
    if not isinstance(classifier, Classifier):
        own = classifier.metadata.layers is None
        where = "open it from Python, with the code of its network" if own else "explain the run that it comes from"
        raise ModelError(
            f"{CAM_TITLES[method]} is not possible: it needs gradients, which an ONNX graph does not give. Use "
            f"occlusion, or {where}."
        )
    size = classifier.inference_batch
    batches = (slice(start, start + size) for start in range(0, len(images), size))
    with classifier.eval_mode(), torch.enable_grad():
        maps = [_maps_of_batch(classifier, images[batch], classes[batch], method) for batch in batches]
    return torch.cat(maps).cpu().numpy()


def check_cam_method(method: str) -> None:
    """Refuse a method of another name.

    Raises
    ------
    UserError
        If the method is unknown; the message names the nearest known one.
    """
    if method not in CAM_TITLES:
        raise UserError(unknown("method", method, CAM_TITLES))


def enlarge_maps(classifier: Predictor, maps: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Class activation maps as heat maps that can be laid over their images.

    Parameters
    ----------
    maps : float32 N×h×w, as `class_activation_maps` returns them
    shape : height and width of the images

    Returns
    -------
    float32 N×H×W: enlarged bilinearly, without padding and letterbox; the largest magnitude of each heat map is 1,
    unless its map is 0
    """
    height, width, _ = classifier.metadata.network_shape
    pad = classifier.metadata.pad
    large = F.interpolate(torch.from_numpy(maps)[:, None], (height, width), mode="bilinear")
    large = large[:, :, pad : height - pad, pad : width - pad]
    if large.shape[2:] != shape:
        if classifier.metadata.resize == "letterbox":
            top, left, rows, columns = letterbox_place(shape, *classifier.metadata.image_shape[:2])
            large = large[:, :, top : top + rows, left : left + columns]
        large = F.interpolate(large, shape, mode="bilinear")
    largest = large.abs().amax(dim=(2, 3), keepdim=True)
    return (large / torch.where(largest > 0, largest, 1.0))[:, 0].numpy()


def _maps_of_batch(classifier: Classifier, images: Images, classes: Labels, method: CamMethod) -> Tensor:
    """The class activation maps of one batch, float N×h×w."""
    pixels = torch.from_numpy(images.copy()).to(classifier.mean.device)
    # The input requires a gradient, because the weights may be frozen
    network_input = classifier.normalize(classifier.fit_shape(pixels)).requires_grad_()
    with _recording(classifier.network) as recorded:
        logits = classifier.network(network_input) / classifier.metadata.temperature
    class_logits = logits[range(len(classes)), classes.tolist()]
    feature_maps, gradients = _last_used(recorded.maps, class_logits)
    if feature_maps is None or gradients is None:
        raise ModelError(
            f"{CAM_TITLES[method]} is not possible: it needs a convolution with feature maps of more than one pixel, "
            "and the network has none. Use occlusion, which works with every network."
        )
    if method == "hires-cam":
        return (gradients * feature_maps).sum(dim=1).detach()
    return F.relu((gradients.mean(dim=(2, 3), keepdim=True) * feature_maps).sum(dim=1)).detach()


def _last_used(maps: list[Tensor], class_logits: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The last feature maps that the logits depend on, with their gradients, both N×C×h×w; None if there are none."""
    gradients = torch.autograd.grad(class_logits.sum(), maps, allow_unused=True) if maps else ()
    used = [(values, gradient) for values, gradient in zip(maps, gradients, strict=True) if gradient is not None]
    return used[-1] if used else (None, None)


class _FeatureMaps:
    """A forward hook that collects feature maps, N×C×h×w of more than one pixel, from the first convolution on.

    Those that pooling has made are left out. Modules that hold others are hooked as well: the sum at the end of a
    residual block is the output of no other.
    """

    def __init__(self) -> None:
        self.maps: list[Tensor] = []
        self._pooled: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2:].numel() == 1:
            return
        if not self.maps and not isinstance(module, nn.Conv2d):
            return
        if _is_pooling(module, inputs, output):
            self._pooled = output
        elif output is not self._pooled:  # as dropout and an enclosing module return it
            self.maps.append(output)


def _is_pooling(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> bool:
    """Whether a module has no weights and returns fewer pixels than it was given."""
    if any(True for _ in module.parameters()):
        return False
    given = [x.shape[2:].numel() for x in inputs if isinstance(x, Tensor) and x.ndim == 4]
    return bool(given) and output.shape[2:].numel() < max(given)


@contextmanager
def _recording(network: nn.Module) -> Iterator[_FeatureMaps]:
    """Collect the feature maps of a forward pass inside the block."""
    recorded = _FeatureMaps()
    handles = [module.register_forward_hook(recorded) for module in network.modules()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
