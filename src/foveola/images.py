"""Labelled images as arrays, validated when they are created."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import Images as Images
from foveola.arrays import Labels as Labels
from foveola.arrays import label_matrix, shape_cure, shape_text, to_labels, to_pixels
from foveola.display import Displayed
from foveola.errors import DataError
from foveola.lazy import LazyImages, blocks, select
from foveola.stratified import hold_out
from foveola.tasks import Task, label_pairs, task_of
from foveola.text import class_name, escape_surrogates

Polarity = Literal["light on dark", "dark on light", "mixed"]
Resize = Literal["stretch", "letterbox"]


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet(Displayed):
    """Images of one size with their labels.

    Parameters
    ----------
    images : uint8 array, N×H×W×C, C = 1 (grey) or 3 (RGB), 0 = black; floats from 0 to 1 are scaled. Or `LazyImages`,
        which are read when they are indexed
    labels : integer array, N, each an index into `class_names`; or strings, each one of `class_names`. For several
        labels an image, N×K zeros and ones, or booleans: which of `class_names` each image has
    class_names : K names, unique
    groups : integer array, N: images with the same number show the same patient, object or writer, and stay together
        when the set is split. None: every image stands for itself
    weights : float array, N, not below 0: how much each image counts in the loss and in the metrics, as `sample_weight`
        does in scikit-learn. None: all count the same

    Raises
    ------
    DataError
        If shapes, types, counts, labels, groups or weights are invalid or do not match.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((3, 8, 8, 1), np.uint8)
    >>> data = foveola.ImageSet(images, np.array([0, 1, 1]), ("cat", "dog"), weights=np.array([1, 1, 0.5]))
    >>> data.take([1, 2]).weights.tolist()
    [1.0, 0.5]
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    groups: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        names = tuple(class_name(str(name)) for name in self.class_names)
        images = to_pixels(self.images) if isinstance(self.images, np.ndarray) else self.images
        check_images(images)
        labels = np.asarray(self.labels)
        if (matrix := label_matrix(labels)) is not None:
            _check_matrix(matrix, len(images), names)
            labels = cast(Labels, matrix)
        else:
            labels = _to_indices(labels, names).astype(np.int64, copy=False)
            _check_labels(labels, len(images), names)
        object.__setattr__(self, "images", images)
        if self.groups is not None:
            object.__setattr__(self, "groups", _checked_groups(np.asarray(self.groups), len(images)))
        if self.weights is not None:
            object.__setattr__(self, "weights", _checked_weights(np.asarray(self.weights), len(images)))
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", names)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape, classes = shape_text(self.image_shape), len(self.class_names)
        return f"ImageSet({len(self):,} images of {shape}, {classes} classes)"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def task(self) -> Task:
        """Whether each image has one class (multiclass), or any number of labels (multilabel)."""
        return task_of(self.labels)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Number of images of each class, or with each label, K."""
        return np.bincount(label_pairs(self.labels)[1], minlength=len(self.class_names))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images, labels, class names and weights, independent of the memory layout."""
        return content_hash(self, blocks(self.images))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "ImageSet":
        """The images at these indices, in this order."""
        indices = np.asarray(indices, dtype=np.int64)
        groups = None if self.groups is None else self.groups[indices]
        taken = ImageSet(select(self.images, indices), self.labels[indices], self.class_names, groups)
        if self.weights is not None:  # set afterwards: images that all weigh 0 can be looked at
            object.__setattr__(taken, "weights", self.weights[indices])
        return taken

    def split(self, fraction: float, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """A random part and the rest, by `foveola.stratified.hold_out`: images of one group stay together.

        Parameters
        ----------
        fraction : fraction to hold out, 0 < fraction < 1
        seed : the same seed gives the same split

        Returns
        -------
        (rest, held_out), both in the original order

        Raises
        ------
        DataError
            If a class has a single image, or its images are of a single group: it cannot be in both parts.
        """
        held_out = hold_out(self.labels, self.groups, self.class_names, fraction, seed)
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))


