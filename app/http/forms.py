"""Request bodies with an upload or a few fields in them, read as they stream in and never faster than the disk."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import anyio
from anyio import to_thread
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.http.middleware import streams_body
from app.http.multipart import MAX_OVERHEAD_BYTES, MAX_PARTS, MultipartReceiver, ReceivedForm, file_too_large
from app.http.resources import Resources
from app.platform.errors import InvalidRequest, LimitExceeded
from app.platform.settings import MIB

BLOCK_BYTES = MIB
MAX_SMALL_BODY_BYTES = 64 * 1024
# A client that sends nothing for this long has gone, or holds a place that others need.
IDLE_SECONDS = 60.0

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
# Those that may be numbers in JSON.
NUMBER_FIELDS = frozenset({"target_fps", "priority"})
BOOLEAN_FIELDS = frozenset({"quality"})


@asynccontextmanager
async def received_form(
    request: Request, *, resources: Resources, max_file_bytes: int, text_fields: frozenset[str]
) -> AsyncIterator[ReceivedForm]:
    """The form in the request's body: multipart, or, for a few fields without a file, JSON or urlencoded.

    On exit the upload's spool file is removed unless it was moved away. Field values are text; JSON numbers arrive
    as they were written. Raises InvalidRequest for a body that cannot be understood, LimitExceeded for one that is
    too large, Unavailable when the disk is full, and ClientDisconnect when the client leaves half-way.
    """
    content_type, parameters = parse_options_header(request.headers.get("Content-Type"))
    media_type = content_type.decode("latin-1")
    if media_type == MULTIPART:
        boundary = parameters.get(b"boundary", b"")
        if not boundary:
            raise InvalidRequest("The Content-Type does not say the boundary of the multipart body.")
        async with _multipart_form(
            request,
            resources=resources,
            max_file_bytes=max_file_bytes,
            boundary=boundary,
            text_fields=text_fields,
        ) as form:
            yield form
    elif media_type == URLENCODED:
        yield _urlencoded_form(await _small_body(request), text_fields)
    elif media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        yield _json_form(await _small_body(request), text_fields)
    elif not await _small_body(request):
        yield ReceivedForm()
    else:
        raise InvalidRequest(
            f"The body must be {MULTIPART}, or {URLENCODED} or application/json when it has no file."
        )


@asynccontextmanager
async def _multipart_form(
    request: Request,
    *,
    resources: Resources,
    max_file_bytes: int,
    boundary: bytes,
    text_fields: frozenset[str],
) -> AsyncIterator[ReceivedForm]:
    if (content_length(request) or 0) > max_file_bytes + MAX_OVERHEAD_BYTES:
        raise file_too_large(max_file_bytes)
    receiver = MultipartReceiver(
        boundary=boundary,
        spool_dir=resources.settings.spool_dir,
        max_file_bytes=max_file_bytes,
        text_fields=text_fields,
    )
    try:
        # Parsing, hashing and writing are a thread's work, a block at a time: the event loop only gathers.
        async for block in body_blocks(request):
            await to_thread.run_sync(receiver.feed, block)
        yield await to_thread.run_sync(receiver.finish)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(receiver.discard)


async def body_blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about 1 MiB, the last one shorter.

    Raises InvalidRequest when nothing comes for a minute, and ClientDisconnect when the client leaves half-way.
    """
    streams_body(request)
    gathered = bytearray()
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(IDLE_SECONDS):
                chunk = await anext(stream, b"")
        except TimeoutError as error:
            raise InvalidRequest(f"Nothing of the body came for {IDLE_SECONDS:.0f} seconds.") from error
        gathered += chunk
        if gathered and (len(gathered) >= BLOCK_BYTES or not chunk):
            yield bytes(gathered)
            gathered.clear()
        if not chunk:
            return


async def _small_body(request: Request) -> bytes:
    too_large = LimitExceeded(f"A body without a file may have {MAX_SMALL_BODY_BYTES // 1024} KiB at most.")
    if (content_length(request) or 0) > MAX_SMALL_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for block in body_blocks(request):
        body += block
        if len(body) > MAX_SMALL_BODY_BYTES:
            raise too_large
    return bytes(body)


def content_length(request: Request) -> int | None:
    """What the request says of its body's size."""
    length = request.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _urlencoded_form(body: bytes, text_fields: frozenset[str]) -> ReceivedForm:
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS
        )
    except ValueError as error:
        raise InvalidRequest("The urlencoded body cannot be understood.", detail=str(error)) from error
    fields: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            faults[name] = f"`{name}` is given more than once."
        elif name in text_fields:
            fields[name] = value
    return ReceivedForm(fields=fields, faults=faults)


def _json_form(body: bytes, text_fields: frozenset[str]) -> ReceivedForm:
    try:
        # Numbers stay as they were written: 23.976 is not what a float makes of it.
        content = json.loads(
            body.decode("utf-8"), parse_float=_Number, parse_int=_Number, parse_constant=_Number
        )
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The body is not valid JSON.", detail=str(error)) from error
    if not isinstance(content, dict):
        raise InvalidRequest("The JSON body must be an object.")
    fields: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name in sorted(text_fields & content.keys()):
        _add_json_field(name, content[name], fields=fields, faults=faults)
    return ReceivedForm(fields=fields, faults=faults)


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _add_json_field(name: str, value: Any, *, fields: dict[str, str], faults: dict[str, str]) -> None:
    wanted = "number" if name in NUMBER_FIELDS else "truth value" if name in BOOLEAN_FIELDS else "text"
    if value is None:
        return
    if isinstance(value, _Number) and wanted != "number":
        faults[name] = f"`{name}` must be a {wanted}."
    elif isinstance(value, bool) and wanted == "truth value":
        fields[name] = str(value).lower()
    elif isinstance(value, str):
        fields[name] = str(value)
    else:
        faults[name] = f"`{name}` must be a {wanted}."
