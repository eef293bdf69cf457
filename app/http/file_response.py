"""Files as answers, with conditional requests (RFC 9110, section 13) and one byte range (section 14)."""

import calendar
from email.utils import parsedate

from starlette.datastructures import Headers
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response
from starlette.staticfiles import NotModifiedResponse
from starlette.types import Receive, Scope, Send

from app.http.errors import error_response


class ConditionalFileResponse(FileResponse):
    """A file, or 304, 412 or 416 as the request's headers require.

    Needs `stat_result`. A Range that is malformed, or names several ranges, is ignored, as RFC 9110 allows.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        answer = self._by_precondition(asked) or self._by_range(asked)
        if answer is not None:
            await answer(scope, receive, send)
            return
        if not self._is_range_heeded(asked):
            headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": headers}
        await super().__call__(scope, receive, send)

    def _by_precondition(self, asked: Headers) -> Response | None:
        """In the order of RFC 9110, section 13.2.2."""
        etag, modified_at = self.headers["etag"], _seconds(self.headers["last-modified"])
        if "if-match" in asked:
            if not _names(asked.getlist("if-match"), etag, is_weak=False):
                return _failed("If-Match")
        elif _is_after(modified_at, asked.get("if-unmodified-since")):
            return _failed("If-Unmodified-Since")
        if "if-none-match" in asked:
            is_known = _names(asked.getlist("if-none-match"), etag, is_weak=True)
        else:
            is_known = _is_after(modified_at, asked.get("if-modified-since")) is False
        return NotModifiedResponse(self.headers) if is_known else None

    def _by_range(self, asked: Headers) -> Response | None:
        size_bytes = int(self.headers["content-length"])
        try:
            self._ranges(asked)
        except RangeNotSatisfiable:
            return error_response(
                416,
                ["The file is shorter than the requested range."],
                headers={"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"},
            )
        return None

    def _is_range_heeded(self, asked: Headers) -> bool:
        return len(self._ranges(asked)) == 1

    def _ranges(self, asked: Headers) -> list[tuple[int, int]]:
        """The applicable Range. Raises RangeNotSatisfiable."""
        condition = asked.get("if-range")
        if "range" not in asked or (condition is not None and not self._should_use_range(condition)):
            return []
        try:
            return self._parse_range_header(asked["range"], int(self.headers["content-length"]))
        except MalformedRangeHeader:
            return []


def _failed(header: str) -> Response:
    return error_response(412, [f"The file does not, or no longer, match `{header}`."])


def _names(conditions: list[str], etag: str, *, is_weak: bool) -> bool:
    """Whether the lists of tags name the ETag, which is strong. Only a weak comparison accepts weak tags."""
    tags = [tag.strip() for condition in conditions for tag in condition.split(",")]
    if is_weak:
        tags = [tag.removeprefix("W/") for tag in tags]
    return "*" in tags or etag in tags


def _is_after(moment: int | None, header: str | None) -> bool | None:
    """Whether the time is after the header's; None without a header, or with one that is not a date."""
    given = _seconds(header) if header is not None else None
    return None if moment is None or given is None else moment > given


def _seconds(date: str) -> int | None:
    """An HTTP date, in seconds since the epoch."""
    try:
        parts = parsedate(date)
        return None if parts is None else calendar.timegm(parts)
    except (ValueError, OverflowError):
        return None
