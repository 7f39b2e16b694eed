"""The inference API: which route is answered by what."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from foveola.exports.model_document import Limits, ModelDocument, model_document
from foveola.exports.onnx import OnnxModel
from foveola.serving import inference_documents as v2
from foveola.serving.batching import Batcher
from foveola.serving.collecting import Collecting, KeepQuery, KeptDocument
from foveola.serving.guard import PAGE, Guard
from foveola.serving.inference_protocol import VERSION, InferenceProtocol
from foveola.serving.looking import LookDocument, Looking, LookQuery
from foveola.serving.observing import Metrics
from foveola.serving.openapi import PICTURE, document, in_path, reading, taking
from foveola.serving.pictures import JSON_SCHEMA, Pictures
from foveola.serving.predict import Predicting, PredictionsDocument, PredictQuery
from foveola.serving.settings import Settings
from foveola.serving.static_files import StaticFiles
from foveola.serving.workers import Workers

# Requests under way that are answered one by one; of more, those that have arrived together are computed together
FEW = 5

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def create_app(model: OnnxModel, settings: Settings) -> FastAPI:
    """The ASGI application, guarded; while its `state.draining` is true, it is not ready and closes connections.

    `state.waiting` is what the server sets it to: the connections whose request has arrived and is not answered yet.

    Raises
    ------
    OutputError
        If pictures shall be collected where, or for classes for which, they cannot be.
    """
    state = State({"draining": False, "waiting": None})
    shared = _Shared(model, settings, few=lambda: state.waiting is not None and len(state.waiting) <= FEW)
    app = FastAPI(
        openapi_url=None,  # the document is made once, at the end
        redirect_slashes=False,
        default_response_class=Response,
        exception_handlers={HTTPException: _leave_to_the_guard},
        lifespan=shared.running,
    )
    app.state = state
    app.state.on_refused = shared.metrics.refused
    app.router.route_class = _Direct
    fixed: dict[tuple[str, str], APIRoute] = {}
    app.add_middleware(Guard, settings=settings, metrics=shared.metrics, state=app.state, fixed=fixed)
    # In the order in which they are looked through: those that are asked most come first
    _add_pictures(app, shared)
    _add_protocol(app, shared)
    _add_descriptions(app, shared)
    for route in app.routes:
        if isinstance(route, APIRoute) and "{" not in route.path:
            fixed |= {(method, route.path): route for method in route.methods or ()}
    return app


class _Shared:
    """What the routes have in common, at work while the app runs."""

    def __init__(self, model: OnnxModel, settings: Settings, few: Callable[[], bool]) -> None:
        self.model = model
        self.settings = settings
        self.metrics = Metrics()
        self.batcher = Batcher(model.predict_logits, settings.queue_images, few=few, on_batch=self.metrics.batch)
        # Two large pictures at once keep two processors busy, and take half a gigabyte while they are decoded
        self.decoding = Workers("decoding", threads=2, waiting=64)
        self.looking = Workers("looking", threads=1, waiting=4)
        self.keeping = Workers("keeping", threads=1, waiting=16)

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        async with self.batcher:
            yield
        for workers in (self.decoding, self.looking, self.keeping):
            workers.close()


def _add_pictures(app: FastAPI, shared: _Shared) -> None:
    model, settings = shared.model, shared.settings
    pictures = Pictures(model.metadata, settings.max_pixels, shared.decoding)
    anything = PICTURE | {"application/json": {"schema": JSON_SCHEMA}}
    predict = Predicting(model.metadata, pictures, shared.batcher, shared.metrics).predict
    app.add_api_route("/predict", predict, **taking(anything, PredictionsDocument, PredictQuery.parameters(), [422]))
    names = {"class": model.class_names}
    look = Looking(model, pictures, shared.looking).look
    app.add_api_route("/look", look, **taking(PICTURE, LookDocument, LookQuery.parameters(**names), [422]))
    if settings.collect is not None:
        keep = Collecting(settings.collect, model.class_names, pictures, shared.keeping).keep
        about = taking(PICTURE, KeptDocument, KeepQuery.parameters(**names), [422, 507], status=201)
        app.add_api_route("/keep", keep, **about)


def _add_protocol(app: FastAPI, shared: _Shared) -> None:
    model, settings = shared.model, shared.settings
    protocol = InferenceProtocol(
        settings.name,
        model.metadata.image_shape,
        len(model.class_names),
        settings.max_pixels,
        shared.batcher,
        app.state,
    )
    name, version = in_path("name", settings.name), in_path("version", VERSION)
    for path, parameters in (
        ("/v2/models/{name}", [name]),
        ("/v2/models/{name}/versions/{version}", [name, version]),
    ):
        infer = taking(v2.CONTENT, v2.ANSWER, [*parameters, v2.HEADER], [404])
        app.add_api_route(f"{path}/infer", protocol.infer, **infer)
        app.add_api_route(path, protocol.model, **reading(v2.ModelMetadata, parameters, [404]))
        app.add_api_route(f"{path}/ready", protocol.model_ready, **reading(v2.Ready, parameters, [404, 503]))
        app.add_api_route(f"{path}/config", protocol.config, **reading(v2.ModelConfig, parameters, [404]))
    app.add_api_route("/v2/health/live", protocol.live, **reading(v2.Live))
    app.add_api_route("/v2/health/ready", protocol.ready, **reading(v2.Ready, refused=[503]))
    app.add_api_route("/v2", protocol.server, **reading(v2.ServerMetadata))


def _add_descriptions(app: FastAPI, shared: _Shared) -> None:
    """What there is to read: the model, the figures, the page, and all routes."""

    async def model(request: Request) -> Response:
        """The model, and what can be asked of it."""
        return _json(described)

    async def metrics(request: Request) -> Response:
        """What the server has counted and measured, for Prometheus."""
        shared.metrics.queued(shared.batcher.queued)
        return shared.metrics.response()

    async def openapi(request: Request) -> Response:
        return _json(routes)

    settings = shared.settings
    limits = Limits(body_bytes=settings.max_body_bytes, pixels=settings.max_pixels)
    collect = settings.collect is not None
    described = to_json(model_document(shared.model, settings.name, limits, collect=collect))
    app.add_api_route("/model", model, **reading(ModelDocument))
    app.add_api_route("/metrics", metrics, **reading({"text/plain": {"schema": {"type": "string"}}}))
    page = StaticFiles()
    for path in ("/", PAGE + "{file}"):
        app.add_api_route(path, page.serve, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    routes = to_json(document(app, with_key=shared.settings.api_key is not None))


class _Direct(APIRoute):
    """A route whose endpoint gets the request as it is, and checks by itself what it takes."""

    def get_route_handler(self) -> Endpoint:
        endpoint: Endpoint = self.endpoint
        return endpoint


async def _leave_to_the_guard(request: Request, error: Exception) -> NoReturn:
    raise error


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
