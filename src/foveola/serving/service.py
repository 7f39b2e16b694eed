"""What the routes share: the model, its queue, threads and metrics; query parameters."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError

from foveola.exports.onnx import OnnxModel
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
        self.batcher = Batcher(model.predict_logits, settings.queue_images, on_batch=self.metrics.batch)
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
