"""The Open Inference Protocol, version 2, of KServe and Triton, so that their clients work with this server.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with Triton's
extensions binary_tensor_data (tensors as bytes after the JSON) and model_configuration:
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Header, Request, Response
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import to_json

from foveola.arrays import shape_text
from foveola.errors import DataError
from foveola.images import Images
from foveola.serving import schemas
from foveola.serving.bodies import QUICK_BYTES
from foveola.serving.json_bodies import check_values, pixels_of
from foveola.serving.openapi import accepts, refusals
from foveola.serving.refusals import Refused, described
from foveola.serving.schemas import HEADER_LENGTH, InferRequest, InputTensor, Parameters
from foveola.serving.service import Service, service_of
from foveola.tasks import Task, probabilities

Result = TypeVar("Result")

INPUT, OUTPUTS = "images", ("logits", "probabilities")
VERSION = "1"
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("binary_tensor_data", "model_configuration")

# Of extensions that are not offered: a client that sends one would misread a response without it
_REFUSED_PARAMETERS = ("classification", "shared_memory_region")
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TENSOR = {"name": INPUT, "shape": [1, 2, 2, 1], "datatype": "UINT8", "data": [0, 90, 255, 0]}
_INFER_CONTENT: dict[str, Any] = {
    "application/json": {
        "schema": {"$ref": "#/components/schemas/InferRequest"},
        "example": {"inputs": [_TENSOR]},
    },
    **_BINARY,
}
_INFER_CURL = (
    'curl --json \'{"inputs": [{"name": "images", "shape": [1, 2, 2, {channels}], "datatype": "UINT8", '
    "\"data\": {data}}]}' '{server}/v2/models/{name}/infer'"
)

_INFER: dict[str, Any] = {
    "response_model": schemas.InferResponse,
    "responses": {200: {"content": _BINARY}, **refusals(408, 413, 415, 422, 503)},
    "openapi_extra": accepts(_INFER_CONTENT, _INFER_CURL),
}

router = APIRouter()


async def _check_address(request: Request, name: str, version: str = VERSION) -> None:
    """Refuse requests for another model, as a dependency of routes."""
    service = service_of(request)
    if (name, version) != (service.settings.name, VERSION):
        raise Refused(
            404,
            f"There is no such model, or not in this version. There is {service.settings.name}, version {VERSION}.",
        )


models = APIRouter(dependencies=[Depends(_check_address)], responses=refusals(404))
_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"


@router.get("/v2", response_model=schemas.ServerMetadata)
async def server() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "foveola", "version": version("foveola"), "extensions": EXTENSIONS}


@router.get("/v2/health/live", response_model=schemas.Live)
async def live() -> dict[str, bool]:
    """Whether the server responds."""
    return {"live": True}


@router.get("/v2/health/ready", response_model=schemas.Ready, response_model_exclude_none=True)
async def ready(request: Request) -> dict[str, Any]:
    """Whether the server accepts requests, and with several workers, how many do."""
    service = service_of(request)
    workers = service.workers
    return {"ready": True, "workers": workers and {"ready": workers.count_ready(), "of": workers.size}}


@models.get(_MODEL, response_model=schemas.ModelMetadata)
@models.get(_VERSION, response_model=schemas.ModelMetadata)
async def model(request: Request) -> dict[str, Any]:
    """Inputs and outputs of the model; it accepts images of any height and width."""
    service = service_of(request)
    channels, classes = _channels(service), len(service.model.class_names)
    return {
        "name": service.settings.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, channels]}],
        "outputs": [{"name": output, "datatype": "FP32", "shape": [-1, classes]} for output in OUTPUTS],
    }


@models.get(_MODEL + "/ready", response_model=schemas.ModelReady)
@models.get(_VERSION + "/ready", response_model=schemas.ModelReady)
async def model_ready(request: Request) -> dict[str, Any]:
    """Whether the model accepts requests."""
    service = service_of(request)
    return {"name": service.settings.name, "ready": True}


@models.get(_MODEL + "/config", response_model=schemas.ModelConfig)
@models.get(_VERSION + "/config", response_model=schemas.ModelConfig)
async def config(request: Request) -> dict[str, Any]:
    """The model's configuration."""
    service = service_of(request)
    channels, classes = _channels(service), len(service.model.class_names)
    return {
        "name": service.settings.name,
        "platform": PLATFORM,
        "max_batch_size": service.batcher.capacity,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "dims": [-1, -1, channels]}],
        "output": [{"name": output, "data_type": "TYPE_FP32", "dims": [classes]} for output in OUTPUTS],
    }


