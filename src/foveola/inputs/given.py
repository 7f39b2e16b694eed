"""Images as a model's user has them (arrays, PIL images, paths, lists of these), as the network gets them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveola.arrays import is_tensor, shape_cure, shape_text, to_pixels
from foveola.errors import DataError
from foveola.files import expanded
from foveola.images import Images, ImageSet, check_images
from foveola.inputs.decode import FirstFrame, first_frame_of, read_first_frame
from foveola.inputs.prepare import prepare
from foveola.lazy import as_images, as_lazy, blocks
from foveola.models.metadata import ModelMetadata
from foveola.predictions import Predictor
from foveola.tasks import decide, probabilities

# Images that are decoded before the model gets them
_BATCH = 256
_KINDS = "an array, a PIL image, the path of an image file, or a list of these"


def predict_classes(predictor: Predictor, images: object) -> NDArray[np.str_]:
    """The most probable class of each image, N names; `images` as of `network_inputs`.

    Of a model of several labels an image, the names of all labels that reach their thresholds, separated by "; ".
    """
    metadata = predictor.metadata
    if metadata.task == "multilabel":
        given = decide(predict_probabilities(predictor, images), metadata.task, metadata.thresholds)
        return np.array(["; ".join(np.array(predictor.class_names)[row]) for row in given])
    names: NDArray[np.str_] = np.array(predictor.class_names)[_predict_logits(predictor, images).argmax(axis=1)]
    return names


def predict_probabilities(predictor: Predictor, images: object) -> NDArray[np.float64]:
    """The probability of each class, or label, float64 N×K; `images` as of `network_inputs`."""
    return probabilities(_predict_logits(predictor, images), predictor.metadata.task)


def _predict_logits(predictor: Predictor, images: object) -> NDArray[np.float32]:
    inputs = network_inputs(images, predictor.metadata)
    return np.concatenate([predictor.predict_logits(batch) for batch in inputs])


def network_inputs(images: object, metadata: ModelMetadata) -> Iterator[Images]:
    """Images as the network gets them, in order and in batches: uint8 N×H×W×C of the metadata's `image_shape`.

    Images of that shape stay as they are; others are resized and converted as `foveola predict` does it for files.

    Parameters
    ----------
    images : an array N×H×W×C, N×H×W, or of one image, H×W×C or H×W; a PIL image; the path of an image file; an
        ImageSet; or a sequence of images. Arrays are uint8, other integers from 0 to 255, or floats from 0 to 1.
        Tensors of PyTorch may be N×C×H×W, or C×H×W in a sequence
    metadata : of the model

    Raises
    ------
    DataError
        If there are no images, or one cannot be read, is of another kind, or is in colour although the model was
        trained on grey images.
    """
    given = _given(images, metadata.image_shape)
    if not isinstance(given, list):
        check_images(given)
        if given.shape[1:] == metadata.image_shape:
            yield given
            return
    elif not given:
        raise DataError(f"There are no images: the list is empty. Give {_KINDS}.")
    frames = enumerate(_frames(given, metadata.white_level))
    while batch := list(islice(frames, _BATCH)):
        yield np.stack([_prepared(frame, metadata, _name(given, number)) for number, frame in batch])


def _prepared(frame: FirstFrame, metadata: ModelMetadata, name: str) -> Images:
    cure = 'image.convert("L") of PIL, or foveola.predict(…, grey=True) for files'
    return prepare(frame, metadata, (), name=name, findings=False, how_to_fix=cure).pixels


def _given(images: object, image_shape: tuple[int, int, int]) -> Images | list[object]:
    """Images in one array, uint8 N×H×W×C, or one after another."""
    if isinstance(images, ImageSet):
        images = images.images
    if (lazy := as_lazy(images)) is not None:
        return as_images(lazy)
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if hasattr(images, "columns"):  # a data frame
        raise DataError(
            f"images cannot be a data frame. Give its column of paths, such as frame['path']; or its pixels as an "
            f"array, {_reshaped('frame.to_numpy()', image_shape)}."
        )
    if hasattr(images, "__array__"):  # of NumPy, PyTorch, pandas, …
        array = _channels_last(_array(images, "images"), images, 4)
        return array.tolist() if array.dtype.kind in "OU" and array.ndim == 1 else _many(array, image_shape)
    if isinstance(images, Iterable) and not isinstance(images, bytes | Mapping):
        items = list(images)
        numbers = items and isinstance(items[0], Sequence) and not isinstance(items[0], str | bytes)
        return _many(_array(items, "images"), image_shape) if numbers else items
    raise DataError(f"images cannot be of the type {type(images).__name__}. Give {_KINDS}.")


def _array(images: object, name: str) -> NDArray[Any]:
    if is_tensor(images):
        images = cast(Any, images).detach().cpu()
    try:
        return np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as error:  # such as lists of unequal lengths
        raise DataError(f"{name} cannot become an array: {error}. Give {_KINDS}.") from None


def _channels_last(array: NDArray[Any], given: object, axes: int) -> NDArray[Any]:
    """The array of a PyTorch tensor with its channels behind rows and columns; other arrays as they are."""
    if is_tensor(given) and array.ndim == axes and array.shape[axes - 3] in (1, 3):
        return np.moveaxis(array, axes - 3, -1)
    return array


def _many(array: NDArray[Any], image_shape: tuple[int, int, int]) -> Images:
    """An array of one or several images as uint8 N×H×W×C; C is not checked here."""
    shape = array.shape
    if 0 in shape:
        raise DataError(f"There are no images: the array has the shape {shape_text(shape)}.")
    if array.ndim == 2:
        _refuse_rows(shape, image_shape)
    if array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3)):
        return to_pixels(_one(array, "images")[None])
    if array.ndim == 3 and not (shape[0] == image_shape[2] == 3):  # three grey images, or one in colour?
        array = array[..., None]
    if array.ndim != 4:
        raise DataError(_shape_problem("images", shape))
    return to_pixels(array)


def _refuse_rows(shape: Sequence[int], image_shape: tuple[int, int, int]) -> None:
    """Refuse an array of two axes that may hold a flattened image in each row, as tables of pixels do."""
    if shape[1] == np.prod(image_shape):
        raise DataError(
            f"images have the shape {shape_text(shape)}: one grey image, or rows of flattened images of "
            f"{shape_text(image_shape)}. Say which: images[None, ..., None], or {_reshaped('images', image_shape)}."
        )
    if "each row" in (cure := shape_cure(shape)):
        one = "" if "one grey image" in cure else "If this is one grey image: images[None, ..., None]. "
        raise DataError(f"images have the shape {shape_text(shape)}: one grey image, or rows of pixels? {one}{cure}")


def _reshaped(array: str, image_shape: Sequence[int]) -> str:
    """The call that makes images of flat rows."""
    return f"{array}.reshape(-1, {', '.join(map(str, image_shape))})"


def _one(array: NDArray[Any], name: str) -> NDArray[Any]:
    """An array of one image as H×W×C with C = 1 or 3."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise DataError(_shape_problem(name, array.shape))
    return array


