"""Whether classes hang on colour, so that changing it would change the class, and what augmentation then does."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.images import Images, ImageSet
from foveola.models.classifier import LUMA
from foveola.models.unfamiliarity import Features, FeatureStatistics
from foveola.recipe import Recipe
from foveola.text import printable
from foveola.training.cross_fit import assign_folds

# From this accuracy on, colour alone tells two classes apart; chance is 0.5
TELLS_APART = 0.9
FOLDS = 5
MAX_IMAGES = 4000
# Pixels of each image that are looked at, a side
GRID = 24
# Bounds of a colour difference, relative to the pixel's brightness: narrow around grey, where most pixels are
BOUNDS = (-0.4, -0.2, -0.1, -0.03, -0.01, 0.01, 0.03, 0.1, 0.2, 0.4)
BINS = (len(BOUNDS) + 1) ** 2

Accuracies = NDArray[np.float64]


@dataclass(frozen=True)
class ColourEvidence:
    """The two classes that colour alone tells apart best.

    Parameters
    ----------
    first, second : the classes' indices
    colour : how many of their images are told apart by a histogram of colours without brightness: the mean of both
        classes, cross-validated; 0.5 is chance
    grey : the same by a histogram of grey levels
    """

    first: int
    second: int
    colour: float
    grey: float

    @property
    def tells_apart(self) -> bool:
        """Whether the classes hang on colour, as far as its accuracy says so."""
        return self.colour >= TELLS_APART


def colour_evidence(train: ImageSet, seed: int = 0) -> ColourEvidence | None:
    """How well colour alone tells apart any two classes of training images; None for grey images, or a single group.

    Linear discriminant analysis, by up to 4,000 of the images, in five folds that keep groups together. It finds
    classes that differ in the colours of the whole image, or of a part that is not small.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train))[:MAX_IMAGES])
    labels, pixels = train.labels[chosen], _some_pixels(train.images, chosen)
    if pixels.shape[3] == 1 or (pixels == pixels[..., :1]).all():
        return None
    units = np.arange(len(labels)) if train.groups is None else train.groups[chosen]
    count = min(FOLDS, len(np.unique(units)))
    if count < 2:
        return None
    folds = assign_folds(labels, count, seed, units)
    colour, grey = (
        _pairwise_accuracy(features, labels, folds, len(train.class_names)) for features in _histograms(pixels)
    )
    first, second = np.unravel_index(colour.argmax(), colour.shape)
    return ColourEvidence(int(first), int(second), float(colour[first, second]), float(grey[first, second]))


def _some_pixels(images: Images, chosen: NDArray[np.int64]) -> Images:
    """A grid of pixels of each of these images, uint8 N×H×W×C with sides of at most GRID."""
    rows, columns = (np.linspace(0, side - 1, min(side, GRID)).round().astype(int) for side in images.shape[1:3])
    parts = np.array_split(chosen, len(chosen) // 256 + 1)  # lazy images are read in parts
    pixels: Images = np.concatenate([images[part][:, rows][:, :, columns] for part in parts if len(part)])
    return pixels


def _histograms(pixels: Images) -> tuple[Features, Features]:
    """Histograms of colours, and of grey levels, float32 N×BINS each; square roots, which evens out their variance."""
    red, green, blue = pixels.reshape(len(pixels), -1, 3).astype(np.float32).transpose(2, 0, 1)
    total = red + green + blue + 1
    reddish = np.digitize((red - green) / total, BOUNDS)
    yellowish = np.digitize((red + green - 2 * blue) / (2 * total), BOUNDS)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return _histogram(reddish * (len(BOUNDS) + 1) + yellowish), _histogram((luma * BINS / 256).astype(np.int64))


def _histogram(bins: NDArray[np.int64]) -> Features:
    count, pixels = bins.shape
    numbers = (bins + BINS * np.arange(count)[:, None]).ravel()
    counts = np.bincount(numbers, minlength=BINS * count).reshape(count, BINS)
    roots: Features = np.sqrt(counts / pixels, dtype=np.float32)
    return roots


def _pairwise_accuracy(features: Features, labels: NDArray[np.int64], folds: NDArray[np.int64], k: int) -> Accuracies:
    """How many images of each two of k classes are told apart, K×K: the mean of both, each predicted by other folds."""
    scores = np.full((len(labels), k), -np.inf)
    for fold in np.unique(folds):
        held_out = folds == fold
        known = FeatureStatistics.of(features[~held_out], labels[~held_out])
        whitened = (features[held_out] - known.center) @ known.whitening
        classes = np.unique(labels[~held_out])
        distances = ((whitened[:, None] - known.class_means) ** 2).sum(axis=2)
        scores[np.ix_(held_out, classes)] = -distances
    recall = np.zeros((k, k))
    for label in np.unique(labels):
        own = scores[labels == label]
        recall[label] = ((own[:, [label]] > own) + 0.5 * (own[:, [label]] == own)).mean(axis=0)
    present = np.bincount(labels, minlength=k) > 0
    pairs = np.outer(present, present) & ~np.eye(k, dtype=bool)
    return np.where(pairs, (recall + recall.T) / 2, 0.0)


def settle_augmentation(recipe: Recipe, train: ImageSet) -> tuple[Recipe, list[str]]:
    """A recipe in which no random change is left to its strength, and what is to be said of its colours.

    Parameters
    ----------
    recipe : if its `augment.strength` is 0, it is returned as it is
    train : training images, which decide whether colours may change
    """
    if not recipe.augment.strength:
        return recipe, []
    if recipe.augment.colour is not None:
        return recipe.model_copy(update={"augment": recipe.augment.settled(colour=False)}), []
    if train.task == "multilabel":
        sentence = "colour: not changed, because labels may hang on it; --set augment.colour=0.2 changes it"
        return recipe.model_copy(update={"augment": recipe.augment.settled(colour=False)}), [sentence]
    evidence = colour_evidence(train)
    augment = recipe.augment.settled(colour=evidence is not None and not evidence.tells_apart)
    said = [] if evidence is None else [_sentence(evidence, train.class_names)]
    return recipe.model_copy(update={"augment": augment}), said


def _sentence(evidence: ColourEvidence, names: tuple[str, ...]) -> str:
    first, second = (printable(names[index]) for index in (evidence.first, evidence.second))
    colour, grey = (f"{100 * accuracy:.0f} %" for accuracy in (evidence.colour, evidence.grey))
    told = f"{first} from {second} in {colour} of the images (grey levels: {grey})"
    if evidence.tells_apart:
        return f"colour: alone, it tells {told}, so that it is not changed; --set augment.colour=0.2 changes it"
    return f"colour: alone, it tells no classes apart; at best {told}; --set augment.colour=0 leaves it as it is"
