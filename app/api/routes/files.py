"""Files: videos uploaded once, to be rendered as often as wanted."""

from fractions import Fraction

from fastapi import APIRouter, Request

from app.api.dependencies import ResourcesDependency, UserDependency
from app.api.errors import documented
from app.api.intake import accept_upload
from app.api.multipart import FILE_FIELD
from app.api.request_documentation import FILE_REQUEST
from app.api.schemas import FileBody
from app.api.uploads import received_form
from app.api.views import file_body
from app.core.errors import InvalidRequest
from app.core.media.rates import MIN_FPS
from app.core.services.uploads import find_file
from models.catalog import ENGINES

router = APIRouter()


@router.post("/v1/files", responses=documented(400, 401, 413, 415, 429, 503), openapi_extra=FILE_REQUEST)
async def upload_file(request: Request, user: UserDependency, resources: ResourcesDependency) -> FileBody:
    """Upload a video."""
    async with received_form(request, resources=resources, text_fields=frozenset()) as form:
        if form.upload is None:
            raise InvalidRequest(f"`{FILE_FIELD}` is required, as a part of a multipart/form-data body.")
        return await accept_upload(
            form.upload,
            user=user,
            resources=resources,
            # What the least demanding render of it would be: a file that has none is refused here and now.
            scale=min(engine.scale for engine in ENGINES.values()),
            target_fps=Fraction(MIN_FPS),
            then=lambda _session, file: file_body(file),
        )


@router.get("/v1/files/{file_id}", responses=documented(401, 404, 429, 503))
def get_file(file_id: str, user: UserDependency, resources: ResourcesDependency) -> FileBody:
    """A file of yours."""
    with resources.database.read() as session:
        return file_body(find_file(session, file_id=file_id, user_id=user.id))
