"""Data given as Python objects: arrays, ImageSets, lists of images, PyTorch and Hugging Face data sets, data frames.

They are read as files are: the same images have the same fingerprint, whichever way they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from foveola.datasets import table
from foveola.datasets.layout import split_of
from foveola.datasets.object_images import read_images
from foveola.datasets.object_parts import Part, is_array, is_frame, is_hub, is_map_style, is_pair, read_part
from foveola.datasets.reader import ReadOptions, classes_of_labels, image_set
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet

SPLITS = ("train", "validation", "test")
_SUPPORTED = (
    "Give images and labels, (X, y); a dictionary of such pairs by split, such as {'train': (X, y), 'test': (X, y)}; "
    "an ImageSet or a Dataset; a PyTorch data set with a length; a Hugging Face data set; a data frame; or a name or "
    "path."
)


@dataclass(frozen=True, eq=False)
class Objects:
    """Data given as objects, which are read when `foveola.datasets.load` is called.

    Parameters
    ----------
    splits : "train", and "validation" and "test" if they were given, and what each was given as
    class_names : of labels that are numbers, from 0 on; None: those of the objects, or the labels themselves
    channels_first : whether arrays have their channels before rows and columns; None: only PyTorch tensors have
    name : of the data set
    known_names : class names of a model: labels that are numbers, and not among them, count them from 0 on
    """

    splits: Mapping[str, object]
    class_names: tuple[str, ...] | None
    channels_first: bool | None
    name: str
    known_names: tuple[str, ...] = ()


# A catalog name, a path, a loaded data set, or objects that are still to be read
Source = str | Path | Dataset | Objects


def as_source(
    data: object,
    y: object = None,
    *,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    known_names: Sequence[str] = (),
) -> Source:
    """What was given as data, recognised by its form; nothing is read yet.

    Parameters
    ----------
    data : catalog name, path, Dataset, ImageSet, images (with `y`), (images, labels), ((images, labels), (images,
        labels)) of training and test, a dictionary of these by split, a PyTorch or Hugging Face data set, or a data
        frame
    y : labels, N, if `data` is images
    class_names, channels_first, name, known_names : as of `Objects`; by default, the name is that of the objects' type

    Raises
    ------
    DataError
        If it is nothing of this, or something is given that the data has itself.
    """
    if isinstance(data, Objects):
        return data
    if y is not None:
        _check_labels_are_missing(data)
        data = data, y
    if isinstance(data, str | Path | Dataset):
        _refuse_settings(data, class_names=class_names, channels_first=channels_first)
        if name is None:
            return data
        if not isinstance(data, Dataset):
            _refuse_settings(data, name=name)
        return replace(cast(Dataset, data), name=name)
    if class_names is not None and (
        isinstance(class_names, str) or not all(isinstance(one, str) for one in class_names)
    ):
        raise DataError(f"class_names must be a list of texts, one for each class; this is {class_names!r:.100}.")
    splits = _splits(data)
    if is_frame(splits["train"]) and (class_names, channels_first) != (None, None):
        raise DataError("A data frame names its classes itself. Leave out class_names and channels_first.")
    given = None if class_names is None else tuple(class_names)
    return Objects(splits, given, channels_first, name or _name(splits["train"]), tuple(known_names))


def read(source: Objects, options: ReadOptions) -> Dataset:
    """Read objects. Images that come one by one are brought to one size if they have several, as those of a folder are.

    Raises
    ------
    DataError
        If they cannot be used; the message says why, and what to do.
    """
    if is_frame(source.splits["train"]):
        return replace(table.read_frame(source.splits["train"], options), name=source.name)
    if all(isinstance(given, ImageSet) for given in source.splits.values()):
        return _of_splits(source.name, _image_sets(source))
    parts = {
        split: read_part(given, source.channels_first, _where(source, split)) for split, given in source.splits.items()
    }
    if all(part.images is not None for part in parts.values()):
        return _dataset(source, parts)
    decoded = read_images(parts, options)
    dataset = _dataset(source, parts)
    return replace(
        dataset,
        originals=decoded.originals,
        resize=decoded.shape.resize,
        fill=decoded.shape.fill,
        picture_polarity=decoded.polarity,
        notes=(*dataset.notes, *decoded.notes),
    )


def frame_columns(source: object) -> list[str]:
    """The names of a data frame's columns; empty for other data."""
    frame = source.splits["train"] if isinstance(source, Objects) else None
    if not is_frame(frame):
        return []
    names: Any = getattr(frame, "column_names", None) or getattr(frame, "columns", ())
    return [str(name) for name in names]


# What was given


def _check_labels_are_missing(data: object) -> None:
    if isinstance(data, str | Path):
        raise DataError(f"{str(data)!r} is data by its name or path, which has its own labels. Leave out y.")
    if isinstance(data, Dataset | ImageSet | Mapping) or is_hub(data) or is_map_style(data):
        raise DataError(f"A {type(data).__name__} has its own labels. Leave out y.")


def _refuse_settings(data: str | Path | Dataset, **settings: object) -> None:
    for name, value in settings.items():
        if value is not None:
            what = f"A {type(data).__name__}" if isinstance(data, Dataset) else f"Data by name or path ({data})"
            raise DataError(f"{what} says itself what {name} says of arrays. Leave out {name}.")


