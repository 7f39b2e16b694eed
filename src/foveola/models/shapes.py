"""Shape inference: names, shapes and costs of the layers of a network, without building it."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from foveola.arrays import shape_text
from foveola.errors import RecipeError
from foveola.models.layers import (
    AveragePool2D,
    Dense,
    Layer,
    MaxPool2D,
    PadWidths,
    Residual,
    Shape,
    ShapeMismatch,
)

# Of a network, at most: 1 GiB of weights
MAX_PARAMETERS = 2**28
# For one image, at most: values that a layer takes, with its padding, or gives, 128 MiB; of all layers together;
# multiply-adds, four times those of VGG-16 at 224×224
MAX_LAYER_VALUES = 2**25
MAX_VALUES = 2**27
MAX_MULTIPLY_ADDS = 2**36


@dataclass(frozen=True)
class LayerInfo:
    """A layer in its network: name, settings, input and output shape, costs.

    `branches` are the layers inside a residual layer, by the name of their setting.
    """

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    branches: dict[str, list["LayerInfo"]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return self.layer.parameters(self.input_shape)

    @property
    def buffers(self) -> int:
        return self.layer.buffers(self.input_shape)

    @property
    def multiply_adds(self) -> int:
        return self.layer.multiply_adds(self.input_shape)

    @property
    def pad_widths(self) -> PadWidths:
        """Pixels that padding adds on each side of the input."""
        return self.layer.pad_widths(self.input_shape)


def infer_shapes(layers: Sequence[Layer], input_shape: Shape, classes: int) -> list[LayerInfo]:
    """Infer the input and output shape of every layer.

    Parameters
    ----------
    layers : layers in their order; `units = "classes"` is replaced by the number of classes
    input_shape : height, width, channels
    classes : number of classes, K

    Raises
    ------
    RecipeError
        If a layer cannot take its input shape, or the last one does not give K values. Of a layer inside another, the
        message names the place, as layers[7].layers[2].
    """
    infos = _follow(layers, input_shape, classes)
    shape = infos[-1].output_shape if infos else input_shape
    if shape != (classes,):
        raise RecipeError(
            f"The output shape of the network is {shape_text(shape)}, but there are {classes} classes. "
            f'End the layers with a Dense layer of units = "classes".'
        )
    return infos


def count_multiply_adds(layers: Sequence[Layer], input_shape: Shape, classes: int) -> int:
    """The multiply-adds of a whole network for one image; parameters and errors as of `infer_shapes`."""
    return sum(info.multiply_adds for info in infer_shapes(layers, input_shape, classes))


def _follow(layers: Sequence[Layer], shape: Shape, classes: int, prefix: str = "") -> list[LayerInfo]:
    """Names and shapes of layers that follow one another; `prefix` is of their names."""
    infos: list[LayerInfo] = []
    type_counts: Counter[str] = Counter()
    for layer in layers:
        if isinstance(layer, Dense) and layer.units == "classes":
            layer = layer.model_copy(update={"units": classes})
        type_counts[layer.type] += 1
        name = f"{prefix}{layer.type.lower()}_{type_counts[layer.type]}"
        try:
            output_shape = layer.output_shape(shape)
        except ShapeMismatch as reason:
            place = f"layers[{len(infos)}].{reason}" if isinstance(layer, Residual) else reason
            raise RecipeError(f"Layer {len(infos) + 1} ({name}) got the shape {shape_text(shape)}: {place}.") from None
        inner = layer.branches if isinstance(layer, Residual) else {}
        branches = {branch: _follow(held, shape, classes, f"{name}.{branch}.") for branch, held in inner.items()}
        infos.append(LayerInfo(name, layer, shape, output_shape, branches))
        shape = output_shape
    return infos


def all_layers(infos: Iterable[LayerInfo]) -> Iterator[LayerInfo]:
    """All layers, each followed by those inside it."""
    for info in infos:
        yield info
        for branch in info.branches.values():
            yield from all_layers(branch)


def check_size(infos: Sequence[LayerInfo]) -> None:
    """Refuse a network that is too large to be built, or to be computed within seconds.

    Raises
    ------
    RecipeError
        Naming what there is too much of.
    """
    values = 0
    for info in all_layers(infos):
        taken, given = math.prod(_padded(info)), math.prod(info.output_shape)
        if max(taken, given) > MAX_LAYER_VALUES:
            raise RecipeError(
                f"The layer {info.name} is too large: it takes {taken:,} values of each image and gives "
                f"{given:,}, of at most {MAX_LAYER_VALUES:,}. Use smaller images, fewer filters or larger strides."
            )
        values += given
    parameters = sum(info.parameters + info.buffers for info in infos)
    multiply_adds = sum(info.multiply_adds for info in infos) + sum(map(_comparisons, all_layers(infos)))
    for count, limit, what in (
        (parameters, MAX_PARAMETERS, "parameters"),
        (values, MAX_VALUES, "values of each image in all layers"),
        (multiply_adds, MAX_MULTIPLY_ADDS, "multiply-adds for each image"),
    ):
        if count > limit:
            raise RecipeError(
                f"The network is too large: it has {count:,} {what}, of at most {limit:,}. "
                f"Use smaller images, fewer filters or units, or larger strides."
            )


def _padded(info: LayerInfo) -> Shape:
    """The shape of the layer's input with the pixels that its padding adds."""
    if len(info.input_shape) != 3:
        return info.input_shape
    top, left, bottom, right = info.pad_widths
    height, width, channels = info.input_shape
    return height + top + bottom, width + left + right, channels


def _comparisons(info: LayerInfo) -> int:
    """Values that the windows of a pooling layer cover."""
    if not isinstance(info.layer, MaxPool2D | AveragePool2D):
        return 0
    return info.layer.size**2 * math.prod(info.output_shape)
