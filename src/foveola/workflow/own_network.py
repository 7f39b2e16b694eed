"""A network that the user has written: checked before its training, and exported after it."""

import time
from typing import TYPE_CHECKING

from foveola.arrays import shape_text
from foveola.documents import NetworkGraph
from foveola.errors import ExportError, MissingExtra, UserError, require
from foveola.exports import export_network
from foveola.images import Images, ImageSet
from foveola.models.metadata import ModelMetadata
from foveola.recipe import Recipe
from foveola.runs import Run

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from foveola.models.classifier import Classifier


def examine_network(network: "nn.Module | None", recipe: Recipe, train: ImageSet, screen: "Console") -> float:
    """Refuse a network that does not fit the data, and say so if it cannot be exported, before the training.

    Returns
    -------
    Seconds that an export takes; 0 without a network of the user's own

    Raises
    ------
    UserError
        If the network cannot take the images, or does not give a logit for each class.
    """
    if network is None:
        return 0.0
    check_network(network, recipe, train)
    started = time.perf_counter()
    _rehearse_export(network, _metadata(recipe, train), screen)
    return time.perf_counter() - started


def check_network(network: "nn.Module", recipe: Recipe, train: ImageSet) -> None:
    """Check on two black images that a network takes the data's shape, and gives a logit for each class.

    Parameters
    ----------
    network : float N×C×H×W → logits N×K
    recipe : says how images are padded
    train : of the shape and the classes that it shall take

    Raises
    ------
    UserError
        If it does not.
    """
    import torch

    metadata = _metadata(recipe, train)
    height, width, channels = metadata.network_shape
    classes = len(metadata.class_names)
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros(2, channels, height, width, device=device))
    except Exception as error:  # whatever the user's code raises
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The network cannot take images of this data, float N×{channels}×{height}×{width}: "
            f"{type(error).__name__}: {reason}. Change its first layers, or the images with the recipe's image_size "
            f"and channels."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(logits, torch.Tensor):
        has_logits = isinstance(getattr(logits, "logits", None), torch.Tensor)
        raise UserError(
            f"The network returns {type(logits).__name__}, but a classifier returns one tensor of logits, N×{classes}. "
            f"Wrap it in a module that returns {'its output.logits' if has_logits else 'them alone'}."
        )
    if logits.shape != (2, classes) or not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise UserError(
            f"The network returns {kind} {shape_text(logits.shape)} for 2 images, but the data has {classes} classes, "
            f"which takes float 2×{classes}. Give its last layer {classes} outputs."
        )


def _metadata(recipe: Recipe, train: ImageSet) -> ModelMetadata:
    return ModelMetadata(class_names=train.class_names, image_shape=train.image_shape, pad=recipe.pad)


def _rehearse_export(network: "nn.Module", metadata: ModelMetadata, screen: "Console") -> None:
    """Export the untrained network, and say what stands against it."""
    try:
        require("onnx", "train")
        require("onnxscript", "train")
    except MissingExtra as missing:
        _announce(str(missing), screen)
    else:
        from foveola.exports.own_graph import NotExportable, build_own_graph

        try:
            build_own_graph(network, metadata)
        except NotExportable as reason:
            _announce(f"{reason}.", screen)


def write_graph(run: Run, classifier: "Classifier", images: Images, screen: "Console") -> NetworkGraph:
    """Write RUN/model.onnx, by which the run is opened without the network's code; say so if that is not possible.

    Parameters
    ----------
    run : with its model.safetensors
    classifier : the same model
    images : real images to compare on, uint8 N×H×W×C
    """
    graph = NetworkGraph(network=type(classifier.network).__name__)
    try:
        require("onnx", "train")
        require("onnxscript", "train")
        from foveola.exports.own_graph import NotExportable

        try:
            parity = export_network(run.model_path, classifier, images).parity
            graph.largest_difference, graph.images = parity.largest_difference, parity.images
        except NotExportable as reason:
            graph.missing = f"{reason}."
    except (MissingExtra, ExportError) as error:
        graph.missing = str(error)
    if graph.missing is not None:
        _announce(graph.missing, screen)
    return graph


def _announce(reason: str, screen: "Console") -> None:
    screen.print(
        f"The network cannot be exported: {reason} Without an export, the run is opened only together with the "
        f"network's code: foveola.open(run, network=YourModule()).",
        soft_wrap=True,
    )
