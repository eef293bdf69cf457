"""Holds an answer until its subject has ended, at most as long as the Prefer header (RFC 7240) asks."""

import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import anyio
import structlog
from anyio import to_thread
from fastapi import Depends, Header, Request, Response

from app.platform.errors import Unavailable
from app.platform.retry_policies import HELD_ANSWER

LONGEST_SECONDS = 30
# Each costs a connection and some kilobytes. Further answers are not held.
MOST_HELD = 500
APPLIED = "Preference-Applied"
# The OpenAPI description of answers that may be held.
APPLIED_HEADER: dict[str, Any] = {
    APPLIED: {
        "description": "For how many seconds the answer was held at most, as `wait=20`.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    }
}

# A preference, its value bare or quoted, and its parameters.
_PREFERENCE = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s;,"]*)))?\s*(?:;[^,]*)?'
)

log = structlog.get_logger(__name__)


async def preferred_wait(
    request: Request,
    _prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            description=f"`wait=20` (RFC 7240) holds the answer until it has ended, for at most so many seconds, "
            f"never longer than {LONGEST_SECONDS}. The answer's `{APPLIED}` says what was applied.",
            examples=["wait=20"],
        ),
    ] = None,
) -> int:
    """The seconds for which the answer may be held; 0 without such a preference, and for one that is not valid."""
    for line in request.headers.getlist("Prefer"):
        for part in line.split(","):
            match = _PREFERENCE.fullmatch(part)
            if match is not None and match[1].lower() == "wait":
                # The first one counts.
                value = match[2] or match[3] or ""
                return min(int(value), LONGEST_SECONDS) if re.fullmatch(r"[0-9]{1,9}", value) else 0
    return 0


WaitDependency = Annotated[int, Depends(preferred_wait)]


class HeldAnswers:
    """The held answers of one process. Between two checks they occupy no thread and no database connection."""

    def __init__(self) -> None:
        self._held = 0

    async def hold(
        self, request: Request, response: Response, seconds: int, *, has_ended: Callable[[], bool]
    ) -> None:
        """Wait until `has_ended`, called in a thread, returns true, the time is over, the client has
        disconnected, or the database is unavailable.
        """
        if seconds == 0 or self._held >= MOST_HELD:
            return
        self._held += 1
        try:
            await self._hold(request, seconds, has_ended)
        except Unavailable as error:
            log.warning("wait_broken_off", error=error.message, detail=error.detail)
        finally:
            self._held -= 1
        response.headers[APPLIED] = f"wait={seconds}"

    async def _hold(self, request: Request, seconds: int, has_ended: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        pauses = HELD_ANSWER.pauses()
        while not await to_thread.run_sync(has_ended):
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0 or await request.is_disconnected():
                return
            await anyio.sleep(min(next(pauses), left_seconds))


held_answers = HeldAnswers()
