"""HTTP/1.1 by uvicorn and h11, with deadlines for clients, and its own errors in the one error shape.

A request that is not HTTP, or whose head is too long or does not arrive, never reaches the application.
"""

import asyncio
import math
import socket
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import structlog
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from app.http.body_on_demand import BodyOnDemand
from app.http.connections import Connections, Patience
from app.http.errors import error_response
from app.http.request_log import REQUEST_ID_HEADER
from app.http.turns import BUSY, EXCHANGE, LoopTurn
from app.platform.secrets import new_id

BAD_REQUEST = (
    "This is not a valid HTTP/1.1 request, its headers are too long, or its body comes in tiny chunks."
)
# The system buffers only this much of an answer: what a slow client has not read is not in memory, and the
# server soon notices that it read something.
UNSENT_BYTES = 128 * 1024
# Above this the next piece of an answer waits until a client has read most of what the system would not buffer.
WRITE_BUFFER_BYTES = 32 * 1024
# So many pieces of a head are read as they arrive; more of it only after a pause, together, for a piece of one byte
# takes as long to read as a large one.
MOST_PROMPT_HEAD_PIECES, HEAD_PAUSE_SECONDS = 3, 0.5
# At once from one connection: before the application asks for a body it is in memory, for each of many connections.
READ_BYTES = 64 * 1024
# For how long a client whose body was refused for its tiny chunks keeps its connection, on which nothing is read any
# more: at once closed, the answer might be lost to it, and the next request would follow at once.
REFUSED_SECONDS = 10.0

log = structlog.get_logger(__name__)


# In a scope's extensions: a function that ends the connection at once, without sending the rest. Completing or
# abandoning an answer would wait for a client that reads nothing as long as its system keeps the connection.
ABORT = "regen.abort"
# A function after which the rest of the request's body is passed on as it comes, in its chunks: who only drops it need
# not have it parsed. For connections that end with the answer.
SKIP_BODY = "regen.skip_body"


