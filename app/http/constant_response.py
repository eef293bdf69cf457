"""Answers that stay the same as long as the process lives: with an ETag, and in gzip for clients that take it."""

import gzip
import hashlib
from collections.abc import Mapping
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse

_KEPT = 128
# At most so many bytes go in one packet, where nothing is gained.
_SMALLEST_BYTES = 1000


def constant_response(
    request: Request, content: bytes, *, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The content as the answer to a GET, or 304. The two codings have an ETag each (RFC 9110, section 8.8.3.3)."""
    is_compressed = len(content) > _SMALLEST_BYTES and _takes_gzip(request)
    body, digest = _compressed(content) if is_compressed else content, _digest(content)
    etag = f'"{digest}-gzip"' if is_compressed else f'"{digest}"'
    coding = {"Content-Encoding": "gzip"} if is_compressed else {}
    answer = Response(
        body,
        media_type=media_type,
        headers={**(headers or {}), **coding, "ETag": etag, "Vary": "Accept-Encoding"},
    )
    known = request.headers.get("If-None-Match", "")
    return NotModifiedResponse(answer.headers) if etag in known else answer


def _takes_gzip(request: Request) -> bool:
    codings = [
        part.replace(" ", "").partition(";") for part in request.headers.get("Accept-Encoding", "").split(",")
    ]
    return any(name.lower() == "gzip" and weight not in ("q=0", "q=0.0") for name, _, weight in codings)


@lru_cache(maxsize=_KEPT)
def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@lru_cache(maxsize=_KEPT)
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
