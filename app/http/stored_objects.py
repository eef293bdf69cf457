"""Stored videos and pictures, under the signed URLs of local storage."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.http.dependencies import ResourcesDependency
from app.http.file_response import ConditionalFileResponse
from app.platform.errors import KeyNotFound, NotFound
from app.platform.storage.contract import attachment
from app.platform.storage.local import URL_PREFIX, LocalStorage

router = APIRouter()


@router.get(URL_PREFIX + "{key:path}", include_in_schema=False)
def read_stored(key: str, request: Request, resources: ResourcesDependency) -> Response:
    """No API key: the signature is the permission. 404 if it does not match, 403 if it has expired."""
    storage = resources.storage
    if not isinstance(storage, LocalStorage):
        raise NotFound("There is nothing at this address.")
    file_name = storage.open_signed(key, request.query_params)
    try:
        path, facts, content_type = storage.locate(key)
    except (KeyNotFound, ValueError) as error:
        raise NotFound("This file is no longer here.") from error
    headers = {
        "Cache-Control": "private",
        "Content-Disposition": attachment(file_name),
        "X-Content-Type-Options": "nosniff",
    }
    return ConditionalFileResponse(path, stat_result=facts, media_type=content_type, headers=headers)
