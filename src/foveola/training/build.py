"""The untrained classifier: preprocessing from the training images, initial weights from the seed or pretrained."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from foveola.arrays import shape_text
from foveola.errors import DataError, RecipeError
from foveola.images import Images, ImageSet, Polarity, polarity
from foveola.inputs.checks import compute_statistics
from foveola.lazy import blocks
from foveola.models import init
from foveola.models.classifier import Classifier
from foveola.models.metadata import MAX_CLASSES, ModelMetadata
from foveola.models.modules import build_network
from foveola.models.pretrained import PretrainedWeights, load_pretrained
from foveola.models.shapes import LayerInfo, all_layers, check_size, infer_shapes
from foveola.recipe import Recipe

# Mean and standard deviation of ImageNet's training images, in colour as torchvision has them, in grey as timm does
IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
# Pixel values in the patches that whitening uses; more would not change the filters
MAX_PATCH_VALUES = 2**24


def build_classifier(
    recipe: Recipe,
    train: ImageSet,
    seed: int,
    *,
    network: nn.Module | None = None,
    picture_polarity: Polarity | None = None,
    pretrained: PretrainedWeights | None = None,
) -> Classifier:
    """Build an untrained classifier for these images.

    Parameters
    ----------
    recipe : layers, initialisation and preprocessing
    train : gives the shape, the class names, and the statistics for standard scaling and for input checks
    seed : seed of the initial weights
    network : the user's own module, float N×C×H×W → logits N×K, instead of the recipe's layers
    picture_polarity : of the images without the letterbox in which they lie; None: there is no letterbox
    pretrained : weights for all layers of the recipe but the last

    Raises
    ------
    UserError
        If the layers do not fit together or not to the weights, or network or number of classes are too large.
    """
    if len(train.class_names) > MAX_CLASSES:
        raise DataError(
            f"The data has {len(train.class_names):,} classes; a model has at most {MAX_CLASSES:,}. "
            f"Merge classes, or leave the rare ones out."
        )
    common_polarity = picture_polarity or polarity(train.images)
    mean, std = _scaling(recipe, train)
    metadata = ModelMetadata(
        class_names=train.class_names,
        task=train.task,
        image_shape=train.image_shape,
        channels=recipe.channels,
        pad=recipe.pad,
        mean=mean,
        std=std,
        polarity=common_polarity,
        statistics=compute_statistics(train.images) if common_polarity != "mixed" else None,
        layers=recipe.layers if network is None else None,
        recipe=recipe.name,
        pretrained=None if pretrained is None else pretrained.origin,
    )
    if network is None:
        infos = infer_shapes(recipe.layers, metadata.network_shape, len(train.class_names))
        check_size(infos)
        _check_crop_size(recipe, infos, len(train.class_names))
        network = build_network(infos)
        init.initialize(network, recipe.initialization, seed)
        if pretrained is not None:
            load_pretrained(network, infos, pretrained)
    classifier = Classifier(network, metadata)
    if metadata.layers is not None and pretrained is None and recipe.initialization == "whitened":
        _whiten(classifier, train.images)
    return classifier


def _check_crop_size(recipe: Recipe, infos: Sequence[LayerInfo], classes: int) -> None:
    """Refuse crops that the layers, built for whole images, would compute otherwise than layers built for crops."""
    size = recipe.augment.crop_size
    if size is None:
        return
    try:
        smaller = infer_shapes(recipe.layers, (size, size, infos[0].input_shape[2]), classes)
    except RecipeError as error:
        raise RecipeError(f"augment.crop_size = {size} cannot be used: {error}") from None
    for whole, crop in zip(all_layers(infos), all_layers(smaller), strict=True):
        if whole.parameters != crop.parameters or whole.pad_widths != crop.pad_widths:
            raise RecipeError(
                f"augment.crop_size = {size} cannot be used: the layer {whole.name} has other weights or padding than "
                f"for images of {shape_text(infos[0].input_shape[:2])}. Choose a size that differs from it by a "
                f"multiple of 32, for a network that ends with a global pooling; or leave crop_size out."
            )


def _whiten(classifier: Classifier, images: Images) -> None:
    """Whiten the first convolution on evenly spaced training images, because data may be sorted by class."""
    kernel = init.first_kernel(classifier.network)
    if kernel is None:
        return
    height, width, _ = classifier.metadata.network_shape
    count = min(len(images), max(1, MAX_PATCH_VALUES // (height * width * kernel[0].numel())))
    indices = np.linspace(0, len(images) - 1, count).astype(np.int64)
    init.whiten(kernel, classifier.normalize(torch.from_numpy(images[indices])))


def _scaling(recipe: Recipe, train: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels that are scaled to 0..1."""
    channels = train.image_shape[2]
    if recipe.scaling == "standard":
        return _channel_statistics(train.images, recipe.pad)
    if recipe.scaling == "imagenet":
        return IMAGENET[channels]
    value = 0.5 if recipe.scaling == "signed" else 0.0
    return (value,) * channels, (1.0 - value,) * channels


def _channel_statistics(images: Images, pad: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, padding included; exact, from counts of the 256 values."""
    padding_pixels = (images.shape[1] + 2 * pad) * (images.shape[2] + 2 * pad) - images.shape[1] * images.shape[2]
    values = np.arange(256) / 255
    mean, std = [], []
    counts = np.zeros((images.shape[3], 256), np.int64)
    for block in blocks(images):
        for channel, channel_counts in enumerate(counts):
            channel_counts += torch.from_numpy(block[..., channel]).flatten().bincount(minlength=256).numpy()
    counts[:, 0] += padding_pixels * len(images)
    for channel_counts in counts:
        average = np.average(values, weights=channel_counts)
        mean.append(float(average))
        std.append(max(float(np.average((values - average) ** 2, weights=channel_counts)) ** 0.5, 1 / 255))
    return tuple(mean), tuple(std)
