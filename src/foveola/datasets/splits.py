"""Division of a data set into training, validation and test images.

Copies of an image, and images of one group, stay on one side of every split that is drawn. Near copies do, too, where
finding them takes a few seconds at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from foveola.datasets.components import join
from foveola.datasets.duplicates import find_duplicates, reduced
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet
from foveola.inputs.resize import CommonShape, to_channels
from foveola.lazy import concatenate
from foveola.models.learnt import LearntImages, Seen, hash_images
from foveola.models.metadata import DataOrigin, ModelMetadata, Together
from foveola.stratified import hold_out
from foveola.tasks import label_numbers, label_pairs

Split = Literal["test", "validation", "train", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Near copies are looked for among at most so many images, with so many values in all: about 3 seconds. Larger images
# are reduced for it, to not less than so many pixels a side
MAX_SEARCHED_IMAGES = 10_000
MAX_SEARCHED_VALUES = 2**25
MIN_SEARCHED_SIDE = 32

# The test split depends only on the data, so that runs with different seeds are compared on the same images.
_TEST_SEED = 0

Indices = NDArray[np.int64]

# Where an image of the training images goes
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Overlap:
    """What the splits have in common.

    Parameters
    ----------
    together : what counts as the same image, and stays together where a split is drawn
    different : number of different images in all splits
    test : which test images are training images, or validation images, too; None without a test split
    validation : which validation images are training images, bool N
    test_groups, validation_groups : number of test images, and validation images, whose group is also in training
    conflicting : number of images that have a copy of another class
    scattered : number of near copies that were not kept together, because too many images are nearly the same
    """

    together: Together
    different: int
    test: Seen | None
    validation: NDArray[np.bool_] | None
    test_groups: int = 0
    validation_groups: int = 0
    conflicting: int = 0
    scattered: int = 0


@dataclass(frozen=True)
class Splits:
    """Training, validation and test images of one training."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet | None

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """The splits that a data set has itself."""
        return cls(dataset.train, dataset.validation, dataset.test)

    @property
    def by_name(self) -> dict[str, ImageSet]:
        """The splits that there are."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in every.items() if images is not None}

    @property
    def together(self) -> ImageSet:
        """All images, in the order of the splits.

        Of splits without groups, or without weights, while others have some, images stand for themselves, and weigh 1.
        """
        parts = list(self.by_name.values())
        images = concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        weights = None
        if any(part.weights is not None for part in parts):
            weights = np.concatenate([np.ones(len(part)) if part.weights is None else part.weights for part in parts])
        return ImageSet(images, labels, self.train.class_names, _groups_together(parts), weights)


def _groups_together(parts: Sequence[ImageSet]) -> Indices | None:
    if all(part.groups is None for part in parts):
        return None
    groups, free = [], 1 + max(int(part.groups.max()) for part in parts if part.groups is not None)
    for part in parts:
        groups.append(free + np.arange(len(part)) if part.groups is None else part.groups)
        free += len(part)
    return np.concatenate(groups)


def divide(
    dataset: Dataset, validation: float, test: float, seed: int, together: Together | None = None
) -> tuple[Splits, Overlap]:
    """The splits of a data set; a missing validation or test split is drawn from the training images.

    Parameters
    ----------
    validation : fraction of the training images, if the data has no validation split; 0 for none
    test : fraction of the images, if the data has no test split; 0 for none
    seed : of the validation split; the test split depends only on the data
    together : what stays on one side; None: near copies if they are found quickly and the splits keep their sizes,
        otherwise copies

    Raises
    ------
    DataError
        If a class has too few images, or groups, to be in every split, or all images of a split weigh 0.
    """
    fractions = (0.0 if dataset.validation else validation, 0.0 if dataset.test else test)
    given = Splits.of(dataset)

    def divided(keys: list[Indices], kind: Together) -> tuple[Splits, Overlap]:
        part = _draw(dataset.train, keys[0], *fractions, seed)
        splits = _apply(part, given)
        _check_weights(splits)
        return splits, _overlap(part, given, keys, kind)

    if together is not None:
        return divided(image_keys(given, together), together)
    copies = image_keys(given, "copies")
    if _reduction(given) is None:
        return divided(copies, "copies")
    near = image_keys(given, "near copies")
    if _keeps_sizes(dataset.train, near[0], *fractions, seed):
        return divided(near, "near copies")
    splits, overlap = divided(copies, "copies")
    return splits, replace(overlap, scattered=overlap.different - _count(near))


def _check_weights(splits: Splits) -> None:
    """Refuse a split whose images all weigh 0: nothing could be learnt or measured."""
    for name, images in splits.by_name.items():
        if images.weights is not None and not images.weights.any():
            raise DataError(
                f"The {len(images):,} {name} images all weigh 0. Give some of them a weight above 0, or split the data "
                f"yourself."
            )


def restore_splits(dataset: Dataset, origin: DataOrigin) -> Splits:
    """The data that a model was trained on, split as it was for the training.

    A model file knows its images by their hashes; for an export, the split is drawn again.

    Raises
    ------
    DataError
        If the images were grouped, neither hashes nor groups are at hand, and a split must be drawn.
    """
    given = Splits.of(dataset)
    if origin.learnt is not None:
        seen = origin.learnt.seen(dataset.train.images, earlier=False)
        part = np.full(len(dataset.train), TEST if origin.test else TRAIN)
        if dataset.validation is None:
            part[seen.validation] = VALIDATION
        part[seen.training] = TRAIN
        return _apply(part, given)
    if origin.groups is not None and dataset.train.groups is None:
        raise DataError(
            f"The training images of {origin.name} were divided by groups, which are not known here, so that its "
            f"splits cannot be told apart. Give the run instead of its export."
        )
    return divide(dataset, origin.validation, origin.test or 0.0, origin.seed, origin.together)[0]


class Selection(NamedTuple):
    """Images to measure on, the name of their split, what a model has seen of them, and how many were left out.

    `seen` is None where that cannot be known: exports do not hold the hashes of the training images.
    """

    images: ImageSet
    name: str
    seen: Seen | None
    left_out: int = 0

    @property
    def held_out(self) -> bool:
        """Whether the model is known to have seen none of them."""
        return self.seen is not None and not self.seen.any.any()


def select_split(dataset: Dataset, metadata: ModelMetadata, split: Split) -> Selection:
    """The images of a split.

    Data that the model was trained on is split as it was then. Other data needs no test split: without one, it is used
    whole, without the images that the model has seen; if it has seen all of them, they are used all the same.

    Raises
    ------
    DataError
        If there is no such split.
    """
    origin = metadata.data
    own = origin is not None and origin.fingerprint == dataset.fingerprint
    splits = Splits.of(dataset)
    learnt = None if origin is None else origin.learnt
    if origin is not None and own:
        splits = restore_splits(dataset, origin)
        learnt = learnt or LearntImages.of(splits.train, splits.validation)
    unseen = split == "test" and splits.test is None and not own
    images = splits.together if split == "all" or unseen else splits.by_name.get(split)
    if images is None:
        raise DataError(f"{dataset.name} has no {split} split for this model. Choose another with --split.")
    seen = None if learnt is None else learnt.seen(_in_shape(images.images, metadata))
    is_given = dataset.test is not None or dataset.validation is not None  # what is drawn has no copies elsewhere
    if seen is not None and is_given and own and split == "test" and origin and origin.together == "near copies":
        seen |= _seen(dict(zip(splits.by_name, image_keys(splits, origin.together), strict=True)))
    if not unseen or seen is None or seen.any.all() or not seen.any.any():
        return Selection(images, "all" if unseen else split, seen)
    left = np.flatnonzero(~seen.any)
    return Selection(images.take(left), "unseen", seen.take(left), left_out=len(images) - len(left))


def image_keys(splits: Splits, together: Together) -> list[Indices]:
    """A number for each image of each split, N each: the same for images that count as the same one."""
    parts = [images.images for images in splits.by_name.values()]
    sizes = [len(part) for part in parts]
    if together == "nothing":
        keys = np.arange(sum(sizes))
    elif together == "copies":
        keys = np.unique(np.concatenate([hash_images(part) for part in parts]), return_inverse=True)[1]
    else:
        keys = np.arange(sum(sizes))
        for group in find_duplicates(reduced(concatenate(parts), _reduction(splits) or 1)):
            keys[list(group.members)] = group.members[0]
    return np.split(keys, np.cumsum(sizes)[:-1])


def unit_numbers(splits: Splits, together: Together) -> Indices:
    """A number for each image of all splits, N: the same for images of a group, and for those that count as one."""
    joined = joined_groups(splits.together.groups, np.concatenate(image_keys(splits, together)))
    return np.arange(sum(map(len, splits.by_name.values()))) if joined is None else joined


def _reduction(splits: Splits) -> int | None:
    """The factor by which images are reduced where near copies are looked for; None if there are too many images."""
    count = sum(len(images) for images in splits.by_name.values())
    height, width, channels = splits.train.image_shape
    if count > MAX_SEARCHED_IMAGES:
        return None
    for factor in range(1, max(min(height, width) // MIN_SEARCHED_SIDE, 1) + 1):
        if count * (height // factor) * (width // factor) * channels <= MAX_SEARCHED_VALUES:
            return factor
    return None


def _draw(images: ImageSet, keys: Indices, validation: float, test: float, seed: int) -> NDArray[np.int64]:
    """Where each training image goes, N; fractions of 0 draw nothing.

    Of a class with too few different images to be in every split, copies are on several sides.
    """
    parts = bool(validation) + bool(test) + 1
    keys = np.where(_has_too_few(images, keys, parts), keys.max() + 1 + np.arange(len(keys)), keys)
    groups = joined_groups(images.groups, keys)
    _check_classes(images, groups, parts)
    part = np.full(len(images), TRAIN)
    for split, fraction, split_seed in ((TEST, test, _TEST_SEED), (VALIDATION, validation, seed)):
        if fraction:
            rest = np.flatnonzero(part == TRAIN)
            own = None if groups is None else groups[rest]
            part[rest[hold_out(images.labels[rest], own, images.class_names, fraction, split_seed)]] = split
    return part


def joined_groups(groups: Indices | None, keys: Indices) -> Indices | None:
    """Groups of images that share a group or a key, N; None if every image stands for itself."""
    if groups is None:
        return keys if len(np.unique(keys)) < len(keys) else None
    return join(groups, keys)


def _has_too_few(images: ImageSet, keys: Indices, parts: int) -> NDArray[np.bool_]:
    """Whether the class, or a label, of each image, N, has fewer different images than there are splits."""
    members, labels = label_pairs(images.labels)
    pairs = np.unique(np.stack([labels, keys[members]], axis=1), axis=0)
    different = np.bincount(pairs[:, 0], minlength=len(images.class_names))
    few = np.zeros(len(images), bool)
    few[members[(different < parts)[labels]]] = True
    return few


def _check_classes(images: ImageSet, groups: Indices | None, parts: int) -> None:
    """Refuse a class, or label, that is in some splits, but not in all."""
    units, what = (np.arange(len(images)), "images") if groups is None else (groups, "groups of images")
    members, labels = label_pairs(images.labels)
    for label, name in enumerate(images.class_names):
        count = len(np.unique(units[members[labels == label]]))
        if 1 < count < parts:
            raise DataError(
                f"Class {name!r} has {count} {what}, too few to be among the training, the validation and the test "
                f"images. Add {what} of this class, or remove the class."
            )


def _keeps_sizes(images: ImageSet, keys: Indices, validation: float, test: float, seed: int) -> bool:
    """Whether the drawn splits have between half and twice the images of each class that they should have."""
    if len(np.unique(keys)) == len(keys):
        return True
    if _has_too_few(images, keys, bool(validation) + bool(test) + 1).any():
        return False
    try:
        part = _draw(images, keys, validation, test, seed)
    except DataError:
        return False
    for split, fraction in ((TEST, test), (VALIDATION, (1 - test) * validation)):
        wanted = fraction * images.class_counts
        found = np.bincount(label_pairs(images.labels[part == split])[1], minlength=len(wanted))
        if fraction and not ((found >= np.floor(wanted / 2)) & (found <= np.ceil(2 * wanted) + 1)).all():
            return False
    return True


def _apply(part: NDArray[np.int64], given: Splits) -> Splits:
    """The given splits, and those that are drawn from the training images."""
    if not part.any():
        return given
    drawn = {number: given.train.take(np.flatnonzero(part == number)) for number in np.unique(part)}
    return Splits(drawn[TRAIN], drawn.get(VALIDATION, given.validation), drawn.get(TEST, given.test))


def _overlap(part: NDArray[np.int64], given: Splits, keys: list[Indices], together: Together) -> Overlap:
    """What the splits have in common, whether they are given or drawn."""
    own_keys = dict(zip(given.by_name, keys, strict=True))
    own_groups = {name: images.groups for name, images in given.by_name.items()}
    members = {"train": part == TRAIN, "validation": part == VALIDATION, "test": part == TEST}
    drawn = {"train"} | {name for name in ("validation", "test") if name not in own_keys and members[name].any()}
    of_keys = own_keys | {name: own_keys["train"][members[name]] for name in drawn}
    groups = own_groups["train"]
    of_groups = own_groups | {name: None if groups is None else groups[members[name]] for name in drawn}
    validation = of_keys.get("validation")
    return Overlap(
        together,
        different=_count(keys),
        test=_seen(of_keys) if "test" in of_keys else None,
        validation=None if validation is None else np.isin(validation, of_keys["train"]),
        test_groups=_shared(of_groups.get("test"), of_groups["train"]),
        validation_groups=_shared(of_groups.get("validation"), of_groups["train"]),
        conflicting=_conflicting(given, keys),
    )


def _seen(keys: Mapping[str, Indices]) -> Seen:
    """Which test images are training or validation images, too, by the keys of each split."""
    training = np.isin(keys["test"], keys["train"])
    validation = np.isin(keys["test"], keys.get("validation", ()))
    return Seen(training, validation & ~training)


def _shared(groups: Indices | None, training: Indices | None) -> int:
    """Number of images whose group is also in training."""
    return 0 if groups is None or training is None else int(np.isin(groups, training).sum())


def _conflicting(given: Splits, keys: list[Indices]) -> int:
    """Number of images whose key is also that of an image of another class, or with other labels."""
    key = np.unique(np.concatenate(keys), return_inverse=True)[1]
    label = label_numbers(np.concatenate([images.labels for images in given.by_name.values()]))
    pairs = np.unique(np.stack([key, label], axis=1), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1)[key].sum())


def _count(keys: list[Indices]) -> int:
    return len(np.unique(np.concatenate(keys)))


def _in_shape(images: Images, metadata: ModelMetadata) -> Images:
    """Images, uint8 N×H×W×C, as a model gets them: in its height, width and channels."""
    height, width, channels = metadata.image_shape
    if images.shape[1:] == (height, width, channels):
        return images
    shape = CommonShape(height, width, metadata.resize, metadata.fill)
    return np.stack([shape.fit(to_channels(image, channels)) for image in images])
