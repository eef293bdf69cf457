"""CORS: lets pages of other origins use the API from a browser."""

from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.errors import METHODS, error_response

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
