"""Files: videos uploaded once, to be rendered as often as you like."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import Query, Request, Response

from app.accounts.idempotency import IdempotentRequest
from app.files import queries as file_queries
from app.files import service as file_service
from app.files.accept_video import accept_new_video
from app.files.moments import LONGEST_SECONDS, exact_moment, moment_faults
from app.files.schemas import Contents, ContentsBody, FileBody, FileForm, FilesBody, UploadForm, VideoFile
from app.files.stills import make_still, still_runner
from app.files.tables import File
from app.http.access import CurrentUser
from app.http.dependencies import (
    IdempotencyDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.forms import form_description, received_form
from app.http.multipart import FILE_FIELD
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.http.shared_slots import ClientConnection
from app.platform.errors import InvalidRequest
from app.platform.media.ffmpeg import FfmpegRunner

router = BodyRouter(tags=["files"])

STILL_TYPE = "image/jpeg"
# A file's frames never change.
STILL_KEPT = "private, max-age=86400, immutable"


@router.post(
    "/v1/files",
    responses=documented(409, 413, 415),
    openapi_extra=form_description(UploadForm, example={FILE_FIELD: "the bytes of clip.mp4"}),
)
async def upload_file(
    request: Request, user: UserDependency, resources: ResourcesDependency, idempotent: IdempotencyDependency
) -> FileBody:
    """Upload a video.

    If the server's operator allows it, a JSON body `{"file_url": "https://..."}` names one for the server to fetch.
    """
    async with received_form(request, FileForm, user=user, resources=resources) as form:
        asked = FileForm.read(form, resources.settings)
        idempotent.content += form.content
        file = await to_thread.run_sync(file_service.find_made_file, resources.database, idempotent)
        if file is None:
            file = await _make_file(request, asked, user=user, resources=resources, idempotent=idempotent)
    return FileBody(file=VideoFile.of(file, warnings=form.warnings))


async def _make_file(
    request: Request,
    asked: FileForm,
    *,
    user: CurrentUser,
    resources: Resources,
    idempotent: IdempotentRequest,
) -> File:
    async with accept_new_video(
        asked.file,
        asked.file_url,
        connection=ClientConnection(request=request),
        user=user,
        resources=resources,
        idempotent=idempotent,
    ) as (upload, info):
        create = partial(
            file_service.create_file,
            upload,
            info=info,
            requester=user,
            storage=resources.storage,
            database=resources.database,
            idempotent=idempotent,
        )
        return await to_thread.run_sync(create)


@router.get("/v1/files")
def list_files(user: UserDependency, resources: ResourcesDependency, page: PageDependency) -> FilesBody:
    """Your files, the newest first."""
    with resources.database.read() as session:
        found = file_queries.list_files(session, user_id=user.id, limit=page.limit, cursor=page.cursor)
    return FilesBody(files=[VideoFile.of(row) for row in found.rows], next_cursor=found.cursor)


@router.get("/v1/files/{file_id}", responses=documented(404))
def get_file(file_id: str, user: UserDependency, resources: ResourcesDependency) -> FileBody:
    """A file of yours."""
    with resources.database.read() as session:
        file = file_service.find_file(session, file_id=file_id, user_id=user.id)
    return FileBody(file=VideoFile.of(file))


@router.get("/v1/files/{file_id}/contents", responses=documented(404))
def get_contents(
    file_id: str, user: UserDependency, resources: ResourcesDependency, base_url: PublicUrlDependency
) -> ContentsBody:
    """What is in a file of yours: its codec, pixel format, brightness curve and sound, and where to read it."""
    with resources.database.read() as session:
        file = file_service.find_file(session, file_id=file_id, user_id=user.id)
    return ContentsBody(contents=Contents.of(file, resources=resources, base_url=base_url))


@router.get(
    "/v1/files/{file_id}/frame",
    response_class=Response,
    responses={
        200: {
            "description": "The frame, at most 960 pixels a side.",
            "content": {STILL_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(404, 413),
    },
)
async def get_frame(
    file_id: str,
    request: Request,
    user: UserDependency,
    resources: ResourcesDependency,
    at_seconds: Annotated[
        float,
        Query(
            ge=0,
            le=LONGEST_SECONDS,
            allow_inf_nan=False,
            description="The moment, counted from the video's first frame. The frame is the last one that begins by "
            "then; of AVI and MPEG program streams it may be a neighbour.",
        ),
    ] = 0.0,
) -> Response:
    """One frame of a file of yours as a small JPEG, to look for a moment in a video that a browser cannot play.

    A request that is closed before its answer ends its work. Ask for a preview to see a frame as a render does.
    """
    runner = still_runner(resources.runner)
    work = partial(_still, file_id, at_seconds, user=user, resources=resources, runner=runner)
    async with resources.still_slots.slot(user.id):
        connection = ClientConnection(request=request)
        picture = await connection.run(work, stop=runner.stop, threads=resources.still_slots.threads)
    return Response(picture, media_type=STILL_TYPE, headers={"Cache-Control": STILL_KEPT})


def _still(
    file_id: str, at_seconds: float, *, user: CurrentUser, resources: Resources, runner: FfmpegRunner
) -> bytes:
    with resources.database.read() as session:
        file = file_service.find_file(session, file_id=file_id, user_id=user.id)
    moment = exact_moment(at_seconds)
    if faults := moment_faults(file, moment):
        raise InvalidRequest(*faults)
    with resources.local_copies.of(file.storage_key, size_bytes=file.size_bytes) as copy:
        return make_still(runner, copy, file, moment)


@router.delete(
    "/v1/files/{file_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(404, 409),
)
def delete_file(file_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Delete a file of yours that no unfinished render needs. The results of its renders stay."""
    file_service.delete_file(resources.database, resources.storage, file_id=file_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
