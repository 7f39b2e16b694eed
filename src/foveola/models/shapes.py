"""Shape inference: names, shapes and costs of the layers of a network, without building it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from foveola.errors import RecipeError
from foveola.images import shape_text
from foveola.models.layers import Dense, Layer, Shape, ShapeMismatch


@dataclass(frozen=True)
class LayerInfo:
    """A layer in its network: name, settings, input and output shape, costs."""

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape

    @property
    def parameters(self) -> int:
        return self.layer.parameters(self.input_shape)

    @property
    def buffers(self) -> int:
        return self.layer.buffers(self.input_shape)

    @property
    def multiply_adds(self) -> int:
        return self.layer.multiply_adds(self.input_shape)


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
        If a layer cannot take its input shape, or the last one does not give K values.
    """
    infos: list[LayerInfo] = []
    type_counts: Counter[str] = Counter()
    shape = input_shape
    for layer in layers:
        if isinstance(layer, Dense) and layer.units == "classes":
            layer = layer.model_copy(update={"units": classes})
        type_counts[layer.type] += 1
        name = f"{layer.type.lower()}_{type_counts[layer.type]}"
        try:
            output_shape = layer.output_shape(shape)
        except ShapeMismatch as reason:
            raise RecipeError(f"Layer {len(infos) + 1} ({name}) got the shape {shape_text(shape)}: {reason}.") from None
        infos.append(LayerInfo(name, layer, shape, output_shape))
        shape = output_shape
    if shape != (classes,):
        raise RecipeError(
            f"The output shape of the network is {shape_text(shape)}, but there are {classes} classes. "
            f'End the layers with a Dense layer of units = "classes".'
        )
    return infos
