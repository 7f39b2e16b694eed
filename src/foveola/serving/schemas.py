"""Schemas: query parameters and JSON documents of all routes, as they are validated and described in OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from foveola.errors import unknown
from foveola.inputs.fixes import FIXES

# Query parameters


def _split(names: str) -> tuple[str, ...]:
    return tuple(filter(None, names.split(",")))


FixNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_split),
    Field(description="Fixes to apply to the image before prediction, separated by commas; `auto`: those proposed."),
    WithJsonSchema({"type": "array", "items": {"type": "string", "enum": ["auto", *FIXES]}, "default": []}),
]


class QueryModel(BaseModel):
    """The base of the query parameters of a route."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in values.keys() - known:
            raise ValueError(unknown("parameter", name[:80], known))
        return values


class PredictQuery(QueryModel):
    """Query parameters of /predict."""

    top: Annotated[int, Field(ge=1, le=10_000, description="Number of classes to list, most probable first.")] = 3
    fix: FixNames = ()
    grey: Annotated[bool, Field(description="Convert colour to grey, like fix=grey.")] = False
    findings: Annotated[bool, Field(description="Compare the image with the training images.")] = True
    seen: Annotated[bool, Field(description="Return the pixels that the network received.")] = False


class LookQuery(QueryModel):
    """Query parameters of /look."""

    fix: FixNames = ()
    grey: Annotated[bool, Field(description="Convert colour to grey, like fix=grey.")] = False
    name: Annotated[
        str | None, Field(alias="class", description="The class to explain; by default the predicted one.")
    ] = None


class KeepQuery(QueryModel):
    """Query parameters of /keep."""

    name: Annotated[str, Field(alias="class", description="The right class of the image.")]


# Responses


class ErrorDocument(BaseModel):
    """Why a request was refused, and its id in the server's log."""

    error: str
    request_id: str


class FindingDocument(BaseModel):
    """How an image differs from the training images, and the fix that helps."""

    code: str
    text: str
    fix: str | None


class ClassDocument(BaseModel):
    """A class and its probability."""

    name: str = Field(alias="class")
    probability: Annotated[float, Field(ge=0, le=1)]


class SeenDocument(BaseModel):
    """The pixels that the network received: uint8, height × width × channels, in base64."""

    shape: tuple[int, int, int]
    pixels: str


class UnfamiliarityDocument(BaseModel):
    """How unlike the training images an image is: unlike anything the model was trained on, if above the threshold."""

    score: float
    threshold: float


class PredictionDocument(BaseModel):
    """The prediction for one image; a model of several labels an image gives `labels`, too."""

    labels: Annotated[
        list[str] | None,
        Field(description="The labels that reach their thresholds, most probable first; of several labels an image."),
    ] = None
    name: str = Field(alias="class")
    probability: Annotated[float, Field(ge=0, le=1)]
    uncertain: Annotated[bool, Field(description="The probability is below the model's threshold.")]
    unfamiliar: Annotated[
        bool | None,
        Field(
            description="The image is unlike anything the model was trained on, so that class and probability mean "
            "little; null if the model does not measure it."
        ),
    ]
    unfamiliarity: UnfamiliarityDocument | None
    top: list[ClassDocument]
    findings: list[FindingDocument]
    fixes: Annotated[list[str], Field(description="Fixes that were applied before prediction.")]
    seen: SeenDocument | None = None


class PredictionsDocument(BaseModel):
    """One prediction for each image, in their order."""

    predictions: list[PredictionDocument]


class ShownDocument(BaseModel):
    """Numbers as bytes in base64, scaled linearly: 0 stands for `low`, 255 for `high`."""

    shape: Annotated[list[int], Field(min_length=1, max_length=3)]
    low: float
    high: float
    values: str


class LayerDocument(ShownDocument):
    """The output of a layer: height × width × channels, at most 64 of them, or units."""

    name: str
    type: str


class LookDocument(BaseModel):
    """The layers' outputs, and a saliency map: how much the class's probability falls where the image is covered."""

    seen: SeenDocument
    name: str = Field(alias="class")
    layers: list[LayerDocument]
    saliency: ShownDocument


class KeptDocument(BaseModel):
    """An image was kept: its class, and the number of images that the class has now."""

    name: str = Field(alias="class")
    kept: Annotated[int, Field(ge=1)]


# The Open Inference Protocol, version 2

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the number of bytes that are JSON, if binary tensors follow."""

Parameters = dict[str, Any]


class InputTensor(BaseModel):
    """The images: values in `data`, or their number of bytes in the parameter binary_data_size."""

    model_config = ConfigDict(strict=True)

    name: Literal["images"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, lt=2**31)]],
        Field(min_length=4, max_length=4, description="Number of images, height, width, channels."),
    ]
    datatype: Literal["UINT8"]
    parameters: Parameters = {}
    data: Annotated[list[Any] | None, Field(description="Row by row, or nested as the shape says.")] = None


class RequestedOutput(BaseModel):
    """An output to return; in binary form if the parameter binary_data is true."""

    model_config = ConfigDict(strict=True)

    name: Literal["logits", "probabilities"]
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """A request for inference; without `outputs`, all outputs are returned."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=2)] | None = None


class OutputTensor(BaseModel):
    """An output: values, row by row, or their number of bytes in the parameter binary_data_size."""

    name: Literal["logits", "probabilities"]
    datatype: Literal["FP32"]
    shape: tuple[int, int]
    data: list[float] | None = None
    parameters: Parameters | None = None


class InferResponse(BaseModel):
    """The response to a request for inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorDocument(BaseModel):
    """Name, type and shape of an input or output; -1 stands for any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Inputs and outputs of the model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorDocument]
    outputs: list[TensorDocument]


class ConfiguredTensor(BaseModel):
    """An input or output for one image, without the batch dimension."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """The model's configuration: the fields of Triton's model_config.proto that apply."""

    name: str
    platform: str
    max_batch_size: int
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The server responds."""

    live: bool


class WorkersDocument(BaseModel):
    """How many of the server's worker processes are ready."""

    ready: int
    of: int


class Ready(BaseModel):
    """The server accepts requests; with several workers, how many of them do."""

    ready: bool
    workers: WorkersDocument | None = None


class ModelReady(BaseModel):
    """The model accepts requests."""

    name: str
    ready: bool
