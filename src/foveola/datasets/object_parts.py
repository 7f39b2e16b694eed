"""A split given as objects: images and labels of arrays, lists of images, PyTorch and Hugging Face data sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveola.arrays import is_tensor, label_matrix, labels_of_lists, shape_text, to_images, to_labels, to_pixels
from foveola.datasets.table_labels import is_list, names_of_labels, read_labels
from foveola.errors import DataError
from foveola.images import Images, ImageSet
from foveola.lazy import LazyImages, as_images

_COLUMNS = {"image": ("image", "img", "images", "pixel_values"), "label": ("label", "labels", "class", "target")}


@dataclass
class Part:
    """A split as it was given: all images in one array, or one by one.

    Parameters
    ----------
    where : its name in messages
    count : N, number of images
    images : uint8 N×H×W×C; None where they come one by one
    item : image and label by index, where they come one by one; the label is None where `labels` has it
    labels : numbers, or names of classes, N; those of items are known once they have been read
    class_names : of labels that are numbers; empty: none were given
    channels_first : as of `Objects`
    ranges : whether floats from 0 to 1 were scaled, and the first image that says so
    found : labels that came with images, by index
    """

    where: str
    count: int
    images: Images | None = None
    item: Callable[[int], tuple[object, object]] | None = None
    labels: NDArray[Any] | None = None
    class_names: tuple[str, ...] = ()
    channels_first: bool | None = None
    ranges: dict[bool, int] = field(default_factory=dict)
    found: dict[int, object] = field(default_factory=dict)


# Recognised by their form


def is_pair(data: object) -> bool:
    return isinstance(data, tuple) and len(data) == 2


def is_frame(data: object) -> bool:
    """A data frame of pandas, polars or pyarrow, by the protocols for their exchange."""
    if isinstance(data, type) or is_hub(data):
        return False
    return hasattr(data, "__dataframe__") or hasattr(data, "__arrow_c_stream__")


def is_hub(data: object) -> bool:
    """A data set of Hugging Face's library datasets."""
    return hasattr(data, "features") and hasattr(data, "column_names") and hasattr(data, "__len__")


def is_map_style(data: object) -> bool:
    """A data set as of PyTorch: with a length, and images with labels by index."""
    if isinstance(data, str | bytes | list | tuple | Mapping | type | LazyImages) or is_array(data) or is_frame(data):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def is_array(data: object) -> bool:
    forms = ("__array__", "__array_interface__", "__dlpack__")
    return not isinstance(data, type) and any(hasattr(data, form) for form in forms)


def read_part(given: object, channels_first: bool | None, where: str) -> Part:
    """What a split was given as, recognised by its form; images that come one by one are not read yet.

    Raises
    ------
    DataError
        If arrays or labels cannot be used.
    """
    if isinstance(given, ImageSet):
        raise DataError(f"{where} is an ImageSet, and another split is not. Give all splits in the same form.")
    if is_hub(given):
        return _hub_part(cast(Any, given), where)
    if is_map_style(given):
        return _map_style_part(cast(Any, given), channels_first, where)
    images, labels = cast(tuple[object, object], given)
    return _pair_part(images, labels, channels_first, where)


# Images and labels in arrays


def _pair_part(images: object, labels: object, channels_first: bool | None, where: str) -> Part:
    """Images and labels: arrays, or lists of images."""
    numbers = to_class_labels(labels, where)
    if is_frame(images) and hasattr(images, "columns"):
        raise DataError(
            f"{where}: the images are a data frame. Give the frame with its column of labels; or its pixels as an "
            f"array, such as images.to_numpy().reshape(-1, 28, 28)."
        )
    listed = _listed(images)
    if isinstance(images, LazyImages):
        part = Part(where, len(images), images=as_images(images), labels=numbers)
    elif listed is not None:
        part = Part(where, len(listed), item=lambda n: (listed[n], None), labels=numbers, channels_first=channels_first)
    else:
        part = _array_part(images, channels_first, numbers, where)
    if not part.count:
        raise DataError(f"{where}: there are no images: their number is 0. Give some.")
    if len(numbers) != part.count:
        raise DataError(
            f"{where}: there are {part.count:,} images but {len(numbers):,} labels; every image needs exactly one."
        )
    return part


def _listed(images: object) -> Sequence[object] | None:
    """Images that come one by one, in a list or an array of objects; None for what is one array."""
    if hasattr(images, "dtype") and getattr(images, "ndim", 0) == 1:
        images = list(cast(Any, images))  # objects, or paths
    if not isinstance(images, list | tuple) or not len(images):
        return None
    first: Any = images[0]
    if isinstance(first, str | Path):
        raise DataError(
            "Images must be arrays or Pillow images, not paths. Give an image folder by its path, or a table or data "
            "frame with a column of paths and one of labels."
        )
    return images if isinstance(first, Image.Image) or getattr(first, "ndim", 0) >= 2 else None


def _array_part(images: object, channels_first: bool | None, labels: NDArray[Any], where: str) -> Part:
    array = as_array(images, "The images", where)
    if channels_first is None:
        channels_first = is_tensor(images) and array.ndim == 4 and array.shape[1] in (1, 3)
    array = _channels_last(array, channels_first, where)
    scaled = is_scaled(array)
    try:
        pixels = to_images(array)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    ranges = {} if scaled is None else {scaled: 0}
    return Part(where, len(pixels), images=pixels, labels=labels, ranges=ranges)


def _channels_last(array: NDArray[Any], channels_first: bool, where: str) -> NDArray[Any]:
    """Images with their channels last, N×H×W×C or N×H×W."""
    if array.ndim == 2 and len(array):
        # The advice on flat rows is that of ImageSet
        ImageSet(to_pixels(array), np.zeros(len(array), np.int64), ("a", "b"))
    if array.ndim != 4:
        return array
    if channels_first:
        if array.shape[1] not in (1, 3):
            raise DataError(
                f"{where}: with channels first, images have the shape N×C×H×W with C = 1 or 3, not "
                f"{shape_text(array.shape)}. Leave out channels_first if the channels are last."
            )
        return np.moveaxis(array, 1, 3)
    if array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        raise DataError(
            f"{where}: images of the shape {shape_text(array.shape)} seem to have their channels first. Say so: "
            f"channels_first=True; or move them to the end: images.transpose(0, 2, 3, 1)."
        )
    return array


def is_scaled(array: NDArray[Any]) -> bool | None:
    """Whether `to_pixels` scales an array of floats; None where that makes no difference."""
    if array.dtype.kind != "f" or not array.size or array.max() == 0:
        return None
    return bool(array.max() <= 1)


def as_array(value: object, what: str, where: str) -> NDArray[Any]:
    """A NumPy array of anything that can be one: lists, tensors, memory maps, columns."""
    if is_tensor(value):
        value = cast(Any, value).detach().cpu()
    elif np.ma.is_masked(value):
        raise DataError(f"{where}: {what} are an array with masked values. Fill them, or leave them out.")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            array: NDArray[Any] = np.from_dlpack(cast(Any, value))
        else:
            array = np.asarray(value)
    except DataError:
        raise
    except Exception as error:  # other libraries raise exceptions of many types
        reason = str(error).rstrip(".") or type(error).__name__
        raise DataError(
            f"{where}: {what} ({type(value).__name__}) cannot be turned into a NumPy array: {reason}. Give "
            f"something that numpy.asarray takes."
        ) from error
    if array.ndim == 0:
        raise DataError(f"{where}: {what} are of type {type(value).__name__}. Give an array, or a list.")
    return array


