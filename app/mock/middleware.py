"""What stands around the routes of a mock: it records requests, lets renders move on, and makes faults happen."""

import re
from collections.abc import Awaitable, Callable
from contextvars import Token
from typing import Any

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.errors import error_response
from app.http.middleware import streams_body
from app.mock.driver import Driver
from app.mock.faults import Faults, urls_expire
from app.mock.options import Pace
from app.mock.protocol import CUT
from app.mock.recorder import BodyReader, ReceivedRequest, Recorder
from app.mock.repeatable import Repeatable
from app.mock.rules import Action

CONTROL_PREFIX = "/_mock"
# Machines ask for these at times of their own: they are neither recorded nor moments.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
FAULT = "This fault was asked for."
_RENDER = re.compile(r"(?:/v1)?/renders/([A-Za-z0-9]+)")


def _is_observed(scope: Scope) -> bool:
    path = scope.get("path", "")
    return scope["type"] == "http" and not path.startswith(CONTROL_PREFIX) and path not in PROBES


class Moments:
    """The outermost of all: each request is a scope of `Repeatable`."""

    def __init__(self, app: ASGIApp, *, repeatable: Repeatable) -> None:
        self.app = app
        self._repeatable = repeatable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_observed(scope):
            await self.app(scope, receive, send)
            return
        with self._repeatable.request():
            await self.app(scope, receive, send)


class Stand:
    """The innermost of all, next to the routes: what it answers itself looks like an answer of theirs."""

    def __init__(
        self, app: ASGIApp, *, recorder: Recorder, faults: Faults, driver: Callable[[], Driver]
    ) -> None:
        self.app = app
        self._recorder = recorder
        self._faults = faults
        self._driver = driver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_observed(scope):
            await self.app(scope, receive, send)
            return
        request = self._recorder.begin(scope)
        exchange = _Exchange(scope, receive, send, request)
        action = self._faults.next_of(request.method, request.path)
        if action is None:
            await self._pass_on(exchange)
            return
        request.fault = action.model_dump(exclude_defaults=True)
        if action.latency_seconds:
            await anyio.sleep(action.latency_seconds)
        await self._do(action, exchange)

    async def _do(self, action: Action, exchange: "_Exchange") -> None:
        if action.status is not None:
            await exchange.read_to_end()
            await _answer(action)(exchange.scope, exchange.receive, exchange.send)
        elif action.cut == "before":
            await exchange.read_to_end()
            await exchange.cut(flush=False)
        elif action.cut == "after":
            await self._pass_on(exchange, send=exchange.withhold)
            await exchange.cut(flush=False)
        elif action.cut == "mid-body":
            await self._pass_on(exchange, send=exchange.send_half)
        elif action.render is not None:
            request_id = exchange.scope["state"]["request_id"]
            self._faults.note_render(request_id, action.render)
            await self._pass_on(exchange)
            if exchange.request.status is None or exchange.request.status >= 400:
                self._faults.take_render(request_id)
        elif action.expired_urls:
            token: Token[bool] = urls_expire.set(True)
            try:
                await self._pass_on(exchange)
            finally:
                urls_expire.reset(token)
        else:
            await self._pass_on(exchange)

    async def _pass_on(self, exchange: "_Exchange", *, send: Send | None = None) -> None:
        await self._move_on(exchange.request)
        try:
            await self.app(exchange.scope, exchange.receive, send or exchange.send)
        finally:
            exchange.body.end()

    async def _move_on(self, request: ReceivedRequest) -> None:
        """Whoever asks finds what is due done: no answer depends on how fast the work of earlier requests goes."""
        driver = self._driver()
        if driver.transitions.pace is Pace.SECONDS:
            return
        found = _RENDER.fullmatch(request.path) if request.method == "GET" else None
        await to_thread.run_sync(lambda: driver.settle(polled=found[1] if found else None))


class _Exchange:
    """One request and its answer, both noted as they go by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request: ReceivedRequest) -> None:
        self.scope = scope
        self.request = request
        self.body = BodyReader(request)
        self._receive = receive
        self._send = send
        self._read = False
        self._is_cut = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.body.feed(message.get("body", b""))
            self._read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.request.status = message["status"]
        await self._send(message)

    async def read_to_end(self) -> None:
        """Have the whole body noted, which no route is going to read."""
        streams_body(Request(self.scope))
        while not self._read:
            if (await self.receive())["type"] == "http.disconnect":
                break
        self.body.end()

    async def withhold(self, message: Message) -> None:
        """The answer goes nowhere."""
        if message["type"] == "http.response.start":
            self.request.status = message["status"]

    async def send_half(self, message: Message) -> None:
        """Headers, half of what comes first of the body, and then the end of the connection."""
        if self._is_cut:
            return
        if message["type"] != "http.response.body" or not message.get("body"):
            await self.send(message)
            return
        self._is_cut = True
        body = message["body"]
        await self.send({**message, "body": body[: len(body) // 2], "more_body": True})
        await self.cut(flush=True)

    async def cut(self, *, flush: bool) -> None:
        """End the connection, and wait until everybody around here knows."""
        end: Callable[..., None] | None = self.scope.get("extensions", {}).get(CUT)
        if end is None:
            raise RuntimeError("connections can be cut only where the mock's own protocol serves them")
        end(flush=flush)
        receive: Callable[[], Awaitable[Message]] = self._receive
        while (await receive())["type"] != "http.disconnect":
            pass


def _answer(action: Action) -> Response:
    assert action.status is not None
    body: Any = action.body
    if body is None and action.status >= 400:
        return error_response(action.status, [FAULT], headers=action.headers)
    if body is None or isinstance(body, str):
        return Response(body, status_code=action.status, headers=action.headers)
    return JSONResponse(body, status_code=action.status, headers=action.headers)
