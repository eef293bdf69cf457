"""The address at which clients reach the API: the start of links, and the path below which a proxy may serve it."""

from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, urlsplit

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.errors import InvalidRequest
from app.platform.public_addresses import is_loopback
from app.platform.settings import Settings

ANY_HOST = "*"


def base_url_of(request: Request, settings: Settings) -> str:
    """The start of links in the answer, without a slash at the end; without a public URL, the request's own address.

    On a connection from elsewhere, raises InvalidRequest for a `Host` that is neither a name of this machine
    nor allowed: otherwise the client would choose where links lead.
    """
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    if not _is_trusted(request.base_url, request.scope, settings):
        raise InvalidRequest(
            f"This server does not know that it is called {request.base_url.hostname!r}. "
            "Its operator can set REGEN_PUBLIC_URL, or list the name in REGEN_ALLOWED_HOSTS."
        )
    return str(request.base_url).rstrip("/")


def _is_trusted(url: URL, scope: Scope, settings: Settings) -> bool:
    own_address = (scope.get("server") or ("",))[0]
    if is_loopback(own_address):
        return True
    name = (url.hostname or "").lower()
    return is_loopback(name) or name == own_address or not {name, ANY_HOST}.isdisjoint(settings.allowed_hosts)


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