def _splits(data: object) -> dict[str, object]:
    """The splits of what was given; without any, it is the training images."""
    if isinstance(data, Mapping):
        return _named_splits(data)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(one, tuple) and len(one) == 2 for one in data):
        return {"train": data[0], "test": data[1]}  # as keras.datasets.….load_data() returns them
    if not (isinstance(data, ImageSet) or is_pair(data) or is_frame(data) or is_hub(data) or is_map_style(data)):
        raise DataError(f"{_what_it_is(data)} {_SUPPORTED}")
    return {"train": data}


def _named_splits(data: Mapping[Any, object]) -> dict[str, object]:
    splits: dict[str, object] = {}
    for name, given in data.items():
        split = split_of(str(name))
        if split is None:
            raise DataError(
                f"{name!r} is not the name of a split. A dictionary has the keys 'train', and 'validation' and 'test' "
                f"if there are such images; its values are (images, labels)."
            )
        if split in splits:
            raise DataError(f"Two keys of the dictionary mean the {split} split. Leave out one of them.")
        if is_frame(given):
            raise DataError("Data frames by split cannot be used. Give one frame with a column called split.")
        if not (isinstance(given, ImageSet) or is_pair(given) or is_hub(given) or is_map_style(given)):
            raise DataError(f"The {split} split: {_what_it_is(given)} Give (images, labels).")
        splits[split] = given
    if "train" not in splits:
        raise DataError("The dictionary has no key 'train'. A dictionary of splits has the training images there.")
    return {split: splits[split] for split in SPLITS if split in splits}


def _what_it_is(data: object) -> str:
    """Why something cannot be used as data; sentences."""
    kind = type(data).__name__
    if isinstance(data, list) and data and all(isinstance(one, tuple) and len(one) == 2 for one in data):
        return "This is a list of pairs. Make images and labels of them: images, labels = zip(*pairs)."
    if isinstance(data, list) and len(data) == 2 and all(is_array(one) for one in data):
        return "This is a list of two arrays. Images and labels are a tuple: (images, labels)."
    if isinstance(data, tuple):
        return (
            f"This is a tuple of {len(data)}. If it is what train_test_split returns, give {{'train': (data[0], "
            f"data[2]), 'test': (data[1], data[3])}}."
            if len(data) == 4
            else f"This is a tuple of {len(data)}, not of two."
        )
    if is_array(data) or isinstance(data, list):
        return f"There are images ({kind}), but no labels: give them as the next argument, y."
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        return f"A {kind} gives batches, which may be in another order each time. Give its data set: loader.dataset."
    if hasattr(data, "collect_schema"):
        return f"A {kind} has not been computed yet. Give the data frame: frame.collect()."
    if hasattr(data, "__iter__") and not hasattr(data, "__len__"):
        return f"A {kind} has no length, so that its images cannot be split and shuffled. Give data with a length."
    return f"Objects of type {kind} cannot be used as data."


def _name(data: object) -> str:
    """The name of a data set that was given none."""
    if is_pair(data) or isinstance(data, ImageSet):
        return "arrays"
    if is_frame(data):
        return "frame"
    named = getattr(getattr(data, "info", None), "dataset_name", None)
    return named if isinstance(named, str) and named else type(data).__name__


def _where(source: Objects, split: str) -> str:
    return source.name if len(source.splits) == 1 else f"{source.name}, {split}"


def _image_sets(source: Objects) -> dict[str, ImageSet]:
    sets = cast(Mapping[str, ImageSet], source.splits)
    if source.class_names is None:
        return dict(sets)
    return {split: replace(images, class_names=source.class_names) for split, images in sets.items()}


def _dataset(source: Objects, parts: dict[str, Part]) -> Dataset:
    labels = {split: cast("NDArray[Any]", part.labels) for split, part in parts.items()}
    labels, names = classes_of_labels(labels, _class_names(source, parts, labels), source.name)
    sets = {
        split: image_set(cast(Images, part.images), labels[split], names, part.where) for split, part in parts.items()
    }
    return _of_splits(source.name, sets, _notes(parts))


def _of_splits(name: str, sets: Mapping[str, ImageSet], notes: tuple[str, ...] = ()) -> Dataset:
    return Dataset(name, sets["train"], sets.get("validation"), sets.get("test"), notes=notes)


def _class_names(source: Objects, parts: dict[str, Part], labels: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    """Names of labels that are numbers; empty where the labels name their classes themselves."""
    if source.class_names is not None:
        return source.class_names
    named = {part.class_names for part in parts.values() if part.class_names}
    if len(named) > 1:
        raise DataError(f"The splits of {source.name} have different classes; every split must have the same ones.")
    if named:
        return named.pop()
    if any(array.ndim == 2 for array in labels.values()):  # several labels an image
        return source.known_names
    known = np.unique(np.concatenate(list(labels.values()))) if labels else np.empty(0, np.int64)
    if known.dtype.kind == "U" or set(map(str, known.tolist())) <= set(source.known_names):
        return ()
    return source.known_names


def _notes(parts: dict[str, Part]) -> tuple[str, ...]:
    """What was assumed of the values."""
    ranges = {scaled: part.where for part in parts.values() for scaled in part.ranges}
    if len(ranges) > 1:
        raise DataError(
            f"{ranges[True]} has floats from 0 to 1, and {ranges[False]} has larger ones: what is white cannot be "
            f"told. Give all images as uint8, 0 to 255."
        )
    if True in ranges:
        return ("Values from 0 to 1 were taken as black to white: multiplied by 255, and rounded.",)
    return ()
