"""A Keras model as a network of Foveola's, with its weights; docs/keras.md says where the two differ."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveola.arrays import shape_text
from foveola.errors import ModelError, RecipeError
from foveola.models.hdf5 import UnsafeHdf5
from foveola.models.keras_files import TRAINING_ONLY, KerasFile, NotImportable, read_keras_file
from foveola.models.keras_layers import (
    Part,
    Reads,
    Rescaled,
    Reshaped,
    Softmax,
    Translated,
    Weights,
    Zeros,
    translate_layer,
)
from foveola.models.layers import (
    Activate,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    PlainLayer,
    Shape,
    ShapeMismatch,
)
from foveola.models.metadata import MAX_CLASSES, MAX_PAD
from foveola.models.shapes import check_size, infer_shapes
from foveola.tasks import THRESHOLD, Task

ImageShape = tuple[int, int, int]
PixelRange = tuple[float, float]

_GIVE_SHAPE = "Give height, width and channels of the images, such as 28x28x1, with --image"
_NO_ZEROS = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """What a Keras file becomes.

    Parameters
    ----------
    file : the file as it was read
    layers : of the network, the last of which gives one logit for each class or label
    weights : by the names that `foveola.models.modules` gives them
    classes : number of classes or labels, K
    task : what the logits mean: classes, or several labels an image if the model ends with several sigmoids
    image_shape, pad, mean, std : as in `ModelMetadata`
    notes : what was assumed, converted and left out, a sentence each
    """

    file: KerasFile
    layers: tuple[PlainLayer, ...]
    weights: dict[str, Weights]
    classes: int
    task: Task
    image_shape: ImageShape
    pad: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]


def import_keras(
    path: Path, *, image_shape: ImageShape | None = None, pixel_range: PixelRange | None = None
) -> ImportedNetwork:
    """Read a Keras file, and translate its layers and weights.

    Parameters
    ----------
    path : a .keras or .h5 file
    image_shape : height, width, channels of the images, where the file does not say it
    pixel_range : what the network takes for black and for white; 0 to 1 by default, or 0 to 255 if it begins with a
        layer Rescaling

    Raises
    ------
    ModelError
        If the file is damaged, or has anything that is not imported: the message names the layer and the reason.
    """
    try:
        given = None if image_shape is None else _checked(image_shape)
        return _translate(read_keras_file(path), given, pixel_range)
    except UnsafeHdf5 as reason:
        raise ModelError(f"{path} is not imported. It {reason}. Save it again with Keras.") from None
    except NotImportable as reason:
        raise ModelError(f"{path} is not imported. {reason}") from None
    except RecursionError:
        raise ModelError(f"{path} is not imported. Its configuration is nested too deeply. Copy it again.") from None


def _translate(file: KerasFile, image_shape: ImageShape | None, pixel_range: PixelRange | None) -> ImportedNetwork:
    network = _Network(file.input_shape, image_shape)
    for number, layer in enumerate(file.layers, 1):
        try:
            for part in translate_layer(layer):
                network.add(part)
        except NotImportable as reason:
            raise NotImportable(
                f"Its layer {number} ({layer.name}, {layer.kind}) is not importable: {reason}"
            ) from None
        if layer.kind in TRAINING_ONLY:
            network.notes.append(f"{layer.kind} ({layer.name}) is left out: it acts in training only.")
    network.finish()
    (classes,) = network.shape
    height, width, channels = network.image_shape
    padded = (height + 2 * network.pad, width + 2 * network.pad, channels)
    try:
        infos = infer_shapes(network.layers, padded, classes)
        check_size(infos)  # before any array is copied
    except RecipeError as error:
        raise NotImportable(str(error)) from None
    weights = {
        f"{info.name}.{name}": read()
        for info, reads in zip(infos, network.reads, strict=True)
        for name, read in reads.items()
    }
    mean, std = network.scaling(pixel_range)
    return ImportedNetwork(
        file, tuple(network.layers), weights, classes, network.task, network.image_shape, network.pad, mean, std,
        tuple(network.notes),
    )  # fmt: skip


class _Network:
    """The layers translated so far.

    Attributes
    ----------
    layers, reads : the layers, and for each the functions that read its weights
    form : of the input as long as there is no layer: "image" (height, width, channels), "rows" (height, width) or
        "values" (a vector); "layers" afterwards
    image_shape : of the images, 0 where it is not known yet
    pad : black pixels on each side of the images
    shape : that the last layer gives
    zeros : to be added before the next layer
    end : "softmax" or "sigmoid", after which nothing may follow
    task : what the logits mean, known when the network is finished
    scale : what layers Rescaling at the beginning do; None if there are none
    """

    def __init__(self, input_shape: tuple[int | None, ...] | None, given: ImageShape | None) -> None:
        self.layers: list[PlainLayer] = []
        self.reads: list[Reads] = []
        self.notes: list[str] = []
        self.form, self.values = "image", 0
        if input_shape is not None and len(input_shape) == 1:
            self.form, self.values = "values", input_shape[0] or 0
            if given is not None and math.prod(given) != self.values:
                raise NotImportable(
                    f"It takes {self.values} values of each image, but {shape_text(given)} has {math.prod(given)}."
                )
            self.image_shape = given or (0, 0, 0)
        else:
            self.form = "rows" if input_shape is not None and len(input_shape) == 2 else "image"
            self.image_shape = _image_shape(input_shape, given)
        self.pad, self.zeros = 0, _NO_ZEROS
        self.shape: Shape = self.image_shape
        self.end: str | None = None
        self.task: Task = "multiclass"
        self.scale: Rescaled | None = None

    def add(self, part: Part) -> None:
        """Append what a layer of Keras consists of.

        Raises
        ------
        NotImportable
            If it cannot be where it is.
        """
        match part:
            case Translated(layer, weights):
                self._add_layer(layer, weights)
            case Zeros(widths):
                if self.form in ("values", "rows") or self.end is not None:
                    raise NotImportable("it has no image to add zeros to.")
                top, left, bottom, right = (before + more for before, more in zip(self.zeros, widths, strict=True))
                self.zeros = (top, left, bottom, right)
            case Rescaled(scale, offset):
                if self.layers or any(self.zeros):
                    raise NotImportable("Rescaling is imported at the beginning only.")
                before = self.scale or Rescaled(1.0, 0.0)
                self.scale = Rescaled(scale * before.scale, scale * before.offset + offset)
            case Reshaped(target):
                self._reshape(target)
            case Softmax():
                self.end = "softmax"

    def _add_layer(self, layer: PlainLayer, weights: Callable[[Shape], Reads] = lambda shape: {}) -> None:
        if self.end is not None:
            raise NotImportable(f"it follows {self.end}, which is imported at the end only.")
        if self.form == "rows" and not isinstance(layer, Flatten):
            raise NotImportable("its input has no axis for channels; that is imported before Flatten or Reshape only.")
        if self.form == "values":
            if not all(self.image_shape):
                raise NotImportable(f"its input is a vector of {self.values} values. {_GIVE_SHAPE}.")
            self.form = "layers"
            if not isinstance(layer, Flatten):
                self._add_layer(Flatten())
        self.form = "layers"
        if any(self.zeros):
            layer = self._with_zeros(layer)
        try:
            given = layer.output_shape(self.shape)
        except ShapeMismatch as reason:
            raise NotImportable(f"it gets the shape {shape_text(self.shape)}: {reason}.") from None
        self.reads.append(weights(self.shape))
        self.layers.append(layer)
        self.shape = given

    def _with_zeros(self, layer: PlainLayer) -> PlainLayer:
        """The layer with padding of its own for the zeros before it; at the beginning, the images may have them."""
        top, left, bottom, right = self.zeros
        height, width, channels = self.shape if len(self.shape) == 3 else (0, 0, 0)
        if isinstance(layer, Conv2D | DepthwiseConv2D) and layer.padding == "valid":
            padded = (height + top + bottom, width + left + right, channels)
            for padding in ("symmetric", "same"):
                own = layer.model_copy(update={"padding": padding})
                fits = own.pad_widths(self.shape) == self.zeros
                if fits and own.output_shape(self.shape) == layer.output_shape(padded):
                    self.zeros = _NO_ZEROS
                    return own
        if self.layers or len(set(self.zeros)) > 1 or top > MAX_PAD:
            raise NotImportable(
                "zeros are added before it. ZeroPadding2D is imported around the images, and before a convolution "
                "whose own padding would add as many."
            )
        self.pad, self.zeros = top, _NO_ZEROS
        self.shape = (height + 2 * top, width + 2 * top, channels)
        return layer

    def _reshape(self, target: tuple[int, ...]) -> None:
        if len(target) == 1:
            return self._add_layer(Flatten())
        if self.form not in ("values", "rows") or len(target) != 3 or any(self.zeros):
            raise NotImportable(f"it gives the shape {shape_text(target)}; only the input is given another one.")
        values = self.values or math.prod(self.image_shape)
        known = math.prod(side for side in target if side != -1)
        shape = [values // max(known, 1) if side == -1 else side for side in target]
        if math.prod(shape) != values:
            raise NotImportable(f"it gives the shape {shape_text(target)}, which {values} values do not have.")
        if all(self.image_shape) and tuple(shape) != self.image_shape:
            raise NotImportable(f"it makes images of {shape_text(shape)} of those of {shape_text(self.image_shape)}.")
        self.image_shape = self.shape = _checked(shape)
        self.form = "image"

    def finish(self) -> None:
        """Check that the network gives logits; one sigmoid becomes two of them, several are labels.

        Raises
        ------
        NotImportable
            If it gives something else.
        """
        if not self.layers or len(self.shape) != 1 or any(self.zeros):
            raise NotImportable(f"Its output has the shape {shape_text(self.shape)}; classifiers give a value a class.")
        self._take_off_sigmoid()
        last, (count,) = self.layers[-1], self.shape
        computing = next((layer for layer in reversed(self.layers) if not isinstance(layer, Flatten | Dropout)), last)
        function = computing.function if isinstance(computing, Activate) else getattr(computing, "activation", "linear")
        if function != "linear":
            raise NotImportable(
                f"It ends with {function}; imported are classifiers, which end with softmax or sigmoid."
            )
        if count == 1 and self.end == "sigmoid" and isinstance(last, Dense):
            self.layers[-1] = last.model_copy(update={"units": 2})
            self.reads[-1] = {name: _after_zeros(read) for name, read in self.reads[-1].items()}
            self.shape = (2,)
            self.notes.append("One sigmoid became two logits: 0 for the first class, its own for the second.")
        elif count == 1:
            raise NotImportable("It has one output that is not a Dense layer's sigmoid, which tells no classes apart.")
        elif self.end == "sigmoid":
            self.task = "multilabel"
            self.notes.append(
                f"It ends with {count} sigmoids: each output is a label, given from probability {THRESHOLD} on, and an "
                f"image may have several."
            )
        elif self.end is None:
            self.notes.append("The last layer has no softmax: its outputs are taken for logits.")
        if self.shape[0] > MAX_CLASSES:
            raise NotImportable(f"It has {count:,} classes, of at most {MAX_CLASSES:,}.")
        if isinstance(self.layers[-1], Dense):
            self.layers[-1] = self.layers[-1].model_copy(update={"units": "classes"})

    def _take_off_sigmoid(self) -> None:
        """Turn a sigmoid of the last layer into `end`."""
        last = self.layers[-1]
        if self.end is None and isinstance(last, Activate) and last.function == "sigmoid" and len(self.layers) > 1:
            del self.layers[-1], self.reads[-1]
            self.end = "sigmoid"
        elif self.end is None and isinstance(last, Dense) and last.activation == "sigmoid":
            self.layers[-1] = last.model_copy(update={"activation": "linear"})
            self.end = "sigmoid"

    def scaling(self, pixel_range: PixelRange | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, of pixels from 0 to 1, by which the network gets what Keras' network got."""
        low, high = pixel_range or ((0.0, 1.0) if self.scale is None else (0.0, 255.0))
        scale = self.scale or Rescaled(1.0, 0.0)
        black, factor = scale.scale * low + scale.offset, scale.scale * (high - low)
        if self.pad and black != 0:
            raise NotImportable(
                f"It adds zeros around its images, but black is {black:g}: they would be grey. Give another range of "
                f"pixels with --pixel-range."
            )
        if not 1e-3 <= factor <= 1e6 or not abs(black / factor) <= 1e3:
            raise NotImportable(
                f"With pixels from {low:g} to {high:g}, its layers get values from {black:g} to {black + factor:g}. "
                f"Give another range of pixels with --pixel-range."
            )
        reason = "as given" if pixel_range else "assumed: it begins with Rescaling" if self.scale else "assumed"
        self.notes.insert(0, f"Pixels: {low:g} is black, {high:g} is white ({reason}; the file does not say it).")
        return (0.0 - black / factor,), (1 / factor,)


