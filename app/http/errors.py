"""Every error, of every kind, in one shape: {"errors": [{"message": "..."}]}."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from app.http.fields import UNKNOWN_NAME, shown_name
from app.http.read_retry import DATABASE_AWAY
from app.platform.byte_sizes import MIB
from app.platform.errors import (
    DatabaseUnavailable,
    FfmpegMissing,
    RegenError,
    RequestError,
    RetryLater,
    StorageError,
    Unauthorized,
    Unavailable,
)
from app.platform.quoting import printable, received, shortened


class ErrorMessage(BaseModel):
    message: str = Field(description="A sentence that explains the fault.")


class ErrorsBody(BaseModel):
    """Every error has exactly this shape."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"errors": [{"message": "File not found"}]}]})

    errors: list[ErrorMessage] = Field(min_length=1, description="One for each fault.")


# Referenced by its place in the description of the API.
ERRORS_SCHEMA = {"$ref": "#/components/schemas/ErrorsBody"}


def error_schemas() -> dict[str, Any]:
    """The schemas of an error's body, by name."""
    schema = ErrorsBody.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "ErrorsBody": schema}


INVALID_JSON = "The body is not valid JSON."
STOPPING = "The server is stopping before this request is done. Try again."
STOPPING_RETRY_SECONDS = 5
UNEXPECTED = "An unexpected error occurred while processing the request."

NO_STORAGE = "The storage cannot be used just now. Try again soon."
NO_FFMPEG = "The server cannot examine videos just now."
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
OPTIONS = "OPTIONS"
# The target of OPTIONS for the server as a whole.
WHOLE_SERVER = "*"

log = structlog.get_logger(__name__)

