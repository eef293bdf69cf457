"""Stored videos and pictures, under the signed URLs of local storage."""

import hashlib
from email.utils import format_datetime

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from app.http.byte_ranges import ByteRange, RangeNotSatisfiable, parse_range
from app.http.dependencies import ResourcesDependency
from app.http.errors import error_response
from app.platform.errors import KeyNotFound, NotFound
from app.platform.storage.contract import StoredObject, attachment
from app.platform.storage.local import URL_PREFIX, LocalStorage

router = APIRouter()


@router.api_route(URL_PREFIX + "{key:path}", methods=["GET", "HEAD"], include_in_schema=False)
def read_stored(key: str, request: Request, resources: ResourcesDependency) -> Response:
    """No API key: the signature is the permission. 404 for one that does not fit, 403 for one that has expired."""
    storage = resources.storage
    if not isinstance(storage, LocalStorage):
        raise NotFound("There is nothing at this address.")
    file_name = storage.open_signed(key, request.query_params)
    try:
        found = storage.stat(key)
        return _answer(request, storage=storage, found=found, file_name=file_name)
    except (KeyNotFound, ValueError) as error:
        raise NotFound("This file is no longer here.") from error


def _answer(request: Request, *, storage: LocalStorage, found: StoredObject, file_name: str) -> Response:
    etag = _etag(found)
    modified = format_datetime(found.modified_at.replace(microsecond=0), usegmt=True)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "Content-Disposition": attachment(file_name),
        "ETag": etag,
        "Last-Modified": modified,
        "X-Content-Type-Options": "nosniff",
    }
    if _names(request.headers.get("If-None-Match"), etag):
        return Response(status_code=304, headers=headers)
    condition = request.headers.get("If-Range")
    asked = request.headers.get("Range") if condition in (None, etag, modified) else None
    try:
        part = parse_range(asked, size_bytes=found.size_bytes)
    except RangeNotSatisfiable:
        return error_response(
            416,
            ["The file is shorter than the range that was asked for."],
            headers={"Content-Range": f"bytes */{found.size_bytes}", "Accept-Ranges": "bytes"},
        )
    if part is None:
        part, status_code = ByteRange(offset=0, length=found.size_bytes), 200
    else:
        status_code = 206
        headers["Content-Range"] = part.content_range(found.size_bytes)
    headers["Content-Length"] = str(part.length)
    if request.method == "HEAD":
        return Response(status_code=status_code, headers=headers, media_type=found.content_type)
    content = storage.read(found.key, offset=part.offset, length=part.length)
    return StreamingResponse(content, status_code=status_code, headers=headers, media_type=found.content_type)


def _etag(found: StoredObject) -> str:
    facts = f"{found.key} {found.size_bytes} {found.modified_at.isoformat()}"
    return f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'


def _names(condition: str | None, etag: str) -> bool:
    """Whether an If-None-Match names the ETag; weak comparison, as the header asks for."""
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags
