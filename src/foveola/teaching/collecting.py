"""Routes of classes, pictures and thumbnails."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import to_json

from foveola.serving.bodies import image_file, media_type, wrong_type
from foveola.serving.refusals import Refused, described
from foveola.serving.schemas import QueryModel
from foveola.serving.service import parameters
from foveola.teaching.copies import Fingerprint, fingerprint
from foveola.teaching.listing import Picture
from foveola.teaching.pictures import Arrival, Size, receive
from foveola.teaching.project import MAX_PICTURES
from foveola.teaching.studio import Studio, studio_of
from foveola.text import escape_all_surrogates

MAX_LISTED = 1_000
"""Pictures that are listed at once."""

_MAX_JSON_BYTES = 2**20
_THUMBNAIL_SECONDS = 3600  # for which a browser shows its copy without asking

Identifier = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Body = TypeVar("Body", bound=BaseModel)

router = APIRouter()


# What requests say


class ListQuery(QueryModel):
    """Query parameters of GET /project/pictures."""

    name: Annotated[Name, Field(alias="class")]
    start: Annotated[int, Field(alias="from", ge=0, le=10**9)] = 0
    count: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 200


class ThumbnailQuery(QueryModel):
    """Query parameters of GET /project/thumbnail."""

    id: Identifier
    size: Size = "small"


class AddQuery(QueryModel):
    """Query parameters of POST /project/pictures."""

    name: Annotated[Name, Field(alias="class")]
    recording: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class JsonBody(BaseModel):
    """The base of JSON bodies."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassBody(JsonBody):
    """The name of a class."""

    name: Name


class RenameBody(JsonBody):
    """The names of a class before and after."""

    name: Name
    to: Name


class PicturesBody(JsonBody):
    """Ids of pictures."""

    ids: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=MAX_PICTURES)]


class MoveBody(PicturesBody):
    """Ids of pictures, and the class to which they go."""

    to: Name


def json_body(model: type[Body]) -> Callable[[Request], Coroutine[Any, Any, Body]]:
    """A dependency: the JSON body of a request, as a model of it."""

    async def of_request(request: Request) -> Body:
        if media_type(request) != "application/json":
            raise wrong_type(media_type(request), "application/json")
        content = await request.body()
        if len(content) > _MAX_JSON_BYTES:
            raise Refused(413, f"The JSON is too long: at most {_MAX_JSON_BYTES:,} bytes are accepted here.")
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise Refused(422, described(error.errors())) from None

    return of_request


def json_response(document: Any, status: int = 200) -> Response:
    """A document as JSON."""
    return Response(to_json(escape_all_surrogates(document)), status, media_type="application/json")


# The project and its classes


@router.get("/project")
async def project(request: Request) -> Response:
    """The project: classes, numbers of pictures, the last change, job, model; also what others have changed since."""
    studio = studio_of(request)
    await studio.storing.run(studio.project.refresh)
    return json_response(await studio.storing.run(studio.document))


async def _changed(request: Request, change: Callable[..., object], *arguments: object) -> Response:
    """Make a change; the project document."""
    studio = studio_of(request)
    await studio.storing.run(change, *arguments)
    return json_response(await studio.storing.run(studio.document))


@router.post("/project/classes")
async def add_class(request: Request, body: Annotated[ClassBody, Depends(json_body(ClassBody))]) -> Response:
    """Make a class."""
    return await _changed(request, studio_of(request).project.add_class, body.name)


@router.post("/project/classes/rename")
async def rename_class(request: Request, body: Annotated[RenameBody, Depends(json_body(RenameBody))]) -> Response:
    """Rename a class."""
    return await _changed(request, studio_of(request).project.rename_class, body.name, body.to)


@router.post("/project/classes/delete")
async def delete_class(request: Request, body: Annotated[ClassBody, Depends(json_body(ClassBody))]) -> Response:
    """Move a class with its pictures into the bin."""
    return await _changed(request, studio_of(request).project.delete_class, body.name)


