"""GET /model: what a client needs to know of the model."""

from typing import Literal

from pydantic import BaseModel

from foveola.doctor import FIXES, WITHOUT_STATISTICS, Statistics
from foveola.export.onnx import OnnxModel
from foveola.images import Polarity
from foveola.models.card import Rejection
from foveola.serving.settings import Settings


class ModelLayer(BaseModel):
    """A layer that can be looked at; its shape is height, width, channels, or units."""

    name: str
    type: str
    shape: tuple[int, ...]


class ModelData(BaseModel):
    """The data that the model has learnt from."""

    name: str
    fingerprint: str
    licence: str | None


class Limits(BaseModel):
    """What a request may have at most: bytes in its body, pixels in a picture."""

    body_bytes: int
    pixels: int


class ModelDocument(BaseModel):
    """The model and what can be asked of it.

    `image_shape` is height, width, channels of the training images; `fixes` what can be changed in a picture, with what
    it does; `collect` says that pictures are kept.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    channels: Literal["data", "grey", "rgb"]
    polarity: Polarity
    statistics: Statistics | None
    reject: Rejection | None
    layers: tuple[ModelLayer, ...]
    fixes: dict[str, str]
    collect: bool
    data: ModelData | None
    limits: Limits


def model_document(model: OnnxModel, settings: Settings) -> ModelDocument:
    """What is said of a model that is served with these settings."""
    card = model.card
    return ModelDocument(
        name=settings.name,
        class_names=card.class_names,
        image_shape=card.image_shape,
        channels=card.channels,
        polarity=card.polarity,
        statistics=card.statistics,
        reject=card.reject,
        layers=tuple(ModelLayer(name=layer.name, type=layer.type, shape=layer.shape) for layer in model.layers),
        fixes={name: text for name, text in FIXES.items() if card.statistics is not None or name in WITHOUT_STATISTICS},
        collect=settings.collect is not None,
        data=None if card.data is None else ModelData.model_validate(card.data, from_attributes=True),
        limits=Limits(body_bytes=settings.max_body_bytes, pixels=settings.max_pixels),
    )