class HttpProtocol(H11Protocol):
    """One connection. In addition to uvicorn's arguments it takes `connections`, which count it."""

    def __init__(self, *arguments: Any, connections: Connections, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn: BodyOnDemand = BodyOnDemand()
        self._connections = connections
        self._limits = connections.limits
        self._deadline: asyncio.TimerHandle | None = None
        self._exchange: _PatientExchange | None = None
        self._head_pieces = 0
        self._is_refused = False
        application = self.app

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = self._exchange = _PatientExchange(self, receive, send)
            scope.setdefault("extensions", {}).update(
                {ABORT: self.transport.abort, SKIP_BODY: self.skip_body, EXCHANGE: exchange}
            )
            _to_origin_form(scope)
            await application(scope, exchange.receive, exchange.send)

        self.app = serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own is 256 KiB
        self._set_deadline()
        self._connections.add(self, host=self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_deadline()
        self._connections.remove(self)
        if self._exchange is not None and self._exchange.turn is not None:
            self._exchange.turn.abandon()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_refused:
            return
        self._note_progress(is_waiting=True)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._wait_for_more_of_head()
        else:
            self._head_pieces = 0

    def _wait_for_more_of_head(self) -> None:
        self._head_pieces += 1
        if self._head_pieces > MOST_PROMPT_HEAD_PIECES:
            self.flow.pause_reading()
            self.loop.call_later(HEAD_PAUSE_SECONDS, self.flow.resume_reading)

    def handle_events(self) -> None:
        super().handle_events()
        self.hold_back()

    def hold_back(self) -> None:
        """Read no more from the client while a part of the body waits to be parsed."""
        if self.conn.is_withholding or self._is_refused:
            self.flow.pause_reading()

    def want_body(self) -> bool:
        """Parse the next part of the request's body. Returns whether more of it waits to be parsed."""
        self.conn.want_body()
        if self.conn.is_withholding and not self.is_gone:
            self.handle_events()
        return self.conn.is_withholding

    def skip_body(self) -> None:
        """Parse no more of the request's body, see SKIP_BODY."""
        self.conn.skip_body()
        self.want_body()

    def on_response_complete(self) -> None:
        # What is left of the body is dropped.
        self.conn.want_body(math.inf)
        super().on_response_complete()
        if self.conn.is_withholding and not self.is_gone:
            self.handle_events()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.loop.call_later(self._limits.patience_seconds, self.transport.abort)
        # A part of the next request may have arrived already.
        self._note_progress(is_waiting=bool(self.conn.trailing_data[0]))

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            # Closing would wait for the client to read the rest.
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def close_idle(self) -> None:
        """End the connection, on which no request is in progress."""
        if self._is_refused:
            self.transport.abort()
        else:
            self.timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._is_refused:
            self.transport.abort()
        else:
            super().shutdown()

    @property
    def is_writing_paused(self) -> bool:
        """Whether the client has not yet read what was sent before."""
        return self.flow.write_paused

    @property
    def is_gone(self) -> bool:
        """Whether the client can no longer be reached, or is no longer listened to."""
        return self._is_refused or self.transport.is_closing()

    @property
    def patience(self) -> Patience:
        return Patience(self._limits)

    def abort_slow(self) -> None:
        """End the connection of a client that reads its answer too slowly."""
        log.info("client_too_slow", client=self.client[0] if self.client else None)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        del msg
        self._refuse(HTTPStatus.BAD_REQUEST, BAD_REQUEST)

    def _note_progress(self, *, is_waiting: bool) -> None:
        """`is_waiting`: unless a request is in progress, a head is expected."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unset_deadline()
            self._connections.note_request(self)
        elif not self.transport.is_closing():
            self._connections.note_idle(self)
            if is_waiting:
                self._set_deadline()

    def _set_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.head_seconds, self._end_overdue)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_overdue(self) -> None:
        has_begun = bool(self.conn.trailing_data[0]) and self.conn.their_state is h11.IDLE
        if has_begun and not self.transport.is_closing():
            sentence = f"The request's head did not arrive within {self._limits.head_seconds:g} seconds."
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, sentence)
        else:
            self.close_idle()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        request_id = new_id()
        log.info(
            "request_unreadable",
            request_id=request_id,
            status=int(status),
            client=self.client[0] if self.client else None,
        )
        content = bytes(error_response(status, [message]).body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
            (REQUEST_ID_HEADER, request_id.encode()),
        ]
        events: Sequence[h11.Event] = (
            h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._keep_refused(self.cycle)

    def _keep_refused(self, cycle: RequestResponseCycle) -> None:
        """Listen no more to a client in the middle of its body; for its request, it has left."""
        self._is_refused = True
        self.flow.pause_reading()
        cycle.disconnected = True
        cycle.message_event.set()
        if self._exchange is not None and self._exchange.turn is not None:
            self._exchange.turn.abandon()
        self._unset_deadline()
        self._deadline = self.loop.call_later(REFUSED_SECONDS, self.transport.abort)
        self._connections.note_idle(self)


class _PatientExchange:
    """Passes messages between one request's client and the application, without waiting for a client that is
    too slow."""

    def __init__(self, protocol: HttpProtocol, receive: Receive, send: Send) -> None:
        self._protocol = protocol
        self._receive = receive
        self._send = send
        self._sending = protocol.patience
        self._receiving = protocol.patience
        self._body_ended = False
        self._is_over = False
        # Whether more of the body waits to be parsed than a turn parses.
        self._is_in_small_pieces = False
        self.turn: LoopTurn | None = None

    async def receive(self) -> Message:
        """The next message. Raises HTTPException (408) once if the body arrives too slowly; then the client
        counts as disconnected. 503 if the request does not get its turn."""
        if self.turn is not None:
            self.turn.end(rests=self._is_in_small_pieces)
        if self._body_ended:
            return await self._receive()
        if self._is_over:
            return {"type": "http.disconnect"}
        if self._protocol.conn.is_withholding:
            await self._take_turn()
        self._is_in_small_pieces = self._protocol.want_body()
        if self._is_in_small_pieces:
            await asyncio.sleep(0)
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._receiving.seconds_left):
                message = await self._receive()
        except TimeoutError as error:
            self._is_over = True
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from error
        self._protocol.hold_back()
        self._receiving.waited(time.monotonic() - began, passed_bytes=len(message.get("body", b"")))
        await self._take_turn()
        self._body_ended = not message.get("more_body", False)
        return message

    async def _take_turn(self) -> None:
        if self.turn is None:
            return
        try:
            await self.turn.begin()
        except TimeoutError as error:
            self._is_over = True
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, BUSY) from error

    async def send(self, message: Message) -> None:
        """Send the message. Aborts the connection if the client reads earlier ones too slowly."""
        if self.turn is not None and message["type"] == "http.response.start":
            # Refused before its body was parsed: the next one may come as fast.
            self.turn.end(rests=self._protocol.conn.is_withholding)
        if self._protocol.is_gone:
            # Sending to a client that has disconnected takes no time: tasks that wait to learn of it would never run.
            await asyncio.sleep(0)
        if not self._protocol.is_writing_paused:
            await self._send(message)
            return
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._sending.seconds_left):
                await self._send(message)
        except TimeoutError:
            self._protocol.abort_slow()
        else:
            size_bytes = len(message.get("body", b""))
            self._sending.waited(time.monotonic() - began, passed_bytes=size_bytes)


def _to_origin_form(scope: Scope) -> None:
    """Convert an absolute request target (RFC 9112, section 3.2.2) to the usual form: its host becomes the Host."""
    raw_path: bytes = scope["raw_path"]
    if raw_path.startswith(b"/"):
        return
    try:
        target = urlsplit(raw_path.decode("ascii"))
    except ValueError:
        return
    host = target.netloc.rpartition("@")[2]
    if target.scheme.lower() not in ("http", "https") or not host:
        return
    path = target.path or "/"
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    scope["headers"] = [(b"host", host.encode("ascii")), *headers]
    scope["path"], scope["raw_path"] = unquote(path), path.encode("ascii")