def content_hash(images: ImageSet, parts: Iterable[Images]) -> str:
    """The fingerprint of images that come in parts, uint8 N×H×W×C, in order."""
    digest = hashlib.sha256()
    digest.update(repr((images.images.shape, images.class_names)).encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    if images.task == "multilabel":
        digest.update(b"multilabel")
    digest.update(np.ascontiguousarray(images.labels, dtype="<i8" if images.task == "multiclass" else "|u1").data)
    if images.weights is not None:
        digest.update(np.ascontiguousarray(images.weights, dtype="<f8").data)
    return digest.hexdigest()


def know_fingerprint(images: ImageSet, fingerprint: str) -> None:
    """Keep a fingerprint that was computed before, so that lazy images need not be read for it."""
    vars(images)["fingerprint"] = fingerprint  # where cached_property keeps it


@dataclass(frozen=True, eq=False)
class Originals:
    """The training pictures as they were before they were resized and converted.

    Parameters
    ----------
    heights, widths : int64 arrays, N, in pixels
    colour : number of pictures in colour
    white_level : the value that became 255 in files of 16 bits per channel; None: 65535
    """

    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    colour: int
    white_level: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Displayed):
    """A data set: its training images, and its validation and test images if it has such splits.

    All splits have the same image shape and class names, and one class an image or several labels. A model can be
    measured on any data set; `check_trainable` tells whether one can be trained on it. `flip_safe` means that a
    mirrored image keeps its class; it is never assumed, only declared by the catalog. `skipped` lists the unreadable
    files that were left out. `originals` describes the training images before they were resized and converted; None if
    they were not. `resize` says how images of another size were resized, with the grey level `fill` around letterboxed
    images; `picture_polarity` is that of the training images without this border, None without a letterbox. `notes` are
    sentences for the user about what the reader converted or assumed.
    """

    name: str
    train: ImageSet
    validation: ImageSet | None = None
    test: ImageSet | None = None
    flip_safe: bool = False
    licence: str | None = None
    skipped: tuple[str, ...] = ()
    originals: Originals | None = None
    resize: Resize = "stretch"
    fill: int = 0
    picture_polarity: Polarity | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", escape_surrogates(self.name))
        object.__setattr__(self, "skipped", tuple(map(escape_surrogates, self.skipped)))
        for split in (self.validation, self.test):
            if split is None:
                continue
            if split.task != self.train.task:
                raise DataError(
                    f"One split of {self.name} has one class an image, another several labels. Give all splits labels "
                    f"of one form."
                )
            if split.class_names != self.train.class_names:
                raise DataError(
                    f"The splits of {self.name} have different classes; every split must have the same ones."
                )
            if split.image_shape != self.train.image_shape:
                raise DataError(
                    f"The splits of {self.name} have images of {shape_text(self.train.image_shape)} and "
                    f"{shape_text(split.image_shape)}; every split must have the same shape."
                )

    def __repr__(self) -> str:
        splits = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(images):,} {name}" for name, images in splits.items() if images is not None)
        shape, classes = shape_text(self.image_shape), len(self.class_names)
        return f"Dataset({self.name!r}: {counts} images of {shape}, {classes} classes)"

    @property
    def task(self) -> Task:
        """Whether each image has one class (multiclass), or any number of labels (multilabel)."""
        return self.train.task

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train.image_shape

    def check_trainable(self) -> None:
        """Refuse data that nothing can be trained on; a model can be measured on it all the same.

        Raises
        ------
        DataError
            If there are images of fewer than two classes, a class has no training image, or every training image has
            a label.
        """
        counts = self.train.class_counts
        if self.task == "multilabel":
            _check_labels_vary(self.name, self.train)
            return
        if np.count_nonzero(counts) < 2:
            raise DataError(
                f"{self.name} has training images of {np.count_nonzero(counts)} class; a classifier needs at least two "
                f"classes. Add images of another class."
            )
        empty = [name for name, count in zip(self.train.class_names, counts, strict=True) if count == 0]
        if empty:
            raise DataError(
                f"{self.name} has no training image of {', '.join(map(repr, empty))}. Add images, or remove the class."
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of all splits."""
        splits = (self.train, self.validation, self.test)
        return hashlib.sha256(repr([s and s.fingerprint for s in splits]).encode()).hexdigest()


def check_one_class(dataset: Dataset, purpose: str) -> None:
    """Refuse data with several labels an image where that has no meaning yet; `purpose` begins the message.

    Raises
    ------
    DataError
        If the images have several labels.
    """
    if dataset.task == "multilabel":
        raise DataError(
            f"{purpose} on images of one class each, but those of {dataset.name} have several labels. Give one column "
            f"of the labels at a time: ImageSet(images, labels[:, k], …)."
        )


class LetterboxPlace(NamedTuple):
    """Where an image lies in a letterbox: its first row and column, and how many it has."""

    top: int
    left: int
    rows: int
    columns: int


def letterbox_place(image_size: Sequence[int], height: int, width: int) -> LetterboxPlace:
    """Where an image of this height and width lies when it is resized, in its own aspect, to fit into height×width.

    Its sides are rounded, halves up, and have at least one pixel. It lies in the middle; of an odd number of pixels
    beside it, the smaller half is above or on the left.

    Examples
    --------
    >>> from foveola.images import letterbox_place
    >>> letterbox_place((100, 300), 64, 64)
    LetterboxPlace(top=21, left=0, rows=21, columns=64)
    """
    image_height, image_width = image_size
    rows = (2 * image_height * width + image_width) // (2 * image_width)
    columns = (2 * image_width * height + image_height) // (2 * image_height)
    rows, columns = min(max(rows, 1), height), min(max(columns, 1), width)
    return LetterboxPlace((height - rows) // 2, (width - columns) // 2, rows, columns)


def polarity(images: Images) -> Polarity:
    """Whether images, uint8 N×H×W×C, are light on dark or dark on light, judging by the median of each image's border.

    At least 90 % of the images must agree; otherwise, as usual for photographs, the polarity is "mixed". Of more than
    2,000 images, evenly spaced ones are examined.
    """
    some = select(images, slice(None, None, max(len(images) // 2000, 1)))
    return polarity_of(np.concatenate([border_levels(block) for block in blocks(some)]))


def border_levels(images: Images) -> NDArray[np.float64]:
    """The median grey level of each image's border, N, of images, uint8 N×H×W×C."""
    edges = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    levels: NDArray[np.float64] = np.median(np.concatenate([edge.mean(axis=2) for edge in edges], axis=1), axis=1)
    return levels


def polarity_of(levels: NDArray[np.float64]) -> Polarity:
    """The polarity of images with these `border_levels`, N."""
    if np.mean(levels < 85) >= 0.9:
        return "light on dark"
    if np.mean(levels > 170) >= 0.9:
        return "dark on light"
    return "mixed"


def check_images(images: object) -> None:
    """Refuse anything but a uint8 array or lazy images, N×H×W×C with C = 1 or 3.

    Raises
    ------
    DataError
        If the type or the shape is wrong, or there are no images.
    """
    if not isinstance(images, np.ndarray | LazyImages) or images.dtype != np.uint8:
        raise DataError(_type_message(images))
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"Images must have the shape N×H×W×C with C = 1 (grey) or 3 (RGB), not {shape_text(images.shape) or '()'}. "
            f"{shape_cure(images.shape)}"
        )
    if 0 in images.shape:
        raise DataError(f"There are no images: the array has the shape {shape_text(images.shape)}.")


