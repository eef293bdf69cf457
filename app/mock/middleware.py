"""The mock's middleware: records requests, advances renders, and applies faults."""

import re
from collections.abc import Awaitable, Callable
from contextvars import Token
from functools import partial
from typing import Any

import anyio
from anyio import to_thread
from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.errors import error_response
from app.http.fields import MOST_TOLD, advice_on, shown_name
from app.http.middleware import streams_body
from app.mock.driver import MockDriver
from app.mock.fault_rules import FaultAction
from app.mock.faults import ActiveFaults, urls_expire
from app.mock.options import TransitionMode
from app.mock.recorder import BodyReader, Log, ReceivedRequest, received_request
from app.mock.repeatable import Repeatable
from app.mock.transfers import CUT, Throttle

CONTROL_PREFIX = "/_mock"
LONGEST_WORK_SECONDS = 60.0
# Probes, and a browser that loads the console or pages of help, arrive at unpredictable times: they are not recorded
# and do not move the clock.
PROBES = frozenset({"/", "/healthz", "/readyz", "/metrics"})
PAGE_PREFIXES = ("/console/", "/help")
FAULT = "This fault was requested."
_RENDER = re.compile(r"(?:/v1)?/renders/([A-Za-z0-9]+)")


def is_observed(path: str) -> bool:
    """Whether requests to the path are recorded and move the clock, and rules apply to them."""
    return not path.startswith((CONTROL_PREFIX, *PAGE_PREFIXES)) and path not in PROBES


def _is_observed(scope: Scope) -> bool:
    return scope["type"] == "http" and is_observed(scope["path"])


class RequestScopeMiddleware:
    """The outermost middleware: each request is a scope of `Repeatable`."""

    def __init__(self, app: ASGIApp, *, repeatable: Repeatable) -> None:
        self.app = app
        self._repeatable = repeatable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_observed(scope):
            await self.app(scope, receive, send)
            return
        with self._repeatable.request():
            await self.app(scope, receive, send)


class FaultMiddleware:
    """The innermost middleware, next to the routes, so that its own answers look like theirs."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        requests: Log[ReceivedRequest],
        faults: ActiveFaults,
        driver: Callable[[], MockDriver],
    ) -> None:
        self.app = app
        self._requests = requests
        self._faults = faults
        self._driver = driver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_observed(scope):
            await self.app(scope, receive, send)
            return
        request = self._requests.add(partial(received_request, scope))
        exchange = _Exchange(scope, receive, send, request)
        action = self._faults.next_of(request.method, request.path)
        if action is None:
            await self._pass_on(exchange)
            return
        request.fault = action.model_dump(exclude_defaults=True)
        exchange.slow_down(action)
        if action.latency_seconds:
            await anyio.sleep(action.latency_seconds)
        await self._apply(action, exchange)

    async def _apply(self, action: FaultAction, exchange: "_Exchange") -> None:
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
            self._faults.add_render_fault(request_id, action.render)
            await self._pass_on(exchange)
            if exchange.request.status is None or exchange.request.status >= 400:
                self._faults.take_render_fault(request_id)
        elif action.expired_urls:
            token: Token[bool] = urls_expire.set(True)
            try:
                await self._pass_on(exchange)
            finally:
                urls_expire.reset(token)
        else:
            await self._pass_on(exchange)

    async def _pass_on(self, exchange: "_Exchange", *, send: Send | None = None) -> None:
        await self._settle(exchange.request)
        try:
            await self.app(exchange.scope, exchange.receive, send or exchange.send)
        finally:
            exchange.body.end()

    async def _settle(self, request: ReceivedRequest) -> None:
        """Waits for due transitions, so that no answer depends on the speed of earlier requests' work."""
        driver = self._driver()
        if driver.transitions.mode is TransitionMode.SECONDS:
            return
        found = _RENDER.fullmatch(request.path) if request.method == "GET" else None
        await to_thread.run_sync(lambda: driver.settle(polled=found[1] if found else None))


class StrictParametersMiddleware:
    """Refuses unknown query parameters if the mock is strict."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self.app
        if _is_observed(scope) and scope["app"].state.refuses_unknown_names():
            known = _parameters(scope)
            messages = [
                f"{shown_name(name)} is not a parameter of this address{advice_on(name, known)}"
                for name in Request(scope).query_params
                if known is not None and name not in known
            ]
            answer = error_response(400, messages[:MOST_TOLD]) if messages else answer
        await answer(scope, receive, send)


def _parameters(scope: Scope) -> list[str] | None:
    """The query parameters of the address; None if the API's description has no such route."""
    for context in iter_route_contexts(scope["app"].routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.include_in_schema and route.matches(scope)[0] is Match.FULL:
            fields = get_flat_params(route.dependant)
            return [field.alias for field in fields if isinstance(field.field_info, params.Query)]
    return None


class _Exchange:
    """One request and its answer, both recorded as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request: ReceivedRequest) -> None:
        self.scope = scope
        self.request = request
        self.body = BodyReader(request)
        self._receive = receive
        self._send = send
        self._read = False
        self._is_cut = False
        self._answer_latency_seconds = 0.0
        self._upload: Throttle | None = None
        self._download: Throttle | None = None

    def slow_down(self, action: FaultAction) -> None:
        """Delays the rest of the exchange as the action says."""
        self._answer_latency_seconds = action.answer_latency_seconds
        self._upload = Throttle(action.upload) if action.upload else None
        self._download = Throttle(action.download) if action.download else None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._read and self._answer_latency_seconds:
            # The client has sent everything: the work is done without it, and that it left is told later.
            await anyio.sleep(LONGEST_WORK_SECONDS)
        if message["type"] == "http.request":
            body = message.get("body", b"")
            self.body.feed(body)
            if self._upload is not None and body:
                await self._upload.wait(len(body))
            self._read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.request.status = message["status"]
            # The work is done and committed, even if the client disconnects in between.
            await anyio.sleep(self._answer_latency_seconds)
        elif self._download is not None and message.get("body"):
            for piece in self._download.pieces(message["body"]):
                await self._send({**message, "body": piece, "more_body": True})
                await self._download.wait(len(piece))
            message = {**message, "body": b""}
        await self._send(message)

    async def read_to_end(self) -> None:
        """Records the whole body, which no route reads."""
        streams_body(Request(self.scope))
        while not self._read:
            if (await self.receive())["type"] == "http.disconnect":
                break
        self.body.end()

    async def withhold(self, message: Message) -> None:
        """Drops the answer."""
        if message["type"] == "http.response.start":
            self.request.status = message["status"]

    async def send_half(self, message: Message) -> None:
        """Sends the headers and half of the first piece of the body, then cuts the connection."""
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
        """Ends the connection, and returns once the application has been told."""
        end: Callable[..., None] | None = self.scope.get("extensions", {}).get(CUT)
        if end is None:
            raise RuntimeError("connections can be cut only where the mock's own protocol serves them")
        end(flush=flush)
        receive: Callable[[], Awaitable[Message]] = self._receive
        while (await receive())["type"] != "http.disconnect":
            pass


def _answer(action: FaultAction) -> Response:
    assert action.status is not None
    body: Any = action.body
    if body is None and action.status >= 400:
        return error_response(action.status, [FAULT], headers=action.headers)
    if body is None or isinstance(body, str):
        return Response(body, status_code=action.status, headers=action.headers)
    return JSONResponse(body, status_code=action.status, headers=action.headers)
