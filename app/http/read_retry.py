"""Reads survive a short outage of the database: the client waits a little longer and sees no error."""

import time
from collections.abc import Awaitable, Callable

import anyio
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.retry_policies import READ_RETRY

READS = ("/v1/", "/renders/")
# Set by the error handler in a request's state if it answers 503 because of the database.
DATABASE_AWAY = "database_away"

# Each costs a connection and some kilobytes while it waits. Beyond it the answer is 503 at once.
MOST_WAITING = 500

log = structlog.get_logger(__name__)


class ReadRetry:
    """Repeats a GET or HEAD that was answered 503 because of the database, for up to `seconds`.

    Waits until `answers` reports that the database is back; all waiting requests share that check, so that
    waiting occupies no threads. Other methods, health, readiness and metrics are passed on: only the client
    can know whether to repeat a write. Must be inside all middleware that changes answers.
    """

    def __init__(
        self, app: ASGIApp, *, seconds: Callable[[], float], answers: Callable[[], Awaitable[bool]]
    ) -> None:
        self.app = app
        self._seconds = seconds
        self._answers = answers
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_read(scope):
            await self.app(scope, receive, send)
            return
        deadline = time.monotonic() + self._seconds()
        client = _Client(receive)
        answer = await self._ask(scope, client, send)
        if answer is None:
            return
        if self._waiting >= MOST_WAITING or time.monotonic() >= deadline:
            await _send_all(answer, send)
            return
        self._waiting += 1
        try:
            outcome = await self._outlast(scope, client, send, answer=answer, deadline=deadline)
        finally:
            self._waiting -= 1
        log.info("read_waited", outcome=outcome)

    async def _outlast(
        self, scope: Scope, client: "_Client", send: Send, *, answer: list[Message], deadline: float
    ) -> str:
        pauses = READ_RETRY.pauses()
        while True:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                await _send_all(answer, send)
                return "refused"
            if await client.leaves_within(min(left_seconds, next(pauses))):
                return "client_left"
            if await self._answers():
                again = await self._ask(scope, client, send)
                if again is None:
                    return "answered"
                answer = again

    async def _ask(self, scope: Scope, client: "_Client", send: Send) -> list[Message] | None:
        """None if the answer was sent, otherwise the answer that reports the outage."""
        held: list[Message] = []
        # Routing writes to the scope, and observers of the request read it there.
        asked = {**scope, "state": {**scope.get("state", {})}}

        async def hold_or_send(message: Message) -> None:
            if asked["state"].get(DATABASE_AWAY):
                held.append(message)
            else:
                await send(message)

        try:
            await self.app(asked, client.receive, hold_or_send)
        finally:
            scope.update(asked)
            scope["state"].pop(DATABASE_AWAY, None)
        return held or None


class _Client:
    """The client's messages for a request without a body: first its end, then at most a disconnect."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_left = False

    async def receive(self) -> Message:
        """The messages for the application, each time that the request is repeated."""
        if self._has_left:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._has_left = message["type"] == "http.disconnect"
        return message

    async def leaves_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            while not self._has_left:
                await self.receive()
        return self._has_left


def _is_read(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and scope["path"].startswith(READS)
        and not any(name in (b"content-length", b"transfer-encoding") for name, _value in scope["headers"])
    )


async def _send_all(messages: list[Message], send: Send) -> None:
    for message in messages:
        await send(message)
