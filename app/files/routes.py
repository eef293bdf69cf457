"""Files: videos uploaded once, to be rendered as often as wanted."""

from fractions import Fraction
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.accounts.idempotency import remember
from app.files import service as file_service
from app.files.schemas import FileBody, FilesBody
from app.files.tables import File
from app.http.dependencies import PageDependency, ResourcesDependency, UserDependency
from app.http.errors import documented
from app.http.forms import received_form
from app.http.idempotency import IdempotencyDependency, make_once, once_of
from app.http.multipart import FILE_FIELD
from app.http.request_documentation import FILE_REQUEST
from app.platform.errors import InvalidRequest
from app.platform.media.rates import MIN_FPS
from app.renders.accept_video import accept_upload
from app.renders.views import file_body, file_of
from models.catalog import ENGINES

router = APIRouter()


@router.post("/v1/files", responses=documented(400, 401, 409, 413, 415, 429, 503), openapi_extra=FILE_REQUEST)
async def upload_file(
    request: Request,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    key: IdempotencyDependency,
) -> FileBody:
    """Upload a video."""
    async with received_form(
        request,
        resources=resources,
        max_file_bytes=user.allowance.max_upload_bytes,
        text_fields=frozenset(),
    ) as form:
        if form.upload is None:
            raise InvalidRequest(f"`{FILE_FIELD}` is required, as a part of a multipart/form-data body.")
        upload, once = form.upload, once_of(key, request, user, form)

        def written_down(session: Session, file: File) -> FileBody:
            remember(session, once, made_id=file.id)
            return file_body(file)

        body, _is_new = await make_once(
            once,
            response,
            resources,
            make=lambda: accept_upload(
                upload,
                user=user,
                resources=resources,
                # What the least demanding render of it would be: a file that has none is refused here and now.
                scale=min(engine.scale for engine in ENGINES.values()),
                target_fps=Fraction(MIN_FPS),
                then=written_down,
            ),
            show=lambda session, made_id: file_body(
                file_service.find_file(session, file_id=made_id, user_id=user.id)
            ),
        )
        return body


@router.get("/v1/files", response_model_exclude_none=True, responses=documented(400, 401, 429, 503))
def list_files(user: UserDependency, resources: ResourcesDependency, page: PageDependency) -> FilesBody:
    """Your files, the newest first."""
    with resources.database.read() as session:
        rows, cursor = file_service.list_files(session, user_id=user.id, limit=page.limit, cursor=page.cursor)
        return FilesBody(files=[file_of(file) for file in rows], next_cursor=cursor)


@router.get("/v1/files/{file_id}", responses=documented(401, 404, 429, 503))
def get_file(file_id: str, user: UserDependency, resources: ResourcesDependency) -> FileBody:
    """A file of yours."""
    with resources.database.read() as session:
        return file_body(file_service.find_file(session, file_id=file_id, user_id=user.id))


@router.delete(
    "/v1/files/{file_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(401, 404, 409, 429, 503),
)
def delete_file(file_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Remove a file of yours that no unfinished render needs. The results of its renders stay."""
    file_service.delete_file(resources.database, resources.storage, file_id=file_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