def _image_shape(shape: tuple[int | None, ...] | None, given: ImageShape | None) -> ImageShape:
    """The images' shape, from the file and from what was given where the file does not say it."""
    own: tuple[int | None, ...] = (None, None, None) if shape is None else (*shape, 1) if len(shape) == 2 else shape
    if len(own) != 3:
        raise NotImportable(f"Its input has {len(own)} axes; images have height, width and channels.")
    found = [side or other for side, other in zip(own, given or (None, None, None), strict=True)]
    if any(side is None for side in found):
        raise NotImportable(f"It does not say how large its images are. {_GIVE_SHAPE}.")
    known = [side or 0 for side in found]
    if given is not None and tuple(known) != given:
        raise NotImportable(f"It takes images of {shape_text(known)}, not of {shape_text(given)}.")
    return _checked(known)


def _checked(shape: Sequence[int]) -> ImageShape:
    height, width, channels = shape
    if not all(0 < side <= 2**12 for side in shape) or channels not in (1, 3):
        raise NotImportable(
            f"Its images would be {shape_text(shape)}; imported are those of up to 4096×4096 pixels with 1 or 3 "
            f"channels, which come last."
        )
    return height, width, channels


def _after_zeros(read: Callable[[], Weights]) -> Callable[[], Weights]:
    """The weights of two outputs, of which the first is always zero."""
    return lambda: np.concatenate([np.zeros_like(weights := read()), weights])