@models.post(_MODEL + "/infer", **_INFER)
@models.post(_VERSION + "/infer", **_INFER)
async def infer(
    request: Request,
    json_length: Annotated[
        str | None,
        Header(
            alias=HEADER_LENGTH,
            description="Number of bytes of the body that are JSON, if binary tensors follow.",
            json_schema_extra={"type": "integer", "minimum": 0},
        ),
    ] = None,
) -> Response:
    """Compute logits and probabilities of images."""
    service, body = service_of(request), await request.body()
    try:
        length = _json_length(json_length, len(body))
        asked, images = await _in_thread_if(length > QUICK_BYTES, service, _parsed, service, body, length)
        outputs = _outputs(asked)
        logits = (await service.predict(images)).logits
    except DataError as error:
        raise Refused(400, str(error)) from None
    large = logits.size > QUICK_BYTES // 8
    name, task = service.settings.name, service.model.metadata.task
    return await _in_thread_if(large, service, _response, name, task, asked, outputs, logits)


router.include_router(models)


def _channels(service: Service) -> int:
    return service.model.metadata.image_shape[2]


async def _in_thread_if(condition: bool, service: Service, work: Callable[..., Result], *arguments: object) -> Result:
    return await service.decoding.run(work, *arguments) if condition else work(*arguments)


def _json_length(given: str | None, body: int) -> int:
    """Number of bytes of a body of `body` bytes that are JSON."""
    if given is None:
        return body
    if not (given.isascii() and given.isdigit()) or len(given) > 12 or int(given) > body:
        raise DataError(
            f"{HEADER_LENGTH} is {given[:80]}, but the body has {body:,} bytes. Send the number of bytes that are JSON."
        )
    return int(given)


def _parsed(service: Service, body: bytes, length: int) -> tuple[InferRequest, Images]:
    """The request, and its images, uint8 N×H×W×C."""
    check_values(body[:length])
    try:
        asked = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        raise DataError(f"The request cannot be used: {described(error.errors())} Correct it.") from None
    (tensor,) = asked.inputs
    _check_parameters(tensor.parameters)
    shape, channels, max_pixels = tensor.shape, _channels(service), service.settings.max_pixels
    if shape[3] != channels or shape[1] * shape[2] > max_pixels:
        raise DataError(
            f"The input has the shape {shape_text(shape)[:80]}; the model accepts N×H×W×{channels}, with at most "
            f"{max_pixels:,} pixels (H times W)."
        )
    binary = memoryview(body)[length:]
    values = _from_bytes(tensor, binary) if tensor.data is None else _from_json(tensor.data, binary)
    if values.size != math.prod(shape) or (values.ndim == 4 and list(values.shape) != shape):
        raise DataError(
            f"The input has {values.size:,} values with the shape {shape_text(values.shape)}, but `shape` is "
            f"{shape_text(shape)[:80]}. Make them equal."
        )
    return asked, values.reshape(shape)


def _from_json(data: list[Any], binary: memoryview) -> Images:
    if len(binary):
        raise DataError(f"{len(binary):,} bytes follow the JSON, but the input has values in the JSON. Send either.")
    return pixels_of(data, (1, 4), "The input's data")


def _from_bytes(tensor: InputTensor, binary: memoryview) -> Images:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        raise DataError("The input has neither data nor the parameter binary_data_size. Send one of them.")
    if type(size) is not int or size != len(binary):
        raise DataError(f"The input's binary_data_size is {size!r:.80}, but {len(binary):,} bytes follow the JSON.")
    return np.frombuffer(binary, np.uint8)


def _outputs(asked: InferRequest) -> dict[str, bool]:
    """The requested outputs, and whether in binary form."""
    _check_parameters(asked.parameters)
    all_binary = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return dict.fromkeys(OUTPUTS, all_binary)
    for output in asked.outputs:
        _check_parameters(output.parameters)
    return {output.name: output.parameters.get("binary_data", all_binary) is True for output in asked.outputs}


def _check_parameters(parameters: Parameters) -> None:
    """Refuse parameters of extensions that are not offered; others are ignored, as the protocol requires."""
    for name in _REFUSED_PARAMETERS:
        if name in parameters:
            raise DataError(f"The parameter {name} belongs to an extension that is not offered. Leave it out.")


def _response(
    name: str, task: Task, asked: InferRequest, outputs: dict[str, bool], logits: NDArray[np.float32]
) -> Response:
    """An InferResponse, followed by binary tensors if some are requested."""
    document: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": []}
    if asked.id is not None:
        document["id"] = asked.id
    buffers = []
    for output, binary in outputs.items():
        values = logits if output == "logits" else probabilities(logits, task).astype(np.float32)
        tensor: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": values.shape}
        if binary:
            buffers.append(values.astype("<f4", copy=False).tobytes())
            tensor["parameters"] = {"binary_data_size": len(buffers[-1])}
        else:
            tensor["data"] = values.ravel().tolist()
        document["outputs"].append(tensor)
    header = to_json(document)
    if not buffers:
        return Response(header, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(header))}
    return Response(b"".join([header, *buffers]), headers=headers, media_type="application/octet-stream")
