"""Uploads in parts: large videos, sent in parts that may be repeated, which become files."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import Query, Request, Response

from app.files.schemas import FileBody, VideoFile
from app.http.dependencies import (
    IdempotencyDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.forms import body_blocks, content_length
from app.http.multipart import file_too_large
from app.http.openapi import LOCATION
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.platform import clock
from app.platform.errors import InvalidRequest, NotFound
from app.platform.file_names import safe_name
from app.platform.storage.local import LocalStorage
from app.platform.storage.local_files import PARTS_URL_PREFIX, sent_once_more, wrong_size
from app.uploads import queries as upload_queries
from app.uploads import schemas
from app.uploads import service as uploads
from app.uploads.complete_upload import complete
from app.uploads.service import MOST_PARTS, UploadStatus
from app.uploads.tables import Upload

router = BodyRouter(tags=["uploads"])

# Each signature takes some time.
MOST_URLS = 1000


@router.post("/v1/uploads", responses={200: LOCATION, **documented(409, 413)})
def open_upload(
    asked: schemas.UploadRequest,
    request: Request,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
) -> schemas.UploadBody:
    """Open an upload in parts. The answer has the parts' URLs; send the parts, then complete the upload."""
    if asked.size_bytes > user.allowance.max_upload_bytes:
        raise file_too_large(user.allowance.max_upload_bytes)
    warnings = asked.warnings(request)
    idempotent.content.append(asked.model_dump(mode="json"))
    upload = uploads.open_upload(
        name=safe_name(asked.name),
        size_bytes=asked.size_bytes,
        part_size_bytes=asked.part_size_bytes,
        requester=user,
        settings=resources.settings,
        storage=resources.storage,
        database=resources.database,
        idempotent=idempotent,
    )
    response.headers["Location"] = f"{base_url}/v1/uploads/{upload.id}"
    parts = None
    # A repeated request may find that it has ended.
    if uploads.status_of(upload) is UploadStatus.OPEN:
        parts = uploads.parts_to_send(
            upload, after=0, limit=MOST_URLS, storage=resources.storage, base_url=base_url
        )
    return schemas.UploadBody(upload=schemas.Upload.of(upload, parts=parts, warnings=warnings))


@router.get("/v1/uploads")
def list_uploads(
    user: UserDependency, resources: ResourcesDependency, page: PageDependency
) -> schemas.UploadsBody:
    """Your open uploads, the newest first."""
    with resources.database.read() as session:
        found = upload_queries.list_open(
            session, user_id=user.id, moment=clock.now(), limit=page.limit, cursor=page.cursor
        )
    return schemas.UploadsBody(
        uploads=[schemas.Upload.of(row) for row in found.rows], next_cursor=found.cursor
    )


@router.get("/v1/uploads/{upload_id}", responses=documented(404))
def get_upload(upload_id: str, user: UserDependency, resources: ResourcesDependency) -> schemas.UploadBody:
    """An upload of yours, with the received parts: send those that are missing (again)."""
    upload = _found(upload_id, user.id, resources)
    received = None
    if uploads.status_of(upload) is UploadStatus.OPEN:
        received = uploads.received_parts(upload, resources.storage)
    return schemas.UploadBody(upload=schemas.Upload.of(upload, received_parts=received))


@router.get("/v1/uploads/{upload_id}/parts", responses=documented(404, 409))
def list_upload_parts(
    upload_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    after: Annotated[int, Query(ge=0, le=MOST_PARTS, description="The number of the previous part.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_URLS, description="How many, at most.")] = MOST_URLS,
) -> schemas.PartsBody:
    """Fresh URLs for the parts of an open upload of yours."""
    upload = _found(upload_id, user.id, resources)
    uploads.require_open(upload)
    parts = uploads.parts_to_send(
        upload, after=after, limit=limit, storage=resources.storage, base_url=base_url
    )
    has_more = bool(parts) and parts[-1].number < uploads.part_count(upload)
    return schemas.PartsBody(
        parts=[schemas.PartToSend.model_validate(part) for part in parts],
        next_after=parts[-1].number if has_more else None,
    )


@router.post("/v1/uploads/{upload_id}/complete", responses=documented(404, 409, 413, 415))
async def complete_upload(
    upload_id: str,
    asked: schemas.CompletionRequest,
    request: Request,
    user: UserDependency,
    resources: ResourcesDependency,
) -> FileBody:
    """Make the file from the received parts.

    A repeated request gets the same answer. If parts are missing or differ from the request, the upload stays
    open. If the assembled file is not a video, or over a limit, the upload ends.
    """
    given = {part.number: part.etag for part in asked.parts}
    if len(given) < len(asked.parts):
        raise InvalidRequest("`parts` names a part more than once.")
    warnings = asked.warnings(request)
    file = await complete(upload_id, given, user=user, resources=resources)
    return FileBody(file=VideoFile.of(file, warnings=warnings))


@router.delete(
    "/v1/uploads/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(404, 409),
)
def abort_upload(upload_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Abort an upload of yours that is not completed, and remove its parts."""
    uploads.abort_upload(resources.database, resources.storage, upload_id=upload_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.put(PARTS_URL_PREFIX + "{multipart_id}/{number}", include_in_schema=False)
async def put_part(
    multipart_id: str, number: str, request: Request, resources: ResourcesDependency
) -> Response:
    """No API key: the signature is the permission. 404 if it does not match, 403 if it has expired, 409 if
    the part is sent again in the meantime.
    """
    storage = resources.storage
    if not isinstance(storage, LocalStorage):
        raise NotFound("There is nothing at this address.")
    part = storage.open_signed_part(multipart_id, number, request.query_params)
    if content_length(request) not in (None, part.size_bytes):
        raise wrong_size(part.size_bytes)
    with resources.part_writers.alone((part.multipart_id, part.number), otherwise=sent_once_more):
        reserve = partial(resources.spool_space.reserve, part.size_bytes)
        room = await to_thread.run_sync(reserve)
        try:
            receiver = await to_thread.run_sync(storage.receive_part, part)
            try:
                async for block in body_blocks(request):
                    await to_thread.run_sync(room.pass_on, block, receiver)
                received = await to_thread.run_sync(receiver.finish)
            finally:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(receiver.discard)
        finally:
            room.release()
    return Response(headers={"ETag": f'"{received.etag}"'})


def _found(upload_id: str, user_id: str, resources: Resources) -> Upload:
    with resources.database.read() as session:
        return uploads.find_upload(session, upload_id=upload_id, user_id=user_id)
