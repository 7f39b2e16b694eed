"""Activations and weights of a network: feature maps of every layer, penultimate features, first filters."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.errors import ModelError
from foveola.images import Images, check_images
from foveola.models.classifier import Classifier
from foveola.predictions import Exported

# Called with a layer's name, the layer and its output
Hook = Callable[[str, nn.Module, object], None]


def feature_maps(model: Classifier | Exported, image: Images) -> dict[str, NDArray[np.float32]]:
    """The output of every layer for one image, in evaluation mode (no dropout, running statistics).

    Parameters
    ----------
    model : a live classifier, or a reopened export, which has the layers that its graph names
    image : uint8 H×W×C; of another size or number of channels, it is converted as for prediction

    Returns
    -------
    By layer name, in the order of computation: feature maps, float32 height×width×channels, or a vector, float32.
    A residual layer has one output: the sum. In a network written by the user, every innermost module is a layer; the
    output of its second call is named "name (call 2)", and outputs that are neither feature maps nor a vector are left
    out.

    Raises
    ------
    DataError
        If the image is not uint8 H×W×C, or in colour although the model was trained on grey images.
    """
    check_images(image[None])
    if not isinstance(model, Classifier):
        return {name: maps[0] for name, maps in model.feature_maps(image[None]).items()}
    outputs: dict[str, NDArray[np.float32]] = {}
    calls: Counter[str] = Counter()

    def keep(name: str, _: nn.Module, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor) and output.ndim in (2, 4):
            # Copied, because the next layer may work in place
            values = output[0].movedim(0, -1).float().cpu().numpy().copy()
            outputs[name if calls[name] == 1 else f"{name} (call {calls[name]})"] = values

    with model.eval_mode(), forward_hooks(model, keep), torch.no_grad():
        model(torch.from_numpy(image[None].copy()).to(model.mean.device))
    return outputs


def penultimate_features(model: Classifier | Exported, images: Images) -> NDArray[np.float32]:
    """The input of the last dense layer, in whose space the decision boundaries are linear.

    Parameters
    ----------
    model : a live classifier, or a reopened export, of which it is the last vector before the logits
    images : uint8 N×H×W×C

    Returns
    -------
    float32 N×D; the logits if the network has no dense layer

    Raises
    ------
    DataError
        If the images are not uint8 N×H×W×C, or in colour although the model was trained on grey images.
    """
    check_images(images)
    if not isinstance(model, Classifier):
        return model.penultimate_features(images)
    dense = [module for module in model.network.modules() if isinstance(module, nn.Linear)]
    if not dense:
        return model.predict_logits(images)
    features: list[Tensor] = []
    handle = dense[-1].register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].flatten(1).float().cpu()))
    try:
        with model.eval_mode(), torch.no_grad():
            for start in range(0, len(images), model.inference_batch):
                batch = torch.from_numpy(images[start : start + model.inference_batch].copy())
                model(batch.to(model.mean.device))
    finally:
        handle.remove()
    return torch.cat(features).numpy()


def first_filters(model: Classifier | Exported) -> NDArray[np.float32]:
    """The kernels of the first convolution, the only ones that are applied to the image itself.

    Returns
    -------
    float32 out×height×width×in

    Raises
    ------
    ModelError
        If the network has no convolution, or the model is an export.
    """
    if not isinstance(model, Classifier):
        raise ModelError("The filters are not shown, because an ONNX graph does not say what its weights are for.")
    for module in model.network.modules():
        if isinstance(module, nn.Conv2d):
            kernels: NDArray[np.float32] = module.weight.detach().float().permute(0, 2, 3, 1).cpu().numpy().copy()
            return kernels
    raise ModelError(
        "The network has no filters to show, because it has no two-dimensional convolution. "
        "Use a recipe with Conv2D layers."
    )


@contextmanager
def forward_hooks(classifier: Classifier, hook: Hook) -> Iterator[None]:
    """Call `hook` after every layer inside the block: of a user's network, after every innermost module."""
    handles = []
    try:
        for name, module in _layers(classifier):
            handles.append(module.register_forward_hook(lambda layer, _, output, name=name: hook(name, layer, output)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(classifier: Classifier) -> list[tuple[str, nn.Module]]:
    """The layers by name; a network without submodules is named by its type."""
    network = classifier.network
    if classifier.metadata.layers is not None:
        return list(network.named_children())
    modules = ((path or type(module).__name__, module) for path, module in network.named_modules())
    return [(name, module) for name, module in modules if not any(True for _ in module.children())]