def _type_message(images: object) -> str:
    if not isinstance(images, np.ndarray):
        cure = "numpy.asarray(images, dtype='uint8')"
        return f"Images must be a NumPy array of uint8, not {type(images).__name__}. Convert them: {cure}."
    kind = images.dtype.kind
    cures = {"b": "images.astype('uint8') * 255", "f": "from 0 to 1: (images * 255).round().astype('uint8')"}
    cure = cures.get(kind, "images.astype('uint8')")
    return f"Images must be a uint8 array with values 0 to 255, not {images.dtype}. Convert them: {cure}."


def _checked_groups(groups: NDArray[Any], image_count: int) -> NDArray[np.int64]:
    if not np.issubdtype(groups.dtype, np.integer) or groups.shape != (image_count,):
        raise DataError(
            f"Groups must be one integer an image, {image_count} in all, not {groups.dtype} of shape "
            f"{shape_text(groups.shape)}. Number them: numpy.unique(groups, return_inverse=True)[1]."
        )
    return groups.astype(np.int64, copy=False)


def _checked_weights(weights: NDArray[Any], image_count: int) -> NDArray[np.float64]:
    if weights.dtype.kind not in "uifb" or weights.shape != (image_count,):
        raise DataError(
            f"Weights must be one number an image, {image_count} in all, not {weights.dtype} of shape "
            f"{shape_text(weights.shape) or '()'}. Give one weight for each image."
        )
    weights = weights.astype(np.float64)
    if wrong := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0))).tolist():
        raise DataError(
            f"Weights must be 0 or more, and finite; that of image {wrong[0]} is {weights[wrong[0]]}. Correct the "
            f"weights, or leave these images out ({len(wrong):,} in all)."
        )
    if not weights.any():
        raise DataError("All weights are 0, so that no image would count. Give some image a weight above 0.")
    return weights


