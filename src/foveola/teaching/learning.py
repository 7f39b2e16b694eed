"""Routes of jobs, events, summary, report, downloads, and of the current model."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BeforeValidator, Field
from starlette.responses import FileResponse, StreamingResponse

from foveola.errors import unknown
from foveola.exports.model_document import Limits, model_document
from foveola.recipe import recipe_names
from foveola.serving.bodies import image_file
from foveola.serving.explain import look as look_at
from foveola.serving.predict import predict as predict_with
from foveola.serving.refusals import Refused
from foveola.serving.schemas import LookQuery, PredictQuery
from foveola.serving.service import parameters
from foveola.teaching.collecting import JsonBody, PicturesBody, json_body, json_response
from foveola.teaching.current import MODEL
from foveola.teaching.jobs import Job
from foveola.teaching.learner import DEFAULT_SECONDS, Learner
from foveola.teaching.studio import studio_of

MIN_SECONDS, MAX_SECONDS = 10.0, 86_400.0
"""For reading, training and testing; starting, and timing a few steps, take some of them."""

# The report is a page of its own: what is in it runs, but may fetch nothing, and knows nothing of this server
_REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts "
    "allow-popups"
}

router = APIRouter()


def _known_recipe(name: object) -> object:
    known = ["auto", *recipe_names()]
    if isinstance(name, str) and name not in known:
        raise ValueError(unknown("recipe", name[:80], known))
    return name


class TrainBody(JsonBody):
    """How to train: seconds for everything, null for as long as the recipe says; whether a running job is ended.

    With `resume`, an interrupted training goes on as it began, and nothing else counts but `replace`.
    """

    seconds: Annotated[float, Field(ge=MIN_SECONDS, le=MAX_SECONDS)] | None = DEFAULT_SECONDS
    recipe: Annotated[str, BeforeValidator(_known_recipe)] = "auto"
    replace: bool = False
    resume: bool = False


class ExportBody(JsonBody):
    """The format of an export."""

    format: Literal["onnx", "web"]


def learner_of(request: Request) -> Learner:
    """The learner of the application that received a request."""
    learner: Learner = request.app.state.learner
    return learner


# Jobs


def _accepted(job: Job) -> Response:
    return json_response(job.model_dump(), 202)


@router.post("/project/train", status_code=202)
async def train(request: Request, body: Annotated[TrainBody, Depends(json_body(TrainBody))]) -> Response:
    """Start a training, or go on with an interrupted one; with `replace`, a running job is ended first."""
    learner, storing = learner_of(request), studio_of(request).storing
    if body.replace:
        await learner.stopped()
    if body.resume:
        return _accepted(await storing.run(learner.resume))
    return _accepted(await storing.run(learner.train, body.seconds, body.recipe))


@router.post("/project/stop")
async def stop(request: Request, body: Annotated[JsonBody, Depends(json_body(JsonBody))]) -> Response:
    """Have the running job end; the model of the last finished training stays."""
    return json_response(learner_of(request).stop_job().model_dump())


@router.post("/project/export", status_code=202)
async def export(request: Request, body: Annotated[ExportBody, Depends(json_body(ExportBody))]) -> Response:
    """Start an export of the current run."""
    return _accepted(await studio_of(request).storing.run(learner_of(request).export, body.format))


@router.post("/project/audit", status_code=202)
async def audit(request: Request, body: Annotated[JsonBody, Depends(json_body(JsonBody))]) -> Response:
    """Start a search for pictures in the wrong class, and for copies."""
    return _accepted(await studio_of(request).storing.run(learner_of(request).audit))


@router.post("/project/keep")
async def keep(request: Request, body: Annotated[PicturesBody, Depends(json_body(PicturesBody))]) -> Response:
    """Remember that pictures are in the right class; the project document."""
    studio = studio_of(request)
    await studio.storing.run(studio.project.keep, body.ids)
    learner_of(request).events.changed("job")
    return json_response(await studio.storing.run(studio.document))


@router.get("/project/events")
async def events(request: Request) -> Response:
    """Server-sent events: `project` when the project document has changed, `job` with the job."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(learner_of(request).events.stream(), media_type="text/event-stream", headers=headers)


# What the current run means


@router.get("/project/summary")
async def summary(request: Request) -> Response:
    """What the newest training means, in three sentences."""
    found = await studio_of(request).storing.run(learner_of(request).summary)
    if found is None:
        raise Refused(404, "Nothing has been trained yet.")
    return json_response(found.model_dump())


@router.get("/project/report")
async def report(request: Request) -> Response:
    """The full report of the newest training."""
    content = await learner_of(request).report()
    if content is not None:
        return Response(content, media_type="text/html; charset=utf-8", headers=_REPORT_HEADERS)
    waiting = "The report is being written. Try again in a moment."
    if "text/html" not in request.headers.get("accept", ""):
        raise Refused(503, waiting, {"Retry-After": "2"})
    return Response(
        f"<!DOCTYPE html><title>Report</title><p>{waiting.partition('.')[0]}; it then appears here.",
        503, {"Refresh": "1"}, "text/html; charset=utf-8",
    )  # fmt: skip


@router.get("/project/download")
async def download(request: Request) -> Response:
    """The current model as an ONNX file."""
    run = learner_of(request).current.run
    if run is None:
        raise Refused(404, "Nothing has been trained yet.")
    name = quote(f"{run.path.name}.onnx")
    return FileResponse(
        run.path / MODEL,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


# The current model


@router.get("/model")
async def model(request: Request) -> Response:
    """The current model: class names, image shape, layers, fixes, limits."""
    learner, settings = learner_of(request), studio_of(request).settings
    async with learner.current.answering(request.app) as service:
        run = learner.current.run
        name = "model" if run is None else run.path.name
        limits = Limits(body_bytes=settings.max_body_bytes, pixels=settings.max_pixels)
        document = model_document(service.model, name, limits, collect=False)
        return json_response(document.model_dump(mode="json"))


@router.post("/predict")
async def predict(request: Request, query: Annotated[PredictQuery, Depends(parameters(PredictQuery))]) -> Response:
    """Classify one image or several."""
    async with learner_of(request).current.answering(request.app):
        return await predict_with(request, query)


@router.post("/look")
async def look(
    request: Request,
    query: Annotated[LookQuery, Depends(parameters(LookQuery))],
    image: Annotated[bytes, Depends(image_file)],
) -> Response:
    """Feature maps and occlusion for one image."""
    async with learner_of(request).current.answering(request.app):
        return await look_at(request, query, image)
