"""POST /look: what every layer gives for a picture, and which of its pixels speak for a class."""

import base64
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from foveola.errors import UserError, unknown
from foveola.explanation.occlusion import occlusion
from foveola.exports.onnx import OnnxModel
from foveola.images import Images
from foveola.inputs.prepare import requested_fixes
from foveola.serving.pictures import Pictures, one_picture
from foveola.serving.predict import SeenDocument, seen
from foveola.serving.queries import FixNames, Query
from foveola.serving.responses import json_response
from foveola.serving.workers import Workers

MAX_MAPS = 64
"""Of a layer; nobody looks through more."""


class LookQuery(Query):
    """What is to be looked at."""

    fix: FixNames = ()
    grey: Annotated[bool, Field(description="Turn colour into grey; the same as the fix of that name.")] = False
    name: Annotated[
        str | None, Field(alias="class", description="The class to explain; by default the predicted one.")
    ] = None


class Looking:
    """The route. It runs the model some hundred times, so that one request is worked on at a time.

    Parameters
    ----------
    model : to look into
    pictures : prepare what comes
    workers : do the work
    """

    def __init__(self, model: OnnxModel, pictures: Pictures, workers: Workers) -> None:
        self._model = model
        self._pictures = pictures
        self._workers = workers

    async def look(self, request: Request) -> Response:
        """Feature maps and occlusion for one picture."""
        query = LookQuery.of(request)
        names = self._model.class_names
        if query.name is not None and query.name not in names:
            raise UserError(unknown("class", query.name[:80], names))
        asked = requested_fixes(query.fix, query.grey, self._model.metadata)
        prepared = await self._pictures.prepared(
            await one_picture(request), "The picture", asked, auto="auto" in query.fix, findings=False
        )
        chosen = None if query.name is None else names.index(query.name)
        return json_response(await self._workers.run(self._looked, prepared.pixels, chosen))

    def _looked(self, pixels: Images, chosen: int | None) -> dict[str, Any]:
        images = pixels[None]
        if chosen is None:
            chosen = int(self._model.predict_logits(images).argmax())
        maps = self._model.feature_maps(images)
        drops = occlusion(self._model, self._model.metadata.polarity, images, np.array([chosen]))[0]
        return {
            "seen": seen(pixels),
            "class": self._model.class_names[chosen],
            "layers": [
                {"name": layer.name, "type": layer.type, **_shown(_some(maps[layer.name][0]))}
                for layer in self._model.layers
            ],
            "saliency": _shown(drops),
        }


def _some(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of maps, height × width × channels, the first ones; of units, all."""
    return values[..., :MAX_MAPS] if values.ndim == 3 else values


def _shown(values: NDArray[np.float32]) -> dict[str, Any]:
    """Numbers as bytes, 0 for the lowest and 255 for the highest."""
    low, high = float(values.min()), float(values.max())
    scaled = np.rint((values - low) * (255 / (high - low))) if high > low else np.zeros_like(values)
    content = base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()
    return {"shape": values.shape, "low": low, "high": high, "values": content}


class ShownDocument(BaseModel):
    """Numbers as bytes in base64: 0 stands for `low`, 255 for `high`, what lies between in proportion."""

    shape: Annotated[list[int], Field(min_length=1, max_length=3)]
    low: float
    high: float
    values: str


class LayerDocument(ShownDocument):
    """What a layer gives, height × width × channels, of which at most 64, or units."""

    name: str
    type: str


class LookDocument(BaseModel):
    """What the network has seen, what its layers give, and how much a class's probability falls where it is covered."""

    seen: SeenDocument
    name: str = Field(alias="class")
    layers: list[LayerDocument]
    saliency: ShownDocument
