"""The JSON documents of the Open Inference Protocol, version 2, as they are checked and described."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON ends and tensors follow as bytes."""

Parameters = dict[str, Any]


class InputTensor(BaseModel):
    """The images: their values in `data`, or the number of their bytes in the parameter binary_data_size."""

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
    """An output that a request asks for; as bytes where the parameter binary_data is true."""

    model_config = ConfigDict(strict=True)

    name: Literal["logits", "probabilities"]
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """What the model is asked; all outputs where none is named."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=2)] | None = None


class OutputTensor(BaseModel):
    """A tensor of an answer: its values, row by row, or their number of bytes in the parameter binary_data_size."""

    name: Literal["logits", "probabilities"]
    datatype: Literal["FP32"]
    shape: tuple[int, int]
    data: list[float] | None = None
    parameters: Parameters | None = None


class InferResponse(BaseModel):
    """The model's answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorDocument(BaseModel):
    """A tensor that the model takes or gives; -1 stands for any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorDocument]
    outputs: list[TensorDocument]


class ConfiguredTensor(BaseModel):
    """A tensor of one image, without the dimension of the batch."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """The model's configuration in the words of Triton's model_config.proto, as far as there is something to say."""

    name: str
    platform: str
    max_batch_size: int
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]


class ServerMetadata(BaseModel):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The server answers."""

    live: bool


class Ready(BaseModel):
    """The server, or the model, takes requests."""

    name: str | None = None
    ready: bool


HEADER: dict[str, Any] = {
    "name": HEADER_LENGTH,
    "in": "header",
    "required": False,
    "description": "How many bytes of the body are JSON, where tensors follow it as bytes.",
    "schema": {"type": "integer", "minimum": 0},
}
CONTENT: dict[str, Any] = {
    "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
ANSWER: dict[str, Any] = {
    "application/json": {"schema": {"$ref": "#/components/schemas/InferResponse"}},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
