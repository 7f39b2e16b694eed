"""The Open Inference Protocol, version 2, which KServe and Triton have in common; their clients can ask this server.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with Triton's
extensions binary_tensor_data (tensors as bytes behind the JSON) and model_configuration:
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from foveola.errors import DataError
from foveola.images import Images, shape_text
from foveola.predictions import softmax
from foveola.serving.batching import Batcher
from foveola.serving.inference_documents import HEADER_LENGTH, InferRequest, InputTensor, Parameters
from foveola.serving.json_bodies import MAX_VALUES, pixels_of
from foveola.serving.responses import Refused, described, json_response

INPUT, OUTPUTS = "images", ("logits", "probabilities")
VERSION = "1"
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("binary_tensor_data", "model_configuration")

# Of other extensions: answered without them, the client would misread what it gets
_REFUSED_PARAMETERS = ("classification", "shared_memory_region")


class InferenceProtocol:
    """The routes.

    Parameters
    ----------
    name : of the model, in URLs
    image_shape : height, width, channels that the model has learnt from; it takes any height and width
    classes : how many logits it gives
    max_pixels : of an image
    batcher : asks the model
    state : of the app; while its `draining` is true, the server is not ready
    """

    def __init__(
        self,
        name: str,
        image_shape: Sequence[int],
        classes: int,
        max_pixels: int,
        batcher: Batcher,
        state: State,
    ) -> None:
        self._name = name
        self._channels = image_shape[2]
        self._classes = classes
        self._max_pixels = max_pixels
        self._batcher = batcher
        self._state = state

    async def live(self, request: Request) -> Response:
        """Whether the server answers at all."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether the server takes requests."""
        self._check_ready()
        return json_response({"ready": True})

    async def server(self, request: Request) -> Response:
        """Who answers."""
        return json_response({"name": "foveola", "version": version("foveola"), "extensions": EXTENSIONS})

    async def model_ready(self, request: Request) -> Response:
        """Whether the model takes requests."""
        self._check_address(request)
        self._check_ready()
        return json_response({"name": self._name, "ready": True})

    async def model(self, request: Request) -> Response:
        """What the model takes and gives."""
        self._check_address(request)
        return json_response(
            {
                "name": self._name,
                "versions": [VERSION],
                "platform": PLATFORM,
                "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, self._channels]}],
                "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, self._classes]} for name in OUTPUTS],
            }
        )

    async def config(self, request: Request) -> Response:
        """The model's configuration."""
        self._check_address(request)
        return json_response(
            {
                "name": self._name,
                "platform": PLATFORM,
                "max_batch_size": self._batcher.capacity,
                "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "dims": [-1, -1, self._channels]}],
                "output": [{"name": name, "data_type": "TYPE_FP32", "dims": [self._classes]} for name in OUTPUTS],
            }
        )

    async def infer(self, request: Request) -> Response:
        """Ask the model."""
        self._check_address(request)
        body = await request.body()
        try:
            length = _header_length(request, len(body))
            asked = _parsed(body[:length])
            images = self._images(asked, memoryview(body)[length:])
            outputs = _outputs(asked)
            logits = await self._batcher.submit(images)
        except DataError as error:
            raise Refused(400, str(error)) from None
        return self._response(asked, outputs, logits)

    def _check_address(self, request: Request) -> None:
        asked = request.path_params["name"], request.path_params.get("version", VERSION)
        if asked != (self._name, VERSION):
            raise Refused(
                404, f"There is no such model, or not in this version. There is {self._name}, version {VERSION}."
            )

    def _check_ready(self) -> None:
        if self._state.draining:
            raise Refused(503, "The server is about to end. Ask another, or later.", {"Retry-After": "1"})

    def _images(self, asked: InferRequest, binary: memoryview) -> Images:
        """The input tensor, uint8 N×H×W×C."""
        (tensor,) = asked.inputs
        _check_parameters(tensor.parameters)
        shape = tensor.shape
        if shape[3] != self._channels or shape[1] * shape[2] > self._max_pixels:
            raise DataError(
                f"The input has the shape {shape_text(shape)[:80]}; the model takes N×H×W×{self._channels}, with at "
                f"most {self._max_pixels:,} pixels (H times W)."
            )
        values = _from_bytes(tensor, binary) if tensor.data is None else _from_json(tensor.data, binary)
        if values.size != math.prod(shape) or (values.ndim == 4 and list(values.shape) != shape):
            raise DataError(
                f"The input has {values.size:,} values, laid out as {shape_text(values.shape)}; its shape is "
                f"{shape_text(shape)[:80]}. Send both alike."
            )
        return values.reshape(shape)

    def _response(self, asked: InferRequest, outputs: dict[str, bool], logits: NDArray[np.float32]) -> Response:
        document: dict[str, Any] = {"model_name": self._name, "model_version": VERSION, "outputs": []}
        if asked.id is not None:
            document["id"] = asked.id
        buffers = []
        for name, binary in outputs.items():
            values = logits if name == "logits" else softmax(logits).astype(np.float32)
            tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": values.shape}
            if binary:
                buffers.append(values.astype("<f4", copy=False).tobytes())
                tensor["parameters"] = {"binary_data_size": len(buffers[-1])}
            else:
                tensor["data"] = values.ravel().tolist()
            document["outputs"].append(tensor)
        if not buffers:
            return json_response(document)
        header = to_json(document)
        headers = {HEADER_LENGTH: str(len(header))}
        return Response(b"".join([header, *buffers]), 200, headers, "application/octet-stream")


def _header_length(request: Request, body: int) -> int:
    """Where the JSON ends in a body of so many bytes."""
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return body
    if not (given.isascii() and given.isdigit()) or len(given) > 12 or int(given) > body:
        raise DataError(
            f"{HEADER_LENGTH} is {given[:80]}; the body has {body:,} bytes. Send how many of them are JSON."
        )
    return int(given)


def _parsed(head: bytes) -> InferRequest:
    if head.count(b",") >= MAX_VALUES:
        raise Refused(413, f"The JSON holds more than {MAX_VALUES:,} values. Send a binary tensor, or fewer at a time.")
    try:
        return InferRequest.model_validate_json(head)
    except ValidationError as error:
        raise DataError(f"The request cannot be used: {described(error)} Correct it.") from None


def _from_json(data: list[Any], binary: memoryview) -> Images:
    if len(binary):
        raise DataError(
            f"{len(binary):,} bytes follow the JSON, but the input has its values in the JSON. Send either."
        )
    return pixels_of(data, (1, 4), "The input's data")


def _from_bytes(tensor: InputTensor, binary: memoryview) -> Images:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        raise DataError("The input has neither data nor the parameter binary_data_size. Send one of them.")
    if type(size) is not int or size != len(binary):
        raise DataError(f"The input's binary_data_size is {size!r:.80}, but {len(binary):,} bytes follow the JSON.")
    return np.frombuffer(binary, np.uint8)


def _outputs(asked: InferRequest) -> dict[str, bool]:
    """The outputs that are asked for, and whether as bytes."""
    _check_parameters(asked.parameters)
    everything_binary = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return dict.fromkeys(OUTPUTS, everything_binary)
    for output in asked.outputs:
        _check_parameters(output.parameters)
    return {output.name: output.parameters.get("binary_data", everything_binary) is True for output in asked.outputs}


def _check_parameters(parameters: Parameters) -> None:
    """Those of extensions that are not offered; whatever else a client adds is left aside, as the protocol has it."""
    for name in _REFUSED_PARAMETERS:
        if name in parameters:
            raise DataError(f"The parameter {name} belongs to an extension that is not offered. Leave it out.")
