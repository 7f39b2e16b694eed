"""What the routes share: the model, its queue, threads and metrics; query parameters."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from foveola.exports.onnx import OnnxModel
from foveola.images import Images
from foveola.models.unfamiliarity import Outputs
from foveola.predictions import predict_outputs
from foveola.serving.batching import Batcher
from foveola.serving.bodies import Preparation
from foveola.serving.metrics import Metrics
from foveola.serving.refusals import Refused, described
from foveola.serving.settings import Settings
from foveola.serving.threads import ThreadPool
from foveola.serving.workers import Workers

Query = TypeVar("Query", bound=BaseModel)


class Service:
    """A model at work."""

    def __init__(self, model: OnnxModel, settings: Settings, workers: Workers | None) -> None:
        self.model = model
        self.settings = settings
        self.workers = workers
        self.metrics = Metrics()
        self.batcher = Batcher(self._predict, settings.queue_images, on_batch=self.metrics.batch)
        # Two large images at once occupy two cores, and need half a gigabyte while they are decoded
        self.decoding = ThreadPool("decoding", threads=2, waiting=64)
        self.explaining = ThreadPool("explanations", threads=1, waiting=4)
        self.collecting = ThreadPool("storage", threads=1, waiting=16)
        self.preparation = Preparation(model.metadata, settings.max_pixels, self.decoding)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Accept work; at the end, answer what was accepted."""
        async with self.batcher:
            yield
        for threads in (self.decoding, self.explaining, self.collecting):
            threads.close()

    async def predict(self, images: Images) -> Outputs:
        """Logits and scores of unfamiliarity of images, uint8 n×H×W×C, computed in batches; raises as `submit`."""
        rows = await self.batcher.submit(images)
        classes = len(self.model.class_names)
        return Outputs(rows[:, :classes], rows[:, classes] if rows.shape[1] > classes else None)

    def _predict(self, images: Images) -> NDArray[np.float32]:
        """Logits with the score of unfamiliarity behind them, n×(K + 1), or logits alone, n×K."""
        outputs = predict_outputs(self.model, images)
        if outputs.unfamiliarity is None:
            return outputs.logits
        return np.column_stack([outputs.logits, outputs.unfamiliarity])


def service_of(request: Request) -> Service:
    """The service of the application that received a request."""
    service: Service = request.app.state.service
    return service


def parameters(model: type[Query]) -> Callable[[Request], Coroutine[Any, Any, Query]]:
    """A dependency: the query parameters of a request.

    FastAPI can validate a model of query parameters itself, but takes a fifth of the time of a small request for that;
    here, equal queries are validated once.
    """

    @lru_cache(256)
    def parsed(query: bytes) -> Query:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if len(dict(pairs)) < len(pairs):
            raise Refused(422, "A query parameter is given twice. Give it once.")
        try:
            return model.model_validate(dict(pairs))
        except ValidationError as error:
            raise Refused(422, described(error.errors())) from None

    async def of_request(request: Request) -> Query:
        return parsed(request.scope["query_string"])

    return of_request
