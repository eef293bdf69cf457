"""Middleware around every request.

`ErrorBoundary` answers exceptions that no handler caught. `LingeringClose` lets a client that is still
sending read an early answer. `BodyRules` refuses bodies that are too large or compressed. `HeadRequests`
answers HEAD wherever GET is answered. `PrivateAnswers` keeps what a user was told out of caches. `Cors`
lets pages of other origins use the API from a browser. `PublicPath` serves the API below a path of its public URL.
"""

import asyncio
from collections.abc import Callable, MutableSequence, Sequence
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import anyio
import structlog
from anyio.lowlevel import checkpoint
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.errors import (
    LONG_LIST_BYTES,
    METHODS,
    SMALL_BODY_BYTES,
    error_response,
    stopping_response,
    unexpected_error_response,
)
from app.http.uvicorn_protocol import SKIP_BODY

log = structlog.get_logger(__name__)

# Most of a body up to this size is already in transit: it is read to its end, and the connection is kept.
KEEP_ALIVE_BODY_BYTES = 1024**2
# A longer one is discarded as it arrives until one of these is reached; then the connection is closed.
LINGER_SECONDS = 10.0
LINGER_IDLE_SECONDS = 3.0
LINGER_BYTES = 64 * 1024**2

STREAMED = "body_is_streamed"
# The content coding that is none.
IDENTITY = "identity"


class BodyRules:
    """Checks every body as soon as it is read: 415 if it is compressed, and 413 if it is too large for
    memory, unless its reader called `streams_body`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size_bytes = _body_size(scope) if scope["type"] == "http" else 0
        if size_bytes == 0:
            await self.app(scope, receive, send)
            return
        announced_bytes, read_bytes = size_bytes or 0, 0
        most_bytes = SMALL_BODY_BYTES if _is_short(scope) else LONG_LIST_BYTES
        codings = ",".join(Headers(scope=scope).getlist("Content-Encoding")).lower().split(",")
        is_compressed = any(coding.strip() not in (IDENTITY, "") for coding in codings)

        async def receive_and_count() -> Message:
            nonlocal read_bytes
            if is_compressed:
                raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, headers={"Accept-Encoding": IDENTITY})
            bounded = STREAMED not in scope["state"]
            if bounded and announced_bytes > most_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if bounded and read_bytes > most_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self.app(scope, receive_and_count, send)


def _is_short(scope: Scope) -> bool:
    """Whether the route reads no long list. By the address, for a body is read before its route's own code runs."""
    path: str = scope["path"]
    return "/v1/" in path and not path.endswith("/complete")


def streams_body(request: Request) -> None:
    """For a route that reads the body block by block, within limits of its own."""
    setattr(request.state, STREAMED, True)


class HeadRequests:
    """Answers HEAD with the headers of the answer to GET, and discards the rest, even of an endless answer.

    Range is defined for GET alone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        is_sent = False

        async def send_head(message: Message) -> None:
            nonlocal is_sent
            if is_sent:
                # The server reports that the client has disconnected: pass this on to listeners.
                await checkpoint()
                return
            await send(message)
            if message["type"] == "http.response.start":
                is_sent = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        asked = {**scope, "method": "GET", "headers": headers}
        try:
            await self.app(asked, receive, send_head)
        finally:
            # Routing leaves its marks in the scope, and those who observe the request read them there.
            scope.update({**asked, "method": scope["method"], "headers": scope["headers"]})


class PrivateAnswers:
    """Forbids caches to keep an answer to a request with a valid key, errors included, unless its route says otherwise:
    caches know that an answer is private by `Authorization` alone, not by `X-API-Key`. Must be inside `ReadRetry`,
    which gives each try a state of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start" and "user_id" in scope.get("state", {}):
                headers = [*message.get("headers", ())]
                if all(name.lower() != b"cache-control" for name, _ in headers):
                    message = {**message, "headers": [*headers, (b"cache-control", b"no-store")]}
            await send(message)

        await self.app(scope, receive, send_private)


