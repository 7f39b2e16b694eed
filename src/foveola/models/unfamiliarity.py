"""Unfamiliarity: how unlike the training images an image is, measured on the network's own features.

The features are the channel means of what each layer with weights receives, except the first. An image's score is

    log d² + w · E

d is the Mahalanobis distance to the nearest class mean, with a covariance that all classes share (Lee et al. 2018,
arXiv:1807.03888), shrunk (Ledoit and Wolf 2004); E is the energy, -log Σ exp(logits) (Liu et al. 2020,
arXiv:2010.03759). `docs/lab/evaluation.md` compares the methods that were tried.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from foveola.errors import ModelError
from foveola.models.layers import Conv2D, Dense, DepthwiseConv2D, Layer, Residual, Shape
from foveola.models.metadata import ModelMetadata, Unfamiliarity
from foveola.models.shapes import LayerInfo, count_multiply_adds, infer_shapes

Features = NDArray[np.float32]

# Of the validation images, the fraction that may be called unfamiliar
FALSE_ALARMS = 0.01
# Fewer promise too little: of 20 images the largest score is exceeded by one image in 21
MIN_VALIDATION_IMAGES = 20
# The covariance is estimated from at most so many training images, and with so many multiply-adds
MAX_TRAINING_IMAGES = 5000
MAX_MULTIPLY_ADDS = 2**38
# The covariance has the square of this number of values, 4 MB
MAX_FEATURES = 1024

# Of the tensors in a model file
PREFIX = "foveola.unfamiliarity."
# Added to the variances within the classes, as fractions of the variance of all images: features that hardly vary
# within a class would need more digits than float32 has
_RIDGE = 1e-4
_WEIGHTED = (Conv2D, DepthwiseConv2D, Dense, Residual)
# Of squared distances
SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model gives for images: logits, float32 N×K, and scores of unfamiliarity, float32 N.

    `unfamiliarity` is None if the model does not measure it.
    """

    logits: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What the features of the training images are: float32 arrays that travel with the weights.

    `center` F is their mean; `whitening` F×F turns centered features into ones whose covariance within the classes is
    the identity; `class_means` C×F are the classes' means after that, of those classes that have training images.
    """

    center: Features
    whitening: Features
    class_means: Features

    @classmethod
    def of(cls, features: Features, labels: NDArray[np.int64]) -> Self:
        """The statistics of training images: features float32 N×F, labels int64 N."""
        values = features.astype(np.float64)
        center, spread = values.mean(axis=0), values.std(axis=0)
        scale = np.where(spread > 1e-6 * spread.max(), spread, np.inf)  # what never varies says nothing
        standard = (values - center) / scale
        classes, positions = np.unique(labels, return_inverse=True)
        means = np.stack([standard[labels == label].mean(axis=0) for label in classes])
        covariance = shrunk_covariance(standard - means[positions])
        whitening = np.linalg.inv(np.linalg.cholesky(covariance + _RIDGE * np.eye(len(center)))).T
        arrays = (center, whitening / scale[:, None], means @ whitening)
        return cls(*(np.ascontiguousarray(array, np.float32) for array in arrays))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Features], features: int, classes: int) -> Self:
        """The statistics in a model file; raises a ModelError if they do not fit its network, or are not finite."""
        try:
            arrays = [np.asarray(tensors[PREFIX + name]) for name in ("center", "whitening", "class_means")]
        except KeyError as missing:
            raise ModelError(f"The model file lacks {missing}. Train or copy it again.") from None
        shapes = [array.shape for array in arrays]
        known = arrays[2].shape[0] if arrays[2].ndim == 2 else 0
        fits = shapes == [(features,), (features, features), (known, features)] and 1 <= known <= classes
        if not fits or not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays):
            raise ModelError(
                f"The statistics of the training images' features in the model file are damaged: their shapes are "
                f"{shapes}, for {features} features and {classes} classes. Train or copy it again."
            )
        return cls(*arrays)

    def tensors(self) -> dict[str, Features]:
        """The arrays by their names in a model file."""
        arrays = {"center": self.center, "whitening": self.whitening, "class_means": self.class_means}
        return {PREFIX + name: array for name, array in arrays.items()}

    def log_distances(self, features: Features) -> NDArray[np.float64]:
        """Log d², float64 N, of features, float32 N×F."""
        whitened = (features.astype(np.float64) - self.center) @ self.whitening.astype(np.float64)
        means = self.class_means.astype(np.float64)
        squares = (whitened**2).sum(axis=1, keepdims=True) - 2 * whitened @ means.T + (means**2).sum(axis=1)
        distances: NDArray[np.float64] = np.log(np.maximum(squares.min(axis=1), SMALLEST))
        return distances


def shrunk_covariance(centered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The covariance, F×F, of N×F values whose mean is 0, drawn to a multiple of the identity (Ledoit and Wolf, 2004).

    As scikit-learn's `ledoit_wolf`, without the second that its import takes.
    """
    count, features = centered.shape
    covariance = centered.T @ centered / count
    mean_variance = np.trace(covariance) / features
    distance = (covariance**2).sum() - features * mean_variance**2  # from the multiple of the identity, squared
    error = (((centered**2).sum(axis=1) ** 2).sum() / count - (covariance**2).sum()) / count
    shrinkage = min(error / distance, 1.0) if distance > 0 and error > 0 else 0.0
    shrunk: NDArray[np.float64] = (1 - shrinkage) * covariance
    shrunk[np.diag_indices(features)] += shrinkage * mean_variance
    return shrunk