def _to_indices(labels: NDArray[Any], names: tuple[str, ...]) -> Labels:
    """Labels as indices of classes."""
    if not labels.size:
        return np.empty(0, np.int64)
    labels = to_labels(labels)
    if labels.dtype.kind != "U":
        return labels
    texts = labels.tolist()
    if unknown := sorted(set(texts).difference(names)):
        raise DataError(
            f"Labels {', '.join(map(repr, unknown[:5]))} are not among the class names ({', '.join(names[:10])}). "
            f"Name all classes: sorted(set(labels))."
        )
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[label] for label in texts], np.int64)


def _check_matrix(labels: NDArray[np.bool_], image_count: int, names: tuple[str, ...]) -> None:
    if labels.shape != (image_count, len(names)):
        raise DataError(
            f"Labels are {shape_text(labels.shape)}, but there are {image_count} images and {len(names)} names of "
            f"labels: give {image_count}×{len(names)}, a row for each image and a column for each name."
        )
    if len(set(names)) != len(names):
        raise DataError(f"Names of labels must be unique; these are {', '.join(names)}. Rename the repeated ones.")


def _check_labels_vary(name: str, images: ImageSet) -> None:
    """Refuse labels that no training image has, or every one: there is nothing to tell apart."""
    counts = images.class_counts
    for label, count in zip(images.class_names, counts, strict=True):
        if count in (0, len(images)):
            which = "no" if count == 0 else "every"
            raise DataError(
                f"In {name}, {which} training image has the label {label!r}, so that it cannot be learnt. Add images, "
                f"or remove the label."
            )


def _check_labels(labels: Labels, image_count: int, names: tuple[str, ...]) -> None:
    if len(labels) != image_count:
        raise DataError(f"There are {image_count} images but {len(labels)} labels; every image needs exactly one.")
    if len(set(names)) != len(names):
        raise DataError(f"Class names must be unique; these are {', '.join(names)}. Rename the repeated ones.")
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"Labels run from {labels.min()} to {labels.max()}, but must be between 0 and {len(names) - 1}: there are "
            f"{len(names)} classes. Correct the labels, or name all classes."
        )
