"""Parts of uploads, under the signed URLs of local storage."""

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.http.dependencies import ResourcesDependency
from app.http.forms import body_blocks, content_length
from app.platform.errors import NotFound
from app.platform.storage.local import LocalStorage
from app.platform.storage.local_files import PARTS_URL_PREFIX, wrong_size

router = APIRouter()


@router.put(PARTS_URL_PREFIX + "{multipart_id}/{number}", include_in_schema=False)
async def put_part(
    multipart_id: str, number: str, request: Request, resources: ResourcesDependency
) -> Response:
    """No API key: the signature is the permission. 404 for one that does not fit, 403 for one that has expired."""
    storage = resources.storage
    if not isinstance(storage, LocalStorage):
        raise NotFound("There is nothing at this address.")
    part = storage.open_signed_part(multipart_id, number, request.query_params)
    if content_length(request) not in (None, part.size_bytes):
        raise wrong_size(part.size_bytes)
    receiver = await to_thread.run_sync(storage.receive_part, part)
    try:
        async for block in body_blocks(request):
            await to_thread.run_sync(receiver.feed, block)
        received = await to_thread.run_sync(receiver.finish)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(receiver.discard)
    return Response(headers={"ETag": f'"{received.etag}"'})
