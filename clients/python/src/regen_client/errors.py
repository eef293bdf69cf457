"""What goes wrong, as exceptions: all are RegenError."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from regen_client.answers import Render

REPEATABLE = frozenset({408, 429, 502, 503, 504})


class RegenError(Exception):
    """`repeatable`: the same request may succeed later. `retry_after`: seconds that the server asks to wait."""

    repeatable = False
    retry_after: float | None = None


class NoAnswer(RegenError):
    """The connection could not be made, or broke before the answer was complete."""

    repeatable = True


class ApiError(RegenError):
    """The server refused the request. `messages` has a sentence for each fault; `request_id` finds it in the log."""

    def __init__(
        self,
        status: int,
        messages: Sequence[str],
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            f"{status}: {' '.join(messages)}" + (f" (request {request_id})" if request_id else "")
        )
        self.status = status
        self.messages = tuple(messages)
        self.request_id = request_id
        self.retry_after = retry_after
        self.repeatable = status in REPEATABLE

    @classmethod
    def of(cls, response: httpx.Response) -> ApiError:
        """The error of an answer whose body was read; also of one that a proxy made, without messages."""
        try:
            messages = [str(error["message"]) for error in response.json()["errors"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            messages = []
        moved = f", which points to {response.headers['Location']}" if response.has_redirect_location else ""
        return cls(
            response.status_code,
            messages or [f"The server answered {response.status_code} {response.reason_phrase}{moved}."],
            request_id=response.headers.get("X-Request-ID"),
            retry_after=_seconds(response.headers.get("Retry-After", "")),
        )


class RenderFailed(RegenError):
    """The render has ended as `failed`: also one that was canceled. `render` has its `error`."""

    def __init__(self, render: Render) -> None:
        super().__init__(f"The render {render.id} failed: {render.error or 'no reason was given.'}")
        self.render = render


class WaitTimeout(RegenError, TimeoutError):
    """The time given to a wait was over first. The render goes on: wait for it again, or cancel it."""


class InvalidWebhook(RegenError):
    """An event without a valid signature, or with one that is too old."""


def _seconds(retry_after: str) -> float | None:
    """`Retry-After`: seconds, or a date. None if it is absent or neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
