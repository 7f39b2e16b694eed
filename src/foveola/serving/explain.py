"""POST /look: the output of every layer for an image, and which of its pixels matter for a class."""

import base64
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray
from pydantic_core import to_json

from foveola.errors import UserError, unknown
from foveola.explanation.occlusion import occlusion
from foveola.exports.onnx import OnnxModel
from foveola.images import Images
from foveola.inputs.prepare import requested_fixes
from foveola.serving.bodies import image_file
from foveola.serving.openapi import IMAGE_FILE, accepts, refusals
from foveola.serving.predict import seen_document
from foveola.serving.schemas import LookDocument, LookQuery
from foveola.serving.service import parameters, service_of

MAX_MAPS = 64
"""Feature maps of a layer that are returned; nobody looks through more."""

router = APIRouter()


@router.post(
    "/look",
    response_model=LookDocument,
    responses=refusals(408, 413, 415, 422, 503),
    openapi_extra=accepts(
        IMAGE_FILE,
        "curl --header 'Content-Type: image/png' --data-binary @image.png '{server}/look?fix=auto'",
        LookQuery,
    ),
)
async def look(
    request: Request,
    query: Annotated[LookQuery, Depends(parameters(LookQuery))],
    image: Annotated[bytes, Depends(image_file)],
) -> Response:
    """Feature maps and occlusion for one image; they run the model some hundred times."""
    service = service_of(request)
    model = service.model
    if query.name is not None and query.name not in model.class_names:
        raise UserError(unknown("class", query.name[:80], model.class_names))
    requested = requested_fixes(query.fix, query.grey, model.metadata)
    (prepared,) = await service.preparation.prepared([image], requested, auto="auto" in query.fix, findings=False)
    index = None if query.name is None else model.class_names.index(query.name)
    return Response(
        await service.explaining.run(_look_document, model, prepared.pixels, index), media_type="application/json"
    )


def _look_document(model: OnnxModel, pixels: Images, index: int | None) -> bytes:
    """A LookDocument; `index` is the class to explain."""
    images = pixels[None]
    if index is None:
        index = int(model.predict_logits(images).argmax())
    maps = model.feature_maps(images)
    drops = occlusion(model, model.metadata.polarity, images, np.array([index]))[0]
    return to_json(
        {
            "seen": seen_document(pixels),
            "class": model.class_names[index],
            "layers": [
                {"name": layer.name, "type": layer.type, **_as_bytes(_first_maps(maps[layer.name][0]))}
                for layer in model.layers
            ],
            "saliency": _as_bytes(drops),
        }
    )


def _first_maps(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of maps, height × width × channels, the first; of units, all."""
    return values[..., :MAX_MAPS] if values.ndim == 3 else values


def _as_bytes(values: NDArray[np.float32]) -> dict[str, Any]:
    """The fields of a ShownDocument."""
    low, high = float(values.min()), float(values.max())
    scaled = np.rint((values - low) * (255 / (high - low))) if high > low else np.zeros_like(values)
    content = base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()
    return {"shape": values.shape, "low": low, "high": high, "values": content}
