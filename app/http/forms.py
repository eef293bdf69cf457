"""Request bodies with an upload or a few fields, read as they arrive and never faster than the disk.

The fields of a form are those of a pydantic model; the one named `file` is the upload. The form's OpenAPI
description comes from the same model.
"""

import json
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import anyio
from anyio import to_thread
from pydantic import BaseModel, InstanceOf, ValidationError, WithJsonSchema
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.files.service import SpooledUpload
from app.http.access import CurrentUser
from app.http.dependencies import IDEMPOTENCY_KEY
from app.http.fields import MOST_TOLD, ignored_names, is_empty, nearest_name, shown_name, unknown_name
from app.http.middleware import streams_body
from app.http.multipart import (
    FILE_FIELD,
    MAX_PARTS,
    MultipartReceiver,
    ReceivedForm,
    file_too_large,
    not_a_file,
)
from app.http.resources import Resources
from app.http.spool_space import FORM_BYTES, UploadRoom
from app.platform.byte_sizes import MIB
from app.platform.errors import InvalidRequest, LimitExceeded
from app.platform.quoting import Verbatim, quoted, received

BLOCK_BYTES = MIB
MAX_SMALL_BODY_BYTES = 64 * 1024

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
JSON = "application/json"

TRUTH_VALUE = "truth value"
# In a form, its JSON.
OBJECT = "JSON object"
# Longest JSON number in a message: Python reads only some thousands of digits.
LONGEST_NUMBER = 100

# The type of the field `file`.
FormUpload = Annotated[
    InstanceOf[SpooledUpload],
    WithJsonSchema({"type": "string", "format": "binary", "description": "The video, in a multipart body."}),
]
Model = TypeVar("Model", bound=BaseModel)


@asynccontextmanager
async def received_form(
    request: Request,
    model: type[BaseModel],
    *,
    user: CurrentUser,
    resources: Resources,
    is_kept: bool = True,
) -> AsyncIterator[ReceivedForm]:
    """The fields of `model` in the request's body: multipart, or, for a few fields without a file, JSON or urlencoded.

    On exit the upload's spool file is removed unless it was moved away. Field values are text; JSON numbers keep
    their written form. Empty fields count as absent; `warnings` names unknown ones. Raises InvalidRequest for a body
    that cannot be parsed, LimitExceeded for one that is too large or exceeds the user's storage, Unavailable when the
    disk is full, and ClientDisconnect when the client disconnects. `is_kept`: whether the upload becomes a file.
    """
    fields = _text_fields(model)
    repeated = IDEMPOTENCY_KEY in request.headers
    upload_room = UploadRoom(
        requester=user,
        space=resources.spool_space,
        database=resources.database,
        is_kept=is_kept,
        may_be_repeated=repeated,
    )
    async with _form_as_sent(request, fields, upload_room) as form:
        known = (FILE_FIELD, *fields)
        in_query = [name for name in request.query_params if name in known]
        warnings = ignored_names(request, form.unknown, known)
        if in_query:
            listed = ", ".join(f"`{name}`" for name in in_query)
            warnings.append(f"{listed} in the address's query was ignored: fields belong in the body.")
        given = {name: _plain_text(text) for name, text in form.fields.items()}
        yield replace(
            form,
            fields={name: text for name, text in given.items() if not is_empty(text)},
            warnings=warnings,
            hints=[*_hints(form, known)],
        )


def _plain_text(text: str) -> str:
    """The value without the line end of its source file and the quotes of a JSON part."""
    text = text.strip("\r\n")
    if text.startswith('"'):
        with suppress(ValueError):
            value = json.loads(text)
            return value if isinstance(value, str) else text
    return text


def _hints(form: ReceivedForm, known: Collection[str]) -> Iterator[str]:
    """Hints about unknown names that may explain the faults of a request."""
    for name, is_file in islice(form.unknown.items(), MOST_TOLD):
        if is_file and form.upload is None:
            yield f"{shown_name(name)} contains a file; its field must be called `{FILE_FIELD}`."
        elif nearest_name(name, known):
            yield unknown_name(name, known)


