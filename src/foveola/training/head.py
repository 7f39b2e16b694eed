"""The head: the last layer, fitted to the features that the layers before it give, by logistic regression.

Where these layers come pretrained, that takes seconds and is accurate with few images (Kornblith et al., 2019,
arXiv:1805.08974); as the start of a training of the whole network, it keeps the features from being distorted (Kumar et
al., 2022, arXiv:2202.10054).
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from foveola.errors import RecipeError
from foveola.images import ImageSet
from foveola.models.classifier import Classifier
from foveola.models.modules import ACTIVATIONS
from foveola.recipe import Recipe
from foveola.training.augment import augment_images
from foveola.training.cross_fit import assign_folds
from foveola.training.loop import seed_step

# Inverse strengths of the regularization that are tried, for features of variance 1
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
MIDDLE_STRENGTH = 1e-2
# Of cross-validation, if there are as many units
MAX_FOLDS = 4
MAX_ITERATIONS = 200
# Images whose features are computed at once
BATCH = 32

Features = NDArray[np.float32]


@dataclass(frozen=True)
class HeadFit:
    """How the last layer was fitted.

    `accuracy` is that of images that were left out, in cross-validation; None if there were too few for that.
    """

    strength: float
    accuracy: float | None
    images: int
    views: int
    seconds: float


def fit_head(
    classifier: Classifier,
    train: ImageSet,
    recipe: Recipe,
    units: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    flip: bool = False,
    announce: Callable[[int, int], None] = lambda done, total: None,
) -> HeadFit:
    """Fit the last layer of a classifier in place; the other layers stay as they are.

    The strength of the regularization is chosen by cross-validation on the training images, by log loss. If these are
    too few to leave some out, it is MIDDLE_STRENGTH.

    Parameters
    ----------
    classifier : its network ends with a dense layer
    train : training images, of the classifier's image shape
    recipe : `head_views` views of each image are used: the image, and others, changed as `augment` says
    units : a number for each image, N: images with the same one, as copies, are left out together
    precision : of matrix products; the regression computes in float32
    flip : whether views are flipped, each with probability 1/2
    announce : called with the number of views that were computed, and of all

    Raises
    ------
    RecipeError
        If the network does not end with a dense layer.
    """
    started = time.perf_counter()
    classifier.to(device).eval()
    head = _last_layer(classifier.network)
    every = np.ones(len(train), bool)
    features = compute_features(classifier, train, recipe, seed=seed, precision=precision, flip=flip, announce=announce)
    center, scale = standardize(features, every)
    # Products this thin are six times slower with two threads of OpenBLAS, which wait for each other
    with threadpool_limits(1, user_api="blas"):
        strength, accuracy = choose_strength(features, train, units, recipe, seed)
        weights, bias = fit_regression(features, train, every, recipe, strength)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights / scale))
        head.bias.copy_(torch.from_numpy(bias - (weights / scale) @ center))
    return HeadFit(strength, accuracy, len(train), recipe.head_views, time.perf_counter() - started)


def _last_layer(network: nn.Module) -> nn.Linear:
    last = list(network.children())[-1:]
    if not last or not isinstance(last[0], nn.Linear) or last[0].bias is None:
        raise RecipeError("head_views fits the last layer, which must be a Dense layer with bias. Set head_views = 0.")
    return last[0]


def folded_body(network: nn.Module) -> nn.Module:
    """All layers but the last, with batch normalisation folded into the convolutions before it."""
    body = nn.Sequential(*copy.deepcopy(list(network.children())[:-1])).eval()
    for module in list(body.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return body.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold(layers: nn.Sequential) -> None:
    for position in range(1, len(layers)):
        convolution, norm = layers[position - 1], layers[position]
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if convolution.activate is ACTIVATIONS["linear"]:
            layers[position - 1], layers[position] = fuse_conv_bn_eval(convolution, norm), nn.Identity()


def compute_features(
    classifier: Classifier,
    images: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    precision: torch.dtype,
    flip: bool,
    announce: Callable[[int, int], None],
) -> Features:
    """What the last layer gets, float32 V×N×D, of all `head_views` views of the images; parameters as of `fit_head`."""
    body = folded_body(classifier.network)
    total = recipe.head_views * len(images)
    features = np.empty((recipe.head_views, len(images), _last_layer(classifier.network).in_features), np.float32)
    for view in range(recipe.head_views):
        done = 0
        for values in features_of_view(classifier, body, images, recipe, view, seed, precision, flip):
            features[view, done : done + len(values)] = values
            done += len(values)
            announce(view * len(images) + done, total)
    return features


def standardize(features: Features, chosen: NDArray[np.bool_]) -> tuple[Features, Features]:
    """Bring features, V×N×D, in place to mean 0 and variance 1 over the chosen images, N; the mean and the scale, D."""
    center, spread = features[0, chosen].mean(axis=0), features[0, chosen].std(axis=0)
    scale = np.where(spread > 1e-6 * spread.max(), spread, np.inf).astype(np.float32)
    features -= center
    features /= scale
    return center, scale


def features_of_view(
    classifier: Classifier,
    body: nn.Module,
    train: ImageSet,
    recipe: Recipe,
    view: int,
    seed: int,
    precision: torch.dtype,
    flip: bool,
) -> Iterator[Features]:
    """Features, float32 n×D, of a view of the images, batch by batch; view 0 is the images themselves."""
    device = classifier.mean.device
    autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    augment = recipe.augment.model_copy(update={"crop_size": None})  # features are those of whole images
    for number, start in enumerate(range(0, len(train), BATCH)):
        images = torch.from_numpy(train.images[start : start + BATCH].copy()).to(device)
        with torch.inference_mode(), autocast:
            if view:
                seed_step(seed, 2**32 * view + number, device)
                images = augment_images(images, augment, flip, classifier.metadata.polarity)
            x: Tensor = body(classifier.normalize(classifier.fit_shape(images)))
        yield x.float().cpu().numpy()


def choose_strength(
    features: Features, train: ImageSet, units: NDArray[np.int64], recipe: Recipe, seed: int
) -> tuple[float, float | None]:
    """The strength with the smallest log loss on images that are left out, and their accuracy with it."""
    count = min(MAX_FOLDS, len(np.unique(units)))
    folds = assign_folds(train.labels, count, seed, units)
    if any(len(np.unique(train.labels[folds != fold])) < 2 for fold in range(count)):
        return MIDDLE_STRENGTH, None  # nothing is left that can be told apart
    image_weights = np.ones(len(train)) if train.weights is None else train.weights
    losses, correct = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    for fold in range(count):
        out = folds == fold
        labels = train.labels[out]
        for index, strength in enumerate(STRENGTHS):
            weights, bias = fit_regression(features, train, ~out, recipe, strength)
            logits = features[0, out] @ weights.T + bias
            logits -= logits.max(axis=1, keepdims=True)
            log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            losses[index] -= log_probabilities[np.arange(len(labels)), labels] @ image_weights[out]
            correct[index] += (logits.argmax(axis=1) == labels) @ image_weights[out]
    best = int(losses.argmin())
    return STRENGTHS[best], float(correct[best] / image_weights.sum())


def fit_regression(
    features: Features, train: ImageSet, chosen: NDArray[np.bool_], recipe: Recipe, strength: float
) -> tuple[Features, Features]:
    """Weights, K×D, and biases, K, of a multinomial logistic regression on views, V×N×D, of the chosen images, N.

    The strength is per image, whatever the number of views. A class without images gets the smallest bias.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = len(train.class_names)
    weights, bias = np.zeros((classes, features.shape[2]), np.float32), np.full(classes, -30, np.float32)
    known = np.unique(train.labels[chosen])
    if len(known) == 1:
        bias[known] = 0
        return weights, bias
    model = LogisticRegression(
        C=strength / len(features),
        max_iter=MAX_ITERATIONS,
        class_weight="balanced" if recipe.class_weights == "balanced" else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as near to the optimum as it pays
        labels, views = train.labels[chosen], features if chosen.all() else features[:, chosen]
        own = None if train.weights is None else np.tile(train.weights[chosen], len(views))
        model.fit(views.reshape(-1, views.shape[2]), np.tile(labels, len(views)), sample_weight=own)
    if len(model.classes_) == 2:  # a single row, for the second class against the first
        weights[model.classes_], bias[model.classes_] = (
            np.concatenate([-model.coef_, model.coef_]) / 2,
            np.concatenate([-model.intercept_, model.intercept_]) / 2,
        )
    else:
        weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weights, bias
