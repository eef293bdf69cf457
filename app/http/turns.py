"""Turns at the event loop: users and peers share it, so that one's flood of requests does not delay another's.

A request takes a turn before the application sees it and gives it back once it is answered, whenever it waits for
more of its body, and after HOLD_SECONDS: what takes longer waits for something else than the interpreter. With each
part of a body it takes another. So a caller's further requests wait, at the cost of reading their heads, while others
overtake them.
"""

import asyncio
from collections import OrderedDict
from hashlib import blake2b
from http import HTTPStatus
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.connections import peer_of
from app.http.errors import error_response
from app.http.shared_slots import FairQueue

# All share one interpreter: more of one caller's at once would not be faster, and delay those of others.
MOST_TURNS = 16
MOST_TURNS_PER_CALLER = 2
HOLD_SECONDS = 0.1
# A turn with a part of a body in small pieces is work of about a millisecond: its place rests for so long while more of
# the caller's requests wait, so that a flood of such bodies leaves the interpreter to others most of the time.
REST_SECONDS = 0.02
WAIT_SECONDS = 30.0
RETRY_SECONDS = 5
BUSY = "Too many requests wait for their turn just now. Try again soon, with fewer at once."
KEY_HEADERS = (b"authorization", b"x-api-key")
MOST_KNOWN_KEYS = 10_000
# In a scope's extensions: the request's exchange with its client.
EXCHANGE = "regen.exchange"

log = structlog.get_logger(__name__)


class LoopTurn:
    """One request's turn, held or not."""

    def __init__(self, queue: FairQueue, caller: str) -> None:
        self._queue = queue
        self._caller = caller
        self._place: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_abandoned = False

    async def begin(self) -> bool:
        """Waits for the turn. Returns False if the client left meanwhile. Raises TimeoutError after WAIT_SECONDS."""
        if self._is_abandoned or self._timer is not None:
            return not self._is_abandoned
        if not self._queue.take(self._caller):
            place = self._place = self._queue.wait(self._caller)
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await asyncio.wait([place])
            except BaseException:
                self._queue.leave(self._caller, place)
                raise
            finally:
                self._place = None
            if self._is_abandoned:
                self._queue.leave(self._caller, place)
                return False
        self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.end)
        return True

    def end(self, *, rests: bool = False) -> None:
        """Gives the turn back, if it is held; with `rests` after REST_SECONDS if others of the caller wait."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if rests and self._queue.number_waiting(self._caller):
            asyncio.get_running_loop().call_later(REST_SECONDS, self._queue.give_back, self._caller)
        else:
            self._queue.give_back(self._caller)

    def abandon(self) -> None:
        """The client has left: the request waits no longer."""
        self._is_abandoned = True
        if self._place is not None:
            self._place.cancel()


class Exchange(Protocol):
    """A request's exchange with its client, which holds and gives back the request's turn from now on."""

    turn: LoopTurn | None


class TakeTurns:
    """The ASGI application, with each request in its caller's turn.

    The caller is the user of a key that was valid before, otherwise the peer: whoever makes up keys is one caller.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._queue = FairQueue(total=MOST_TURNS, per_caller=MOST_TURNS_PER_CALLER)
        self._users: OrderedDict[bytes, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = scope.get("extensions", {}).pop(EXCHANGE, None)
        if exchange is None:
            await self._app(scope, receive, send)
            return
        key = _key_digest(scope)
        user_id = None if key is None else self._users.get(key)
        client = scope.get("client")
        turn = LoopTurn(self._queue, user_id or peer_of(client[0] if client else ""))
        exchange.turn = turn
        try:
            if not await turn.begin():
                return
        except TimeoutError:
            log.warning("turn_overdue", caller=user_id or client)
            headers = {"Retry-After": str(RETRY_SECONDS)}
            await error_response(HTTPStatus.SERVICE_UNAVAILABLE, [BUSY], headers=headers)(
                scope, receive, send
            )
            return
        try:
            await self._app(scope, receive, self._noting(key, scope, send))
        finally:
            turn.end()

    def _noting(self, key: bytes | None, scope: Scope, send: Send) -> Send:
        """`send`, which notes the user of a valid key, and forgets that of one that is no longer."""
        if key is None:
            return send

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                user_id = scope["state"].get("user_id")
                if user_id is not None:
                    self._users[key] = user_id
                    self._users.move_to_end(key)
                    if len(self._users) > MOST_KNOWN_KEYS:
                        self._users.popitem(last=False)
                elif message["status"] == HTTPStatus.UNAUTHORIZED:
                    self._users.pop(key, None)
            await send(message)

        return send_and_note


def _key_digest(scope: Scope) -> bytes | None:
    values = b"\n".join(value for name, value in scope["headers"] if name in KEY_HEADERS)
    return blake2b(values, digest_size=16).digest() if values else None