@asynccontextmanager
async def _form_as_sent(
    request: Request, fields: Mapping[str, str], upload_room: UploadRoom
) -> AsyncIterator[ReceivedForm]:
    content_type, parameters = parse_options_header(request.headers.get("Content-Type"))
    media_type = content_type.decode("latin-1")
    if media_type == MULTIPART:
        boundary = parameters.get(b"boundary", b"")
        if not boundary:
            raise InvalidRequest(
                "The Content-Type does not state the boundary of the multipart body: let the HTTP library set it."
            )
        async with _multipart_form(
            request, upload_room, boundary=boundary, text_fields=frozenset(fields)
        ) as form:
            yield form
    elif media_type == URLENCODED:
        yield _urlencoded_form(await _small_body(request), fields)
    elif media_type == JSON or (media_type.startswith("application/") and media_type.endswith("+json")):
        yield _json_form(await _small_body(request), fields)
    elif not (body := await _small_body(request)):
        yield ReceivedForm()
    else:
        _require_no_json(body, media_type)
        raise InvalidRequest(f"The body must be {MULTIPART}, or {URLENCODED} or {JSON} when it has no file.")


def parse_form(
    model: type[Model],
    form: ReceivedForm,
    *,
    faults: Iterable[str] = (),
    context: Mapping[str, Any] | None = None,
) -> Model:
    """The form's fields. Raises InvalidRequest with one message per fault: the form's, the given ones, the fields'.

    `context` is that of pydantic's validation.
    """
    sentences = [*form.faults.values(), *faults]
    try:
        parsed = model.model_validate({**form.fields, FILE_FIELD: form.upload}, context=context)
    except ValidationError as error:
        sentences += [str(fault["ctx"]["error"]) for fault in error.errors()]
    if sentences:
        raise InvalidRequest(*sentences, *form.hints)
    return parsed