def calibrate(
    statistics: FeatureStatistics, features: Features, logits: NDArray[np.float32], layers: Sequence[str]
) -> Unfamiliarity | None:
    """Choose weight and threshold on validation images; None for fewer than MIN_VALIDATION_IMAGES.

    Distances and energies get equal weight, each measured in its standard deviations. The threshold is the smallest
    score that at most FALSE_ALARMS of further images like these exceed, as split conformal prediction does (Vovk et al.
    2005): the ⌈(n + 1)(1 − α)⌉-th smallest. Of fewer than 99 images it is the largest, which 1 in n + 1 exceeds.

    Parameters
    ----------
    features : of the validation images, float32 N×F
    logits : of the validation images, float32 N×K, temperature applied
    layers : the layers whose output the features come from
    """
    return calibrate_distances(statistics.log_distances(features), logits, layers)


def calibrate_distances(
    distances: NDArray[np.float64], logits: NDArray[np.float32], layers: Sequence[str]
) -> Unfamiliarity | None:
    """As `calibrate`, from the `log_distances` of the features, float64 N."""
    if len(logits) < MIN_VALIDATION_IMAGES:
        return None
    energies = energy(logits)
    weight = float(distances.std() / max(energies.std(), SMALLEST))
    threshold, false_alarms = choose_threshold(distances + weight * energies)
    return Unfamiliarity(
        layers=tuple(layers),
        energy_weight=weight,
        threshold=threshold,
        false_alarms=false_alarms,
        validation_images=len(logits),
    )


def choose_threshold(scores: NDArray[np.floating]) -> tuple[float, float]:
    """The threshold that validation images' scores, N, give (see `calibrate`), and the false alarms it promises."""
    n = len(scores)
    rank = min(math.ceil((n + 1) * (1 - FALSE_ALARMS)), n)
    return float(np.sort(scores)[rank - 1]), (n + 1 - rank) / (n + 1)


def score(
    statistics: FeatureStatistics, measure: Unfamiliarity, features: Features, logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores, float32 N, of features, float32 N×F, and logits, float32 N×K; above the threshold is unfamiliar."""
    return (statistics.log_distances(features) + measure.energy_weight * energy(logits)).astype(np.float32)


def energy(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """-log Σ exp(logits), float64 N."""
    values = logits.astype(np.float64)
    highest = values.max(axis=1)
    energies: NDArray[np.float64] = -highest - np.log(np.exp(values - highest[:, None]).sum(axis=1))
    return energies


def count_training_images(layers: Sequence[Layer], network_shape: Shape, classes: int, images: int) -> int:
    """From how many of so many training images the covariance is estimated."""
    cost = count_multiply_adds(layers, network_shape, classes)
    return min(images, MAX_TRAINING_IMAGES, MAX_MULTIPLY_ADDS // max(cost, 1))


def feature_layers(metadata: ModelMetadata) -> tuple[LayerInfo, ...]:
    """The layers whose outputs give the features: for each layer with weights but the first, the one before it.

    Flatten and Dropout are skipped, so that a map's channels are averaged. Of more than MAX_FEATURES features the last
    ones are taken; before them, an output that has more by itself is left out. A residual layer gives its sum. Empty
    for a network that the user wrote in PyTorch.
    """
    infos = _layer_infos(metadata)
    weighted = [position for position, info in enumerate(infos) if isinstance(info.layer, _WEIGHTED)]
    chosen: list[LayerInfo] = []
    for position in reversed(weighted[1:]):
        before = position - 1
        while infos[before].layer.type in ("Flatten", "Dropout"):
            before -= 1
        if sum(map(count_features, chosen)) + count_features(infos[before]) <= MAX_FEATURES:
            chosen.insert(0, infos[before])
        elif chosen:
            break
    return tuple(chosen)


def named_layers(metadata: ModelMetadata) -> tuple[LayerInfo, ...]:
    """The layers that a model's measure names.

    Raises
    ------
    ModelError
        If the network does not have them.
    """
    names = metadata.unfamiliarity.layers if metadata.unfamiliarity else ()
    by_name = {info.name: info for info in _layer_infos(metadata)}
    if missing := [name for name in names if name not in by_name]:
        raise ModelError(f"The model's measure of unfamiliarity names layers that it lacks: {', '.join(missing)}.")
    return tuple(by_name[name] for name in names)


def count_features(info: LayerInfo) -> int:
    """Number of features that the output of a layer gives: its channels or units."""
    return info.output_shape[-1]


def _layer_infos(metadata: ModelMetadata) -> list[LayerInfo]:
    if metadata.layers is None:
        return []
    return infer_shapes(metadata.layers, metadata.network_shape, len(metadata.class_names))
