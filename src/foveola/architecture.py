"""A network as a list of layers: one image followed through it, without computing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from foveola.errors import RecipeError
from foveola.images import shape_text
from foveola.layers import Dense, DoesNotFit, Layer, Shape


@dataclass(frozen=True)
class Step:
    """One layer where it stands: its name, what goes in, what comes out, what it costs."""

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape

    @property
    def parameters(self) -> int:
        return self.layer.parameters(self.input_shape)

    @property
    def state(self) -> int:
        return self.layer.state(self.input_shape)

    @property
    def multiply_adds(self) -> int:
        return self.layer.multiply_adds(self.input_shape)


def trace(layers: Sequence[Layer], input_shape: Shape, classes: int) -> list[Step]:
    """Follow one image through the layers.

    Parameters
    ----------
    layers : the stack; `units = "classes"` is replaced by the number of classes
    input_shape : height, width, channels
    classes : number of classes, K

    Raises
    ------
    RecipeError
        If a layer cannot take the shape it gets, or the last one does not give K values.
    """
    steps: list[Step] = []
    seen: Counter[str] = Counter()
    shape = input_shape
    for layer in layers:
        if isinstance(layer, Dense) and layer.units == "classes":
            layer = layer.model_copy(update={"units": classes})
        seen[layer.type] += 1
        name = f"{layer.type.lower()}_{seen[layer.type]}"
        try:
            output_shape = layer.output_shape(shape)
        except DoesNotFit as reason:
            raise RecipeError(f"Layer {len(steps) + 1} ({name}) got the shape {shape_text(shape)}: {reason}.") from None
        steps.append(Step(name, layer, shape, output_shape))
        shape = output_shape
    if shape != (classes,):
        raise RecipeError(
            f"The layers give {shape_text(shape)}, but there are {classes} classes. "
            f'End the stack with a Dense layer of units = "classes".'
        )
    return steps