def form_description(
    model: type[BaseModel],
    *,
    example: Mapping[str, Any],
    example_without_file: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The OpenAPI description of a request with this form; without `example_without_file` it is always multipart.

    JSON comes first, with the same schema: of several types, some generators of clients send JSON, with the fields of
    the first, and others omit the model of the second. Urlencoded bodies are told in words. Raises TypeError for a
    model with a field whose type text cannot be compared with.
    """
    _text_fields(model)
    examples = {JSON: example_without_file, MULTIPART: example}
    content = {
        media_type: {"schema": _schema(model), "example": shown}
        for media_type, shown in examples.items()
        if shown is not None
    }
    return {"requestBody": {"required": True, "content": content}}


def exactly_one_of(*names: str) -> dict[str, Any]:
    """The part of a JSON schema that requires one of these properties and forbids the others.

    A plain `oneOf` says the same, but generators of clients take its members for types of their own, which have no
    properties; they pass `if` over.
    """
    return {"if": {"oneOf": [{"required": [name]} for name in names]}, "else": {"not": {}}}


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Absent values are not null, and every field is known only by its name."""
    schema = model.model_json_schema()
    for part in schema["properties"].values():
        part.pop("title", None)
        if part.get("default", ...) is None:
            del part["default"]
    return {key: schema[key] for key in ("type", "properties", "required", "if", "else") if key in schema}


@cache
def _text_fields(model: type[BaseModel]) -> Mapping[str, str]:
    """The names of the fields other than the file, and the JSON type of each."""
    kinds = {"string": "text", "number": "number", "integer": "number", "boolean": TRUTH_VALUE}
    # A number that may also be written in another way.
    kinds |= {"number or string": "number", "object": OBJECT}
    fields = {}
    for name, part in _schema(model)["properties"].items():
        if name == FILE_FIELD:
            continue
        types = part.get("type")
        kind = " or ".join(types) if isinstance(types, list) else types
        if kind not in kinds:
            raise TypeError(f"{model.__name__}.{name} needs a schema whose type is one of {', '.join(kinds)}")
        fields[name] = kinds[kind]
    return fields


@asynccontextmanager
async def _multipart_form(
    request: Request, upload_room: UploadRoom, *, boundary: bytes, text_fields: frozenset[str]
) -> AsyncIterator[ReceivedForm]:
    max_file_bytes = upload_room.requester.allowance.max_upload_bytes
    if (content_length(request) or 0) > max_file_bytes + FORM_BYTES:
        raise file_too_large(max_file_bytes)
    receiver = MultipartReceiver(
        boundary=boundary,
        spool_dir=upload_room.space.directory,
        max_file_bytes=max_file_bytes,
        text_fields=text_fields,
    )
    try:
        async with upload_room.reserved(content_length(request)) as room:
            # Parsing, hashing and writing are a thread's work, a block at a time: the event loop only gathers.
            async for block in body_blocks(request):
                await to_thread.run_sync(room.pass_on, block, receiver)
            # Its space is reserved until it is a file, or removed.
            yield await to_thread.run_sync(receiver.finish)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(receiver.discard)


async def body_blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about 1 MiB, the last one shorter.

    Raises HTTPException (408) when it arrives too slowly, and ClientDisconnect when the client disconnects.
    """
    streams_body(request)
    gathered = bytearray()
    stream = request.stream()
    while True:
        chunk = await anext(stream, b"")
        gathered += chunk
        if gathered and (len(gathered) >= BLOCK_BYTES or not chunk):
            yield bytes(gathered)
            gathered.clear()
        if not chunk:
            return


async def _small_body(request: Request) -> bytes:
    is_json = "json" in request.headers.get("Content-Type", "").lower()
    too_large = LimitExceeded(
        f"A body without a file may have {MAX_SMALL_BODY_BYTES // 1024} KiB at most."
        + ("" if is_json else f" Send a file as {MULTIPART}, as `curl -F file=@clip.mp4` does.")
    )
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


def _require_no_json(body: bytes, media_type: str) -> None:
    """Raises InvalidRequest for a body that is JSON by its first character, whatever its Content-Type."""
    if body.lstrip(BOM_UTF8 + b" \t\r\n")[:1] in (b"{", b"["):
        said = f"is {quoted(media_type)}" if media_type else "is missing"
        raise InvalidRequest(
            f"The body looks like JSON, but its Content-Type {said}: send `Content-Type: {JSON}`."
        )


def _urlencoded_form(body: bytes, text_fields: Collection[str]) -> ReceivedForm:
    _require_no_json(body, URLENCODED)
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS
        )
    except ValueError as error:
        raise InvalidRequest("The urlencoded body cannot be understood.", detail=str(error)) from error
    fields: dict[str, str] = {}
    faults: dict[str, str] = {}
    unknown: dict[str, bool] = {}
    for name, value in pairs:
        if is_empty(value):
            continue
        if name in fields:
            faults[name] = f"`{name}` is given more than once."
        elif name in text_fields:
            fields[name] = value
        elif name == FILE_FIELD:
            faults[name] = not_a_file(value, text_fields)
        else:
            unknown[name] = False
    return ReceivedForm(fields=fields, faults=faults, unknown=unknown)


def _json_form(body: bytes, wanted: Mapping[str, str]) -> ReceivedForm:
    try:
        text = body.decode(json.detect_encoding(body))
        # Numbers keep their written form: a float would change 23.976.
        content = json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The body is not valid JSON.", detail=str(error)) from error
    if not isinstance(content, dict):
        raise InvalidRequest("The JSON body must be an object.")
    fields: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name in sorted(wanted.keys() & content.keys()):
        value = content[name]
        if isinstance(value, bool) and wanted[name] == TRUTH_VALUE:
            fields[name] = str(value).lower()
        elif isinstance(value, dict) and wanted[name] == OBJECT:
            fields[name] = json.dumps(json.loads(text, parse_int=_bounded)[name])
        elif isinstance(value, str) and (wanted[name] == "number" or not isinstance(value, _Number)):
            fields[name] = str(value)
        elif value is not None:
            sent = value if isinstance(value, str) else json.loads(text, parse_int=_bounded)[name]
            faults[name] = f"`{name}` must be a {wanted[name]}{received(sent)}"
    if not is_empty(content.get(FILE_FIELD)):
        faults[FILE_FIELD] = not_a_file(content[FILE_FIELD], wanted)
    unknown = {
        name: False for name in content if name not in (FILE_FIELD, *wanted) and not is_empty(content[name])
    }
    return ReceivedForm(fields=fields, faults=faults, unknown=unknown)


def _bounded(digits: str) -> int:
    return int(digits[:LONGEST_NUMBER])


class _Number(Verbatim):
    """A JSON number as it was written."""

    __slots__ = ()
