"""The model document: what a client needs to know of a model, for the server's GET /model and a web export."""

from typing import Any, Literal

from pydantic import BaseModel

from foveola.exports.allowlist import LayerOutput
from foveola.exports.onnx import OnnxModel
from foveola.images import Polarity, Resize
from foveola.inputs.fixes import FIXES, WITHOUT_STATISTICS
from foveola.models.metadata import ImageStatistics, OriginalImages, PretrainedOrigin, Rejection, Unfamiliarity
from foveola.tasks import Task


class ModelLayer(BaseModel):
    """A layer whose output can be shown; its shape is height, width, channels, or units."""

    name: str
    type: str
    shape: tuple[int, ...]


class ModelData(BaseModel):
    """The training data of the model."""

    name: str
    fingerprint: str
    licence: str | None


class WebLimits(BaseModel):
    """Largest image accepted, in pixels."""

    pixels: int


class Limits(BaseModel):
    """Largest request accepted: bytes in its body, pixels in an image."""

    body_bytes: int
    pixels: int


class _Description(BaseModel):
    name: str
    class_names: tuple[str, ...]
    task: Task
    thresholds: tuple[float, ...] | None
    image_shape: tuple[int, int, int]
    channels: Literal["data", "grey", "rgb"]
    resize: Resize
    fill: int
    polarity: Polarity
    statistics: ImageStatistics | None
    originals: OriginalImages
    white_level: int | None
    reject: Rejection | None
    unfamiliarity: Unfamiliarity | None
    fixes: dict[str, str]
    collect: bool
    data: ModelData | None
    pretrained: PretrainedOrigin | None


class ModelDocument(_Description):
    """The model and what the server does with it.

    `task` says whether an image has one class or any number of labels, each from its probability in `thresholds` on;
    `image_shape` is height, width and channels of the network's input; images of another size are brought to it by
    `resize`, with the grey level `fill` beside a letterbox's image; `originals` are the training images before they
    were resized and converted; `white_level` is the value that becomes 255 in files of 16 bits per pixel, null for
    65535; `fixes` are the available changes to an image, each with what it does; `collect` tells whether labelled
    images are kept; `pretrained` are the published weights that the training began with, with their licence.
    """

    layers: tuple[ModelLayer, ...]
    limits: Limits


class WebModelDocument(_Description):
    """The model in a web export; `layers` also name their tensors in the graph."""

    layers: tuple[LayerOutput, ...]
    limits: WebLimits


def model_document(model: OnnxModel, name: str, limits: Limits, *, collect: bool) -> ModelDocument:
    """The document of a model that is served by this name, with these limits."""
    layers = tuple(ModelLayer(name=layer.name, type=layer.type, shape=layer.shape) for layer in model.layers)
    return ModelDocument(**_describe(model, name, collect=collect), layers=layers, limits=limits)


def web_model_document(model: OnnxModel, limits: WebLimits) -> WebModelDocument:
    """The document of a model in a web export."""
    return WebModelDocument(**_describe(model, "model", collect=False), layers=model.layers, limits=limits)


def _describe(model: OnnxModel, name: str, *, collect: bool) -> dict[str, Any]:
    """The fields of a _Description."""
    metadata = model.metadata
    return {
        "name": name,
        "class_names": metadata.class_names,
        "task": metadata.task,
        "thresholds": metadata.thresholds,
        "image_shape": metadata.image_shape,
        "channels": metadata.channels,
        "resize": metadata.resize,
        "fill": metadata.fill,
        "polarity": metadata.polarity,
        "statistics": metadata.statistics,
        "originals": metadata.original_images,
        "white_level": metadata.white_level,
        "reject": metadata.reject,
        "unfamiliarity": metadata.unfamiliarity,
        "fixes": dict(FIXES) if metadata.statistics else {fix: FIXES[fix] for fix in WITHOUT_STATISTICS},
        "collect": collect,
        "data": metadata.data and ModelData.model_validate(metadata.data, from_attributes=True),
        "pretrained": metadata.pretrained,
    }
