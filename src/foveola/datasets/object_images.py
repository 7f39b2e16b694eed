"""Images given as objects, one by one, are brought to one size as those of an image folder are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from PIL import Image

from foveola.arrays import is_tensor, shape_text, to_pixels
from foveola.datasets.image_files import (
    IMAGES_PER_CHECK,
    Decoded,
    ImageFiles,
    ImageInMemory,
    check_memory,
    decode_images,
    evenly_spaced,
    reduction,
)
from foveola.datasets.object_parts import Part, as_array, is_scaled, to_class_labels
from foveola.datasets.reader import ReadOptions
from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.decode import FirstFrame, Reduce, decode_first_frame, first_frame_of, read_first_frame
from foveola.inputs.resize import CommonShape, is_colour, resize

Place = tuple[Part, int]


def read_images(parts: Mapping[str, Part], options: ReadOptions) -> ImageFiles:
    """Put images and labels into the parts of a data set, by split, of which at least one has them one by one.

    Raises
    ------
    DataError
        If an image or a label cannot be used, or memory would not suffice.
    """
    places = [(part, index) for part in parts.values() for index in range(part.count)]
    decoded = _decode_places(places, [part is parts["train"] for part, _ in places], options)
    first = 0
    for part in parts.values():
        part.images = decoded.images.read(np.arange(first, first + part.count))
        first += part.count
        if part.labels is None:
            part.labels = to_class_labels(_came_with_images(part), part.where)
    return decoded


def _came_with_images(part: Part) -> list[object]:
    """The labels that came with the images, each a number or a text."""
    labels: list[object] = []
    for index in range(part.count):
        label: Any = part.found[index]
        if getattr(label, "size", 0) == 1 or (is_tensor(label) and label.numel() == 1):
            label = label.item()
        if not isinstance(label, str | int | float | np.generic):
            raise DataError(
                f"{part.where}: the label of image {index} is a {type(label).__name__}, not a number or a text. Give "
                f"one class for each image."
            )
        labels.append(label)
    return labels


def _decode_places(places: Sequence[Place], training: Sequence[bool], options: ReadOptions) -> ImageFiles:
    """The images, in one size: their own if they have the same, otherwise one as those of a folder get."""
    learnt = [place for place, is_training in zip(places, training, strict=True) if is_training]
    sizes = [_decode_one(place, None, None).size for place in evenly_spaced(learnt)]
    if options.image_size is None and len(set(sizes)) == 1:
        kept = replace(options, image_size=sizes[0])
        decoded = decode_images(places, training, kept, sizes=lambda _: sizes, decode=_decode)
        if {image.size for image in decoded.images.decoded if image is not None} == set(sizes):
            return decoded
    return decode_images(places, training, options, sizes=lambda _: sizes, decode=_decode)


def _decode(places: Sequence[Place], shape: CommonShape, options: ReadOptions) -> tuple[Decoded, dict[int, str]]:
    images: list[ImageInMemory | None] = []
    size, reduce = 0, reduction(shape, options)
    for number, place in enumerate(places, 1):
        image = _decode_one(place, reduce, options.white_level)
        images.append(image)
        size += image.pixels.nbytes
        if number % IMAGES_PER_CHECK == 0:
            check_memory(size * len(places) // number, len(places), shape)
        options.progress(number, len(places), "images")
    return images, {}


def _decode_one(place: Place, reduce: Reduce | None, white_level: int | None) -> ImageInMemory:
    """An image, resized at once to what `reduce` says; its label is kept in its part."""
    part, index = place
    where = f"{part.where}, image {index}"
    image, label = part.item(index) if part.item is not None else (cast(Images, part.images)[index], None)
    part.found[index] = label
    if isinstance(image, Image.Image):
        frame = first_frame_of(image, where, white_level=white_level, reduce=reduce)
    elif isinstance(image, Mapping):
        frame = _from_file(image, where, white_level, reduce)
    else:
        frame = _from_array(image, part, index, where, reduce)
    height, width = frame.original_size or frame.pixels.shape[:2]
    colour = is_colour(frame.pixels) if isinstance(image, Image.Image | Mapping) else frame.pixels.shape[2] == 3
    return ImageInMemory(frame.pixels, (height, width), colour, frame.on_black, frame.peak)


def _from_file(image: Mapping[Any, Any], where: str, white_level: int | None, reduce: Reduce | None) -> FirstFrame:
    """The image of a file as Hugging Face data sets hold it: its content, or its path."""
    content, path = image.get("bytes"), image.get("path")
    if isinstance(content, bytes):
        return decode_first_frame(content, where, white_level=white_level, reduce=reduce)
    if not isinstance(path, str):
        raise DataError(f"{where} is a dictionary without the bytes or the path of a file. Leave it out.")
    return read_first_frame(path, white_level, reduce)


def _from_array(value: object, part: Part, index: int, where: str, reduce: Reduce | None) -> FirstFrame:
    array = as_array(value, "the image", where)
    channels_first = part.channels_first
    if channels_first is None:
        channels_first = is_tensor(value) and array.ndim == 3 and array.shape[0] in (1, 3)
    if array.ndim == 3 and channels_first:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        hint = " Say channels_first=True if they are." if array.ndim == 3 and array.shape[0] in (1, 3) else ""
        raise DataError(
            f"{where} has the shape {shape_text(np.shape(cast(Any, value)))}; it must be H×W, or H×W×C with C = 1 "
            f"(grey) or 3 (RGB), or C×H×W with channels_first=True.{hint}"
        )
    try:
        pixels = to_pixels(array)
    except DataError as error:
        raise DataError(f"{where}: {error} If a transform normalises the images, leave it out.") from None
    scaled = is_scaled(array)
    if scaled is not None:
        part.ranges.setdefault(scaled, index)
        _check_ranges(part)
    height, width = pixels.shape[:2]
    target = (height, width) if reduce is None else reduce(height, width)
    return FirstFrame(resize(np.ascontiguousarray(pixels), *target), original_size=(height, width))


def _check_ranges(part: Part) -> None:
    """Refuse floats that are from 0 to 1 in some images, and from 0 to 255 in others."""
    if len(part.ranges) > 1:
        raise DataError(
            f"{part.where}: image {part.ranges[True]} has floats from 0 to 1, and image {part.ranges[False]} has "
            f"larger ones: what is white cannot be told. Give all images as uint8, 0 to 255."
        )
