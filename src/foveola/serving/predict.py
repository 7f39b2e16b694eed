"""POST /predict: pictures in, classes out."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from foveola.errors import DataError
from foveola.images import Images
from foveola.inputs.prepare import PreparedImage, make_prediction, prediction_document, requested_fixes
from foveola.models.metadata import ModelMetadata
from foveola.predictions import softmax
from foveola.serving.batching import Batcher
from foveola.serving.observing import Metrics
from foveola.serving.pictures import Picture, Pictures, is_picture, media_type, pictures_in_json, wrong_type
from foveola.serving.queries import FixNames, Query
from foveola.serving.responses import json_response


class PredictQuery(Query):
    """How pictures are to be classified, and what is to be said of them."""

    top: Annotated[int, Field(ge=1, le=10_000, description="How many classes to name, the most probable first.")] = 3
    fix: FixNames = ()
    grey: Annotated[bool, Field(description="Turn colour into grey; the same as the fix of that name.")] = False
    findings: Annotated[bool, Field(description="Say in what a picture is unlike the training images.")] = True
    seen: Annotated[bool, Field(description="Give what the network has seen of a picture.")] = False


class Predicting:
    """The route.

    Parameters
    ----------
    metadata : of the model
    pictures : prepare what comes
    batcher : asks the model
    metrics : get what was found in the pictures
    """

    def __init__(self, metadata: ModelMetadata, pictures: Pictures, batcher: Batcher, metrics: Metrics) -> None:
        self._card = metadata
        self._pictures = pictures
        self._batcher = batcher
        self._metrics = metrics

    async def predict(self, request: Request) -> Response:
        """Classify one picture, or several."""
        query = PredictQuery.of(request)
        pictures = _pictures(media_type(request), await request.body())
        if len(pictures) > self._batcher.capacity:
            raise DataError(
                f"There are {len(pictures):,} pictures; at most {self._batcher.capacity:,} are taken at once. "
                f"Send them in several requests."
            )
        prepared = await self._prepared(pictures, query)
        probabilities = softmax(await self._batcher.submit(np.stack([picture.pixels for picture in prepared])))
        return json_response({"predictions": self._documents(prepared, probabilities, query)})

    async def _prepared(self, pictures: Sequence[Picture], query: PredictQuery) -> list[PreparedImage]:
        asked = requested_fixes(query.fix, query.grey, self._card)
        prepared = []
        for number, picture in enumerate(pictures, start=1):
            name = f"Picture {number}" if len(pictures) > 1 else "The picture"
            prepared.append(
                await self._pictures.prepared(picture, name, asked, auto="auto" in query.fix, findings=query.findings)
            )
            self._metrics.findings(finding.code for finding in prepared[-1].findings)
            if number < len(pictures):
                await asyncio.sleep(0)  # a long list does not hold up the others
        return prepared

    def _documents(
        self, prepared: Sequence[PreparedImage], probabilities: NDArray[np.float64], query: PredictQuery
    ) -> list[dict[str, Any]]:
        documents = []
        for picture, row in zip(prepared, probabilities, strict=True):
            said = make_prediction("", row, picture, self._card, self._card.class_names, query.top)
            documents.append(prediction_document(said) | ({"seen": seen(picture.pixels)} if query.seen else {}))
        return documents


def seen(pixels: Images) -> dict[str, Any]:
    """What the network has seen of a picture, for JSON."""
    return {"shape": pixels.shape, "pixels": base64.b64encode(pixels.tobytes()).decode()}


def _pictures(kind: str, body: bytes) -> list[Picture]:
    if kind == "application/json":
        return pictures_in_json(body)
    if not is_picture(kind):
        raise wrong_type(kind, "the bytes of an image file with a Content-Type such as image/png, or application/json")
    return [body]


class FindingDocument(BaseModel):
    """In what a picture is unlike the training images, and the fix that would help."""

    code: str
    text: str
    fix: str | None


class ClassDocument(BaseModel):
    """A class and its probability."""

    name: str = Field(alias="class")
    probability: Annotated[float, Field(ge=0, le=1)]


class SeenDocument(BaseModel):
    """uint8 pixels, height × width × channels, as base64."""

    shape: tuple[int, int, int]
    pixels: str


class PredictionDocument(BaseModel):
    """What is said of a picture."""

    name: str = Field(alias="class")
    probability: Annotated[float, Field(ge=0, le=1)]
    uncertain: Annotated[bool, Field(description="The probability lies below the model's own threshold.")]
    top: list[ClassDocument]
    findings: list[FindingDocument]
    fixes: Annotated[list[str], Field(description="What was changed before the model saw the picture.")]
    seen: SeenDocument | None = None


class PredictionsDocument(BaseModel):
    """One answer for each picture, in their order."""

    predictions: list[PredictionDocument]
