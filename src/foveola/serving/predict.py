"""POST /predict: images in, classes out."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.prepare import PreparedImage, make_prediction, prediction_document, requested_fixes
from foveola.models.metadata import ModelMetadata
from foveola.models.unfamiliarity import Outputs
from foveola.serving.json_bodies import JSON_SCHEMA
from foveola.serving.openapi import IMAGE_FILE, PIXELS, accepts, refusals
from foveola.serving.schemas import PredictionsDocument, PredictQuery
from foveola.serving.service import parameters, service_of
from foveola.tasks import probabilities

router = APIRouter()


@router.post(
    "/predict",
    response_model=PredictionsDocument,
    responses=refusals(408, 413, 415, 422, 503),
    openapi_extra=accepts(
        IMAGE_FILE | {"application/json": {"schema": JSON_SCHEMA, "example": PIXELS}},
        "curl --json '[[0, 80, 0], [0, 255, 0], [0, 200, 0]]' '{server}/predict?top=1&grey=true'",
        PredictQuery,
    ),
)
async def predict(request: Request, query: Annotated[PredictQuery, Depends(parameters(PredictQuery))]) -> Response:
    """Classify one image or several."""
    service = service_of(request)
    metadata = service.model.metadata
    requested = requested_fixes(query.fix, query.grey, metadata)
    bodies = await service.preparation.images(request)
    if len(bodies) > service.batcher.capacity:
        raise DataError(
            f"There are {len(bodies):,} images; at most {service.batcher.capacity:,} are accepted at once. "
            f"Send them in several requests."
        )
    prepared = await service.preparation.prepared(bodies, requested, auto="auto" in query.fix, findings=query.findings)
    for image in prepared:
        service.metrics.findings(finding.code for finding in image.findings)
    outputs = await service.predict(np.stack([image.pixels for image in prepared]))
    document = {"predictions": _documents(prepared, outputs, query, metadata)}
    return Response(to_json(document), media_type="application/json")


def _documents(
    prepared: Sequence[PreparedImage], outputs: Outputs, query: PredictQuery, metadata: ModelMetadata
) -> list[dict[str, Any]]:
    scores = [None] * len(prepared) if outputs.unfamiliarity is None else outputs.unfamiliarity.tolist()
    documents = []
    for image, row, score in zip(prepared, probabilities(outputs.logits, metadata.task), scores, strict=True):
        prediction = make_prediction("", row, image, metadata, metadata.class_names, query.top, score)
        document = prediction_document(prediction)
        documents.append(document | {"seen": seen_document(image.pixels)} if query.seen else document)
    return documents


def seen_document(pixels: Images) -> dict[str, Any]:
    """The fields of a SeenDocument."""
    return {"shape": pixels.shape, "pixels": base64.b64encode(pixels.tobytes()).decode()}