# OpenAPI's description of every error status, and an example message.
_ERRORS: dict[int, tuple[str, str]] = {
    400: (
        "A field is missing or faulty, one message per fault; or this is not a valid HTTP/1.1 request.",
        '`engine` must be "regen-4x-lite", "regen-4x" or "regen-4x-anime".',
    ),
    401: ("There is no valid API key.", "A valid API key is required."),
    403: ("The key lacks the scope that this needs.", "This needs the key of an administrator."),
    404: ("This user has no such thing.", "Render not found"),
    408: (
        "The request did not arrive, or arrived too slowly.",
        "The body did not arrive, or arrived too slowly.",
    ),
    409: (
        "The present state does not allow it; or the `Idempotency-Key` belongs to another request.",
        "This render has already ended.",
    ),
    413: (
        "Over a limit: bytes, pixels, duration, output size or frames.",
        "The file is larger than the limit of 2 GiB.",
    ),
    415: ("The file is not a video, or the body is compressed.", "This file is not a video."),
    429: (
        "Too many: requests in a period, or things that wait at once.",
        "Too many requests: at most 100 per 1 minute are allowed. Try again in 12 s.",
    ),
    500: ("A defect of the server; its log says more.", UNEXPECTED),
    503: ("The server cannot take this just now.", "The database cannot be reached just now."),
}
# The largest bodies that are read into memory: of all the API's but the list of an upload's parts, and of that one.
# JSON is read at one go, and other requests wait meanwhile.
SMALL_BODY_BYTES, LONG_LIST_BYTES = 64 * 1024, 2 * MIB
# Refusals of the framework and the middleware without a message of their own.
_HTTP_ERRORS = {
    # JSON that cannot be read for a reason other than its syntax, such as its encoding.
    HTTPStatus.BAD_REQUEST: INVALID_JSON,
    HTTPStatus.REQUEST_TIMEOUT: _ERRORS[408][1],
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"The request's body is larger than {SMALL_BODY_BYTES // 1024} KiB, or than "
    f"{LONG_LIST_BYTES // MIB} MiB to complete an upload.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is compressed: send it as it is, without `Content-Encoding`.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of these error statuses. A route names its own, `app.main` those of all routes."""
    return {status: _documentation(*_ERRORS[status]) for status in statuses}


def _documentation(description: str, message: str) -> dict[str, Any]:
    example = {"errors": [{"message": message}]}
    return {
        "description": description,
        "content": {"application/json": {"schema": ERRORS_SCHEMA, "example": example}},
    }


def error_response(
    status_code: int, messages: Sequence[str], *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error answer: one message per fault, each a sentence."""
    content = {"errors": [{"message": message} for message in messages]}
    return JSONResponse(content, status_code=status_code, headers=headers)


def unexpected_error_response() -> JSONResponse:
    return error_response(500, [UNEXPECTED])


def stopping_response() -> JSONResponse:
    return error_response(503, [STOPPING], headers={"Retry-After": str(STOPPING_RETRY_SECONDS)})


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(StorageError, partial(_part_missing, NO_STORAGE))
    app.add_exception_handler(FfmpegMissing, partial(_part_missing, NO_FFMPEG))
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_disconnect)
    # The last resort, for failures outside our own error boundary.
    app.add_exception_handler(Exception, _crash)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    if isinstance(error, DatabaseUnavailable):
        setattr(request.state, DATABASE_AWAY, True)
    if error.detail is not None or error.status_code >= 500:
        log.warning(
            "request_refused",
            path=request.scope["path"],
            status=error.status_code,
            reason=error.message,
            detail=error.detail,
        )
    headers: dict[str, str] = {}
    if isinstance(error, RetryLater):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(error.status_code, error.messages, headers=headers)


async def _part_missing(message: str, request: Request, error: Exception) -> Response:
    assert isinstance(error, RegenError)
    return await _request_error(request, Unavailable(message, detail=f"{error} {error.detail}"))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    media_type = request.headers.get("Content-Type", "")
    return error_response(400, [_fault_sentence(fault, media_type=media_type) for fault in error.errors()])


def _fault_sentence(fault: Mapping[str, Any], *, media_type: str) -> str:
    kind = fault["type"]
    if kind == "json_invalid":
        return INVALID_JSON
    # The first part names the place: body, query, path or header.
    field = ".".join(str(part) for part in fault["loc"][1:])
    if not field:
        if kind == "value_error":  # of fields that do not go together
            return str(fault["ctx"]["error"])
        if kind == "missing":
            return "The body is missing."
        if "json" not in media_type.lower():
            return "The body must be JSON and its Content-Type must say so: send `Content-Type: application/json`."
        return f"The JSON body must be an object{received(fault['input'])}"
    if kind == UNKNOWN_NAME:
        return f"{shown_name(field)} is not a field of this request{fault['ctx']['advice']}"
    if kind == "missing":
        return f"`{field}` is required."
    return f"`{field}` is not valid: {fault['msg']}{received(fault['input'])}"


async def _http_error(request: Request, error: Exception) -> Response:
    """Refusals of routing and of reading bodies."""
    assert isinstance(error, HTTPException)
    status, headers = HTTPStatus(error.status_code), error.headers
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Response(status_code=status, headers=headers)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names only those of the first route at this address.
        headers = {"Allow": ", ".join(_allowed_methods(request))}
    elif request.scope["path"] == WHOLE_SERVER:
        headers = {"Allow": ", ".join((*METHODS, OPTIONS))}
    if request.method == OPTIONS and headers is not None and "Allow" in headers:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"The method {printable(shortened(request.method))} is not allowed at this address."
    elif status is HTTPStatus.NOT_FOUND:
        message = f"There is nothing at this address{_meant_address(request)}"
    else:
        message = _HTTP_ERRORS.get(status, UNEXPECTED if status >= 500 else f"{status.phrase}.")
    return error_response(status, [message], headers=headers)


def _meant_address(request: Request) -> str:
    """The end of the sentence: the probable address if a base URL has a slash or `/v1` too many or too few."""
    root = str(request.scope.get("root_path", ""))
    path = re.sub("/+", "/", request.scope["path"].removeprefix(root)).rstrip("/ ")
    for meant in (path, re.sub("^(/v1)*(?=/)", "/v1", path)):
        if _routes({**request.scope, "path": root + meant}):
            return (
                f": did you mean {printable(shortened(root + meant))}? Look at the client's base URL for a slash or "
                "`/v1` too many or too few."
            )
    return "."


def _routes(scope: Scope) -> list[RouteContext]:
    """The routes of the API at that address, for all methods."""
    return [
        route
        for route in iter_route_contexts(scope["app"].routes)
        if route.original_route.matches(scope)[0] is not Match.NONE
    ]


def _allowed_methods(request: Request) -> list[str]:
    """The methods of the address's own routes, not of a later one whose pattern also matches."""
    routes = _routes(request.scope)
    allowed = {method for route in routes if route.path == routes[0].path for method in route.methods or ()}
    if "GET" in allowed:
        allowed.add("HEAD")
    return [*(method for method in METHODS if method in allowed), OPTIONS]


async def _client_disconnect(request: Request, _error: Exception) -> Response:
    # No client reads this answer; it ends the request properly.
    log.info("client_disconnected", path=request.scope["path"])
    return error_response(400, ["The request ended before its body did."])


async def _crash(_request: Request, _error: Exception) -> Response:
    return unexpected_error_response()