def to_class_labels(values: object, where: str) -> NDArray[Any]:
    """Labels as int64 N, as names of classes, N, or, of several labels an image, bool N×K."""
    array = as_array(values, "The labels", where)
    if array.dtype.kind == "O":
        array = _plain(array, where)
    elif array.dtype.kind == "T":
        array = array.astype(str)
    elif array.dtype.kind == "f" and np.isnan(array).any():
        raise _missing(np.isnan(array), where)
    try:
        several = label_matrix(array)
        return to_labels(array) if several is None else several
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _plain(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels from an array of Python objects, as columns of data frames are."""
    missing = np.array([value is None or value != value for value in array.ravel().tolist()], bool)
    if missing.any():
        raise _missing(missing, where)
    kinds = {str if isinstance(value, str) else type(value) for value in array.ravel().tolist()}
    if str in kinds and len(kinds) > 1:
        others = ", ".join(sorted(kind.__name__ for kind in kinds - {str}))
        raise DataError(f"{where}: labels are partly texts and partly {others}. Give all in the same form.")
    try:
        return array.astype(str) if kinds == {str} else np.asarray(array.tolist())
    except ValueError:
        raise DataError(
            f"{where}: labels must be one number or text for each image. Give lists of equal form."
        ) from None


def _missing(missing: NDArray[np.bool_], where: str) -> DataError:
    first = int(np.flatnonzero(missing.ravel())[0])
    return DataError(
        f"{where}: {int(missing.sum()):,} of {missing.size:,} labels are missing, the first that of image {first}. "
        f"Leave out images without a label."
    )


# Data sets whose images come one by one


def _map_style_part(data: Any, channels_first: bool | None, where: str) -> Part:
    """A PyTorch data set; a part of one has the class names of the whole."""
    whole = data
    while not hasattr(whole, "classes") and hasattr(whole, "dataset"):
        whole = whole.dataset
    names = getattr(whole, "classes", None) or ()
    if not all(isinstance(name, str) for name in names):
        names = ()

    def item(index: int) -> tuple[object, object]:
        try:
            pair = data[index]
        except Exception as error:  # of the user's code, which reads files
            reason = str(error) or type(error).__name__
            raise DataError(f"{where}: image {index} cannot be read: {reason}. Leave it out, or replace it.") from error
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"{where}: item {index} is a {type(pair).__name__}, not a pair of image and label. Give a data set "
                f"whose items are (image, label)."
            )
        return pair[0], pair[1]

    return Part(where, _length(data, where), item=item, class_names=tuple(names), channels_first=channels_first)


def _hub_part(data: Any, where: str) -> Part:
    """A Hugging Face data set: a column of images, and one of labels. Files are decoded as those of a folder are."""
    data = data.with_format(None) if hasattr(data, "with_format") else data
    image, label = _column(data, "image", "Image", where), _column(data, "label", "ClassLabel", where)
    feature = data.features[image]
    if type(feature).__name__ == "Image" and getattr(feature, "decode", False):
        data = data.cast_column(image, type(feature)(decode=False))
    count, images = _length(data, where), data.select_columns([image])
    names = tuple(map(str, getattr(_inner(data.features[label], "label"), "names", None) or ()))
    values = list(data[label])
    if any(map(is_list, values)):
        labels, names = _listed_labels(values, names, label, where)
    else:
        labels = to_class_labels(values, where)
    return Part(where, count, item=lambda index: (images[index][image], None), labels=labels, class_names=names)


def _listed_labels(
    values: Sequence[object], names: tuple[str, ...], column: str, where: str
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Several labels an image from a column of lists, bool N×K, and their names."""
    rows = [f"{where}, row {number}" for number in range(len(values))]
    found = read_labels({column: values}, rows, names, None)
    if found.faults:
        raise DataError(found.faults[min(found.faults)])
    return labels_of_lists(found.values, names_of_labels(found.values, found.class_names, where))


def _column(data: Any, what: str, kind: str, where: str) -> str:
    """The one column of a kind of feature, or else the one with a usual name."""
    features: Mapping[str, object] = data.features
    for found in (
        [name for name, feature in features.items() if type(_inner(feature, what)).__name__ == kind],
        [name for name in features if name in _COLUMNS[what]],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{where}: {' and '.join(found)} may each be the column of the {what}. Leave one: "
                f"data.remove_columns({found[1]!r})."
            )
    raise DataError(
        f"{where}: none of the columns {', '.join(features)} is that of the {what}. Name it so: "
        f"data.rename_column(…, {what!r})."
    )


def _inner(feature: object, what: str) -> object:
    """The feature of the labels in a column of lists; any other feature itself."""
    return getattr(feature, "feature", feature) if what == "label" else feature


def _length(data: Any, where: str) -> int:
    count = len(data)
    if not count:
        raise DataError(f"{where} is empty: its length is 0. Give a data set with images.")
    return count