def _shape_problem(name: str, shape: Sequence[int]) -> str:
    return (
        f"{name} has the shape {shape_text(shape) or '()'}. Give images as N×H×W×C with C = 1 (grey) or 3 (RGB), or "
        f"N×H×W, or one as H×W×C or H×W. {shape_cure(shape)}"
    )


def _name(given: Images | list[object], number: int) -> str:
    """What messages call an image: its path, or its place."""
    item = given[number] if isinstance(given, list) else None
    return str(item) if isinstance(item, str | os.PathLike) else f"images[{number}]"


def _frames(given: Images | list[object], white_level: int | None) -> Iterator[FirstFrame]:
    if not isinstance(given, list):
        yield from (FirstFrame(image) for block in blocks(given) for image in block)
        return
    arrays = _pixels(given)
    for number, item in enumerate(given):
        if number in arrays:
            yield FirstFrame(arrays[number])
        elif isinstance(item, Image.Image):
            yield first_frame_of(item, _name(given, number), white_level=white_level)
        else:
            assert isinstance(item, str | os.PathLike), "_pixels refuses the others"
            yield read_first_frame(expanded(item), white_level)


def _pixels(items: Sequence[object]) -> dict[int, Images]:
    """The arrays among the items, by their place, as uint8 H×W×C.

    All arrays of a type have one range: a dark image among floats from 0 to 255 may have no value above 1.
    """
    arrays: dict[int, NDArray[Any]] = {}
    for number, item in enumerate(items):
        if isinstance(item, str | os.PathLike | Image.Image):
            continue
        if not hasattr(item, "__array__"):
            raise DataError(f"images[{number}] cannot be of the type {type(item).__name__}. Give {_KINDS}.")
        array = _channels_last(_array(item, f"images[{number}]"), item, 3)
        arrays[number] = _one(array, f"images[{number}]")
    pixels: dict[int, Images] = {}
    for dtype in {array.dtype for array in arrays.values()}:
        alike = {number: array for number, array in arrays.items() if array.dtype == dtype}
        values = to_pixels(np.concatenate([array.ravel() for array in alike.values()]))
        ends = np.cumsum([array.size for array in alike.values()])[:-1]
        parts = np.split(values, ends)
        pixels |= {
            number: part.reshape(array.shape) for (number, array), part in zip(alike.items(), parts, strict=True)
        }
    return pixels
