"""What a model file says of itself, readable without torch."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from foveola.doctor import Statistics
from foveola.errors import ModelError
from foveola.images import Polarity
from foveola.layers import Layer

METADATA_KEY = "foveola"


class DataOrigin(BaseModel):
    """The data that a model has learnt from, and how it was split."""

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str
    licence: str | None = None
    validation: float
    test: float | None = None
    seed: int


class Rejection(BaseModel):
    """When a model rather says that it is uncertain: below `threshold` of its top probability.

    `error` is the share of wrong answers among the others that was asked for. Without a threshold, because none kept
    the error on the validation images, every answer is uncertain.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    error: float
    threshold: float | None


class ModelCard(BaseModel):
    """Everything about a classifier but its weights.

    `image_shape` is height, width, channels; `pad` black pixels are added on each side, then values are scaled to
    0..1, `mean` is subtracted and the result divided by `std`, by channel. Logits are divided by `temperature`.
    `channels` is the recipe's word: with "grey" or "rgb", images of the other kind are converted; with "data", grey
    images may stand for colour ones, but colour images are refused by a grey model.
    `statistics` is None where the training images have no common background, as photographs; `reject` where the model
    always answers. `layers` is None for a network that the user wrote in PyTorch.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    channels: Literal["data", "grey", "rgb"] = "data"
    pad: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    polarity: Polarity = "mixed"
    statistics: Statistics | None = None
    temperature: float = 1.0
    reject: Rejection | None = None
    layers: tuple[Layer, ...] | None = None
    recipe: str | None = None
    data: DataOrigin | None = None

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """Height, width, channels of what the network gets: the image and its padding."""
        height, width, channels = self.image_shape
        return height + 2 * self.pad, width + 2 * self.pad, channels


def read_card(path: Path) -> ModelCard:
    """The card in a model file.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or no model of Foveola's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The model file {path} cannot be read: {error}. It is missing or damaged; train or copy it again."
        ) from None
    if METADATA_KEY not in metadata:
        raise ModelError(f"{path} is a safetensors file, but no Foveola model: it has no class names or preprocessing.")
    try:
        return ModelCard.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        raise ModelError(f"The description in {path} is damaged or from a newer Foveola: {error}.") from None
