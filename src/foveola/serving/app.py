"""The application: routes, middleware and exception handlers around a served model."""

import asyncio
import contextlib
import gc
import multiprocessing
import signal
import threading
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from multiprocessing.process import BaseProcess

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from foveola.errors import OutputError, UserError
from foveola.exports.model_document import Limits, ModelDocument, model_document
from foveola.exports.onnx import OnnxModel
from foveola.serving import collect, explain, inference_protocol, predict, static_files
from foveola.serving.connections import end_stuck_connections
from foveola.serving.middleware import middleware
from foveola.serving.openapi import SERVER, TO_ANY, describe
from foveola.serving.refusals import Refused, error_response, refusal
from foveola.serving.service import Service, service_of
from foveola.serving.settings import Settings
from foveola.serving.workers import Workers

# How often connections are examined, and how much longer than a client may take to send they may be silent
_EXAMINE_SECONDS, _SILENT_SECONDS = 2.0, 30.0

information = APIRouter()


@information.get("/model", response_model=ModelDocument)
async def model(request: Request) -> ModelDocument:
    """The model: class names, image shape, layers, fixes, limits."""
    service = service_of(request)
    settings = service.settings
    limits = Limits(body_bytes=settings.max_body_bytes, pixels=settings.max_pixels)
    return model_document(service.model, settings.name, limits, collect=settings.collect is not None)


@information.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus, summed over the workers."""
    service = service_of(request)
    service.metrics.queued(service.batcher.queued)
    return service.metrics.response()


@information.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI document, made at the first request for it."""
    app, service = request.app, service_of(request)
    if app.openapi_schema is None:
        app.openapi_schema = await asyncio.to_thread(describe, app, service.settings, service.model.metadata)
    content = to_json(app.openapi_schema).replace(SERVER.encode(), str(request.base_url).rstrip("/").encode())
    return Response(content, media_type="application/json")


def create_app(
    model: OnnxModel,
    settings: Settings,
    port: int = 0,
    workers: Workers | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The ASGI application.

    Parameters
    ----------
    port : where it is served; 0 if unknown
    workers : the processes of which it is one, if there are several
    on_ready : called when it can answer requests

    Raises
    ------
    OutputError
        If images shall be collected in a folder, or for classes, for which that is impossible.
    """
    service = Service(model, settings, workers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running(), watching(port, settings.receive_seconds):
            # What exists now stays, and what requests leave behind is seldom cyclic: examining it again and again would
            # delay them
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 20)
            on_ready()
            yield

    app = FastAPI(
        title="Foveola",
        version=version("foveola"),
        summary="An image classifier over HTTP.",
        openapi_url=None,  # served by `openapi`
        redirect_slashes=False,
        responses=TO_ANY,
        lifespan=lifespan,
        middleware=middleware(settings, service.metrics),
        exception_handlers=dict.fromkeys((Refused, UserError, RequestValidationError, HTTPException), refuse),
    )
    app.state.service = service
    if settings.collect is not None and model.metadata.task == "multilabel":
        raise OutputError(
            "Images are collected in a folder for each class, but this model gives any number of labels an image. "
            "Serve it without --collect."
        )
    if settings.collect is not None:
        app.state.collection = collect.Collection(settings.collect, model.class_names)
    _add_routes(app, settings)
    return app


async def refuse(request: Request, error: Exception) -> Response:
    """The response to a request that raises an exception, unless that is the server's own fault."""
    refused = refusal(error)
    if refused is None:
        raise error
    return error_response(refused, request.state.request_id)


def _add_routes(app: FastAPI, settings: Settings) -> None:
    app.include_router(predict.router)  # first, since most requests are for it
    app.include_router(inference_protocol.router)
    app.include_router(explain.router)
    if settings.collect is not None:
        app.include_router(collect.router)
    app.include_router(information)
    app.include_router(static_files.router)


@contextlib.asynccontextmanager
async def watching(port: int, seconds: float) -> AsyncIterator[None]:
    """End connections that are stuck, and this process if the one that supervises it has died."""

    async def examine() -> None:
        while True:
            await asyncio.sleep(_EXAMINE_SECONDS)
            await asyncio.to_thread(end_stuck_connections, port, seconds, seconds + _SILENT_SECONDS)

    def follow(supervisor: BaseProcess) -> None:
        supervisor.join()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(signal.raise_signal, signal.SIGTERM)

    loop, supervisor = asyncio.get_running_loop(), multiprocessing.parent_process()
    if supervisor is not None:  # in a thread, because loops on Windows can only watch sockets
        threading.Thread(target=follow, args=(supervisor,), daemon=True).start()
    task = asyncio.create_task(examine()) if port else None
    yield
    if task is not None:
        task.cancel()
