"""Uploads in parts: large videos that are sent piece by piece, each as often as need be, and become files."""

from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from app.accounts.idempotency import remember
from app.files.schemas import FileBody
from app.http.dependencies import PageDependency, PublicUrlDependency, ResourcesDependency, UserDependency
from app.http.errors import documented
from app.http.idempotency import IdempotencyDependency, make_once, once_of
from app.http.multipart import file_too_large
from app.http.openapi import LOCATION
from app.http.resources import Resources
from app.platform.errors import InvalidRequest
from app.platform.file_names import safe_name
from app.renders.views import file_body
from app.uploads import schemas
from app.uploads import service as uploads
from app.uploads.complete_upload import complete
from app.uploads.service import MOST_PARTS, UploadStatus
from app.uploads.tables import Upload

router = APIRouter()

# Signing takes a while each.
MOST_URLS = 1000


@router.post(
    "/v1/uploads",
    response_model_exclude_none=True,
    responses={200: LOCATION, **documented(400, 401, 409, 413, 429, 503)},
)
async def open_upload(
    request: Request,
    response: Response,
    asked: schemas.UploadRequest,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    key: IdempotencyDependency,
) -> schemas.UploadBody:
    """Open an upload in parts. Its answer says where to send them; then complete it."""
    if asked.size_bytes > user.allowance.max_upload_bytes:
        raise file_too_large(user.allowance.max_upload_bytes)
    once = once_of(key, request, user, body=asked)

    def written_down(session: Session, upload: Upload) -> Upload:
        remember(session, once, made_id=upload.id)
        return upload

    def make() -> Upload:
        return uploads.open_upload(
            name=safe_name(asked.name),
            size_bytes=asked.size_bytes,
            part_size_bytes=asked.part_size_bytes,
            user_id=user.id,
            api_key_id=user.key_id,
            allowance=user.allowance,
            settings=resources.settings,
            storage=resources.storage,
            database=resources.database,
            then=written_down,
        )

    upload, _is_new = await make_once(
        once,
        response,
        resources,
        make=lambda: to_thread.run_sync(make),
        show=lambda session, made_id: uploads.find_upload(session, upload_id=made_id, user_id=user.id),
    )
    response.headers["Location"] = f"{base_url}/v1/uploads/{upload.id}"
    return await to_thread.run_sync(lambda: _opened(upload, resources, base_url))


@router.get("/v1/uploads", response_model_exclude_none=True, responses=documented(400, 401, 429, 503))
def list_uploads(
    user: UserDependency, resources: ResourcesDependency, page: PageDependency
) -> schemas.UploadsBody:
    """Your open uploads, the newest first."""
    with resources.database.read() as session:
        rows, cursor = uploads.list_uploads(session, user_id=user.id, limit=page.limit, cursor=page.cursor)
    return schemas.UploadsBody(uploads=[_shown(upload) for upload in rows], next_cursor=cursor)


@router.get(
    "/v1/uploads/{upload_id}", response_model_exclude_none=True, responses=documented(401, 404, 429, 503)
)
def get_upload(upload_id: str, user: UserDependency, resources: ResourcesDependency) -> schemas.UploadBody:
    """An upload of yours, with the parts that have come in: what is not among them is to be sent (again)."""
    upload = _found(upload_id, user.id, resources)
    if uploads.status_of(upload) is not UploadStatus.OPEN:
        return schemas.UploadBody(upload=_shown(upload))
    received = [
        schemas.ReceivedPart(number=part.number, etag=part.etag, size_bytes=part.size_bytes)
        for part in uploads.received_parts(upload, resources.storage)
    ]
    return schemas.UploadBody(upload=_shown(upload, received_parts=received))


@router.get(
    "/v1/uploads/{upload_id}/parts",
    response_model_exclude_none=True,
    responses=documented(400, 401, 404, 409, 429, 503),
)
def list_upload_parts(
    upload_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    after: Annotated[int, Query(ge=0, le=MOST_PARTS, description="The number of the part before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_URLS, description="How many, at most.")] = MOST_URLS,
) -> schemas.PartsBody:
    """Where to send the parts of an open upload of yours, with fresh URLs."""
    upload = _found(upload_id, user.id, resources)
    uploads.require_open(upload)
    parts = _parts(upload, resources, base_url, after=after, limit=limit)
    has_more = bool(parts) and parts[-1].number < uploads.part_count(upload)
    return schemas.PartsBody(parts=parts, next_after=parts[-1].number if has_more else None)


@router.post(
    "/v1/uploads/{upload_id}/complete",
    response_model_exclude_none=True,
    responses=documented(400, 401, 404, 409, 413, 415, 429, 503),
)
async def complete_upload(
    upload_id: str, asked: schemas.CompletionRequest, user: UserDependency, resources: ResourcesDependency
) -> FileBody:
    """Make the file of the parts that were sent. Asked again, it answers the same.

    When parts are missing or are not as named, the upload stays open. When the whole is no video, or over a limit, the
    upload ends.
    """
    given = {part.number: part.etag for part in asked.parts}
    if len(given) < len(asked.parts):
        raise InvalidRequest("`parts` names a part more than once.")
    return file_body(await complete(upload_id, given, user=user, resources=resources))


@router.delete(
    "/v1/uploads/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(401, 404, 409, 429, 503),
)
def abort_upload(upload_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """End an upload of yours that is not completed, and remove what came in of it."""
    uploads.abort_upload(resources.database, resources.storage, upload_id=upload_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _found(upload_id: str, user_id: str, resources: Resources) -> Upload:
    with resources.database.read() as session:
        return uploads.find_upload(session, upload_id=upload_id, user_id=user_id)


def _opened(upload: Upload, resources: Resources, base_url: str) -> schemas.UploadBody:
    """With the first URLs, while it is open: a request that is sent again may find it over."""
    if uploads.status_of(upload) is not UploadStatus.OPEN:
        return schemas.UploadBody(upload=_shown(upload))
    parts = _parts(upload, resources, base_url, after=0, limit=MOST_URLS)
    return schemas.UploadBody(upload=_shown(upload, parts=parts))


def _parts(
    upload: Upload, resources: Resources, base_url: str, *, after: int, limit: int
) -> list[schemas.PartToSend]:
    return [
        schemas.PartToSend(number=part.number, url=part.url, size_bytes=part.size_bytes)
        for part in uploads.parts_to_send(
            upload, after=after, limit=limit, storage=resources.storage, base_url=base_url
        )
    ]


def _shown(
    upload: Upload,
    *,
    parts: list[schemas.PartToSend] | None = None,
    received_parts: list[schemas.ReceivedPart] | None = None,
) -> schemas.Upload:
    status = uploads.status_of(upload)
    return schemas.Upload(
        id=upload.id,
        status=status,
        name=upload.name,
        size_bytes=upload.size_bytes,
        part_size_bytes=upload.part_size_bytes,
        part_count=uploads.part_count(upload),
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        file_id=upload.file_id if status is UploadStatus.COMPLETED else None,
        parts=parts,
        received_parts=received_parts,
    )
