"""The application of `foveola teach`: routes, and the server's middleware, around a studio."""

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from foveola.errors import UserError
from foveola.serving.app import refuse, watching
from foveola.serving.middleware import middleware
from foveola.serving.refusals import Refused
from foveola.serving.settings import Settings
from foveola.teaching import collecting, learning, static_files
from foveola.teaching.learner import Learner
from foveola.teaching.project import Project
from foveola.teaching.studio import Studio


def open_studio(folder: Path, settings: Settings) -> Studio:
    """The studio of a folder, with all its parts.

    Raises
    ------
    UserError
        If the folder cannot be used.
    """
    studio = Studio(Project(folder), settings)
    studio.parts["learner"] = Learner(studio.project, settings)
    return studio


def create_app(studio: Studio, port: int = 0, on_ready: Callable[[], None] = lambda: None) -> FastAPI:
    """The ASGI application.

    Parameters
    ----------
    port : where it is served; 0 if unknown
    on_ready : called when it can answer requests
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with studio.running(), watching(port, studio.settings.receive_seconds):
            on_ready()
            yield

    app = FastAPI(
        title="Foveola teach",
        version=version("foveola"),
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=middleware(studio.settings, studio.metrics),
        exception_handlers=dict.fromkeys((Refused, UserError, RequestValidationError, HTTPException), refuse),
    )
    app.state.studio, app.state.learner = studio, studio.parts.get("learner")
    for router in (collecting.router, learning.router, static_files.router):
        app.include_router(router)
    return app