@router.post("/project/undo")
async def undo(request: Request, body: Annotated[JsonBody, Depends(json_body(JsonBody))]) -> Response:
    """Undo the last change."""
    return await _changed(request, studio_of(request).project.undo)


@router.post("/project/bin/empty")
async def empty_bin(request: Request, body: Annotated[JsonBody, Depends(json_body(JsonBody))]) -> Response:
    """Delete what is in the bin for good."""
    return await _changed(request, studio_of(request).project.empty_bin)


# Pictures


@router.get("/project/pictures")
async def pictures(request: Request, query: Annotated[ListQuery, Depends(parameters(ListQuery))]) -> Response:
    """Some pictures of a class, oldest first."""
    return json_response(await studio_of(request).storing.run(_listed, studio_of(request), query))


def _listed(studio: Studio, query: ListQuery) -> dict[str, Any]:
    found = studio.project.pictures(query.name)
    some = found[query.start : query.start + query.count]
    listed = [{"id": one.id, "near": _identifier(studio.copies.near(one)), "recording": one.recording} for one in some]
    return {"total": len(found), "pictures": listed}


@router.post("/project/pictures", status_code=201)
async def add_picture(
    request: Request,
    query: Annotated[AddQuery, Depends(parameters(AddQuery))],
    image: Annotated[bytes, Depends(image_file)],
) -> Response:
    """Add a picture; when this is answered with 201, it is on the disk."""
    studio = studio_of(request)
    arrival = await studio.decoding.run(_examine, studio, image)
    status, document = await studio.storing.run(_add, studio, query, arrival)
    return json_response(document, status)


@dataclass(frozen=True)
class _Examined:
    arrival: Arrival
    fingerprint: Fingerprint
    findings: tuple[str, ...]


def _examine(studio: Studio, image: bytes) -> _Examined:
    arrival = receive(image, studio.settings.max_pixels)
    findings = (*arrival.notes, *studio.doctor.findings(arrival.pixels))
    return _Examined(arrival, fingerprint(arrival.pixels), findings)


def _add(studio: Studio, query: AddQuery, examined: _Examined) -> tuple[int, dict[str, Any]]:
    """Add a picture, unless there is one with the same pixels; status and document of the response."""
    project, arrival = studio.project, examined.arrival
    with project.lock:  # so that of two equal pictures that arrive together one is taken
        same = studio.copies.same(examined.fingerprint)
        if same is not None:
            return 200, {"copy": {"class": same.class_name, "id": same.id}}
        picture = project.add(query.name, arrival.content, arrival.suffix, query.recording)
        near = studio.copies.add(picture, examined.fingerprint)
        count = len(project.pictures(query.name))
    return 201, {"id": picture.id, "count": count, "near": _identifier(near), "findings": list(examined.findings)}


def _identifier(picture: Picture | None) -> str | None:
    return None if picture is None else picture.id


@router.post("/project/pictures/move")
async def move_pictures(request: Request, body: Annotated[MoveBody, Depends(json_body(MoveBody))]) -> Response:
    """Move pictures to another class, all or none."""
    return await _changed(request, studio_of(request).project.move, body.ids, body.to)


@router.post("/project/pictures/delete")
async def delete_pictures(
    request: Request, body: Annotated[PicturesBody, Depends(json_body(PicturesBody))]
) -> Response:
    """Move pictures into the bin, all or none."""
    return await _changed(request, studio_of(request).project.delete, body.ids)


@router.get("/project/thumbnail")
async def thumbnail(
    request: Request, query: Annotated[ThumbnailQuery, Depends(parameters(ThumbnailQuery))]
) -> Response:
    """A small copy of a picture, as JPEG."""
    studio = studio_of(request)
    picture = studio.project.picture(query.id)
    if picture is None:
        raise Refused(404, "The image is not there any more.")
    tag = f'"{picture.key}-{query.size}"'
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={_THUMBNAIL_SECONDS}"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = await studio.thumbnailing.run(studio.thumbnails.read, picture, query.size)
    return Response(content, headers=headers, media_type="image/jpeg")