class ErrorBoundary:
    """Answers 500 in the one error shape for any exception that nothing inside handled, and logs it once; 503 when the
    server stops before the request is done.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            if started:
                raise
            # Only a stopping server cancels a request as a whole.
            log.warning("request_given_up", method=scope["method"], path=scope["path"])
            await stopping_response()(scope, receive, send)
        except Exception:
            if started:
                # The answer is incomplete; the client notices only if the connection breaks.
                raise
            log.exception("request_crashed", method=scope["method"], path=scope["path"])
            await unexpected_error_response()(scope, receive, send)


class LingeringClose:
    """After an answer sent before the request's body has arrived, reads and discards the rest, within bounds.

    Closing a socket with unread bytes makes the system send a reset, which often makes a client that is still
    writing lose the answer; reading the whole body would cost what an early refusal saves. So the answer is
    sent at once, and further input is discarded for a bounded time and number of bytes before the connection
    ends (nginx's lingering close). Most clients stop sending at once; the others send a body of ordinary size
    to its end and then read. After a body of up to 1 MiB the connection is kept. A client that sent `Expect:
    100-continue` sends nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size_bytes = _body_size(scope) if scope["type"] == "http" else 0
        if size_bytes == 0:
            await self.app(scope, receive, send)
            return
        body_ended = False

        async def receive_and_note() -> Message:
            nonlocal body_ended
            message = await receive()
            body_ended = body_ended or not message.get("more_body", False)
            return message

        async def send_then_linger(message: Message) -> None:
            if body_ended:
                await send(message)
            elif message["type"] == "http.response.start":
                has_failed = message["status"] == HTTPStatus.REQUEST_TIMEOUT
                if size_bytes is None or size_bytes > KEEP_ALIVE_BODY_BYTES or has_failed:
                    headers: MutableSequence[tuple[bytes, bytes]] = [*message.get("headers", ())]
                    message = {**message, "headers": [*headers, (b"connection", b"close")]}
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                if size_bytes is None and SKIP_BODY in scope.get("extensions", {}):
                    scope["extensions"][SKIP_BODY]()
                await _drop_body(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self.app(scope, receive_and_note, send_then_linger)


async def _drop_body(receive: Receive) -> None:
    dropped = 0
    with anyio.move_on_after(LINGER_SECONDS):
        while dropped < LINGER_BYTES:
            message: Message | None = None
            with anyio.move_on_after(LINGER_IDLE_SECONDS):
                message = await receive()
            if message is None or not message.get("more_body", False):
                return
            dropped += len(message.get("body", b""))


def _body_size(scope: Scope) -> int | None:
    """The announced size of the request's body in bytes; None if it is not known beforehand."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length" and value.isdigit():
            length = int(value)
    return length


# Headers that a page may read, in addition to those that every page may.
EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
# Chrome keeps the answer to a preflight for two hours at most.
PREFLIGHT_SECONDS = 7200


class Cors:
    """Lets pages of `origins` (`*`: all) read every answer, errors included; preflights need no key.

    Browsers' own credentials are never allowed: the page sends keys in headers. Must be outside all
    middleware that answers.
    """

    def __init__(self, app: ASGIApp, *, origins: Callable[[], Sequence[str]]) -> None:
        self._app = app
        self._origins = origins
        self._cors: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._cors is None:
            # The settings are read at the server's start, after this object was made.
            origins = self._origins()
            self._cors = _AllowedOrigins(self._app, origins) if origins else self._app
        await self._cors(scope, receive, send)


class _AllowedOrigins(CORSMiddleware):
    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        if answer.status_code < 400:
            return Response(status_code=204, headers=headers)
        return error_response(400, ["Pages of this origin may not send this request."], headers=headers)


class PublicPath:
    """Removes the public URL's path from a request's path: a proxy may pass it on or strip it.

    A path that begins like one of the API's own is not changed, since it could be either.
    """

    def __init__(self, app: ASGIApp, *, public_url: Callable[[], str | None]) -> None:
        self.app = app
        self._public_url = public_url
        self._own_segments: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (prefix := _path_of(self._public_url() or "")):
            path: str = scope["path"]
            if path.startswith(f"{prefix}/") and not self._is_own(prefix, scope):
                # In place: outer middleware looks up the route in this scope.
                scope["path"] = path.removeprefix(prefix)
                scope["raw_path"] = quote(scope["path"]).encode()
        await self.app(scope, receive, send)

    def _is_own(self, prefix: str, scope: Scope) -> bool:
        """Whether a path of the API begins with the prefix's first segment."""
        if not self._own_segments:
            paths = (getattr(route, "path", "") for route in scope["app"].routes)
            self._own_segments = {_first_segment(path) for path in paths if path}
        return _first_segment(prefix) in self._own_segments


@lru_cache(maxsize=1)
def _path_of(public_url: str) -> str:
    return urlsplit(public_url).path.rstrip("/")


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1]
