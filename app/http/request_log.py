"""The record of every request: its id, one line in the log when it is done, and its metrics."""

import re
import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.metrics import HttpMetrics
from app.platform.secrets import new_id

REQUEST_ID_HEADER = b"x-request-id"
SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
UNMATCHED = "unmatched"
# Polled by machines every few seconds.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
# Path parameters that get their own field, if they can be ids of ours.
IDS_IN_PATHS = ("render_id", "file_id")
ID = re.compile(r"[A-Za-z0-9]{1,32}")

# The client disconnected before the answer; nginx's status for this.
CLIENT_LEFT = 499
CRASHED = 500
EVENT_STREAM = b"text/event-stream"

log = structlog.get_logger(__name__)


class RequestLog:
    """The outermost middleware. Keeps a client's valid X-Request-ID, otherwise makes one; every answer and
    every log line of the request has it, and routes find it in `request.state.request_id`.
    """

    def __init__(self, app: ASGIApp, *, metrics: HttpMetrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        request_id = given_id(scope) or new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        # Requests on one connection may inherit each other's context.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = _Answer(request_id)

        async def receive_and_note() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                answer.client_left()
            else:
                self._metrics.upload_bytes.inc(len(message.get("body", b"")))
            return message

        async def send_and_note(message: Message) -> None:
            if _is_stream_start(message):
                # It lasts as long as its client likes: not a slow request of the server's.
                self._metrics.in_progress.dec()
                self._metrics.event_streams.inc()
                answer.is_stream = True
            await send(answer.noted(message))

        self._metrics.in_progress.inc()
        try:
            await self.app(scope, receive_and_note, send_and_note)
        finally:
            (self._metrics.event_streams if answer.is_stream else self._metrics.in_progress).dec()
            self._note_end(scope, answer, time.perf_counter() - started_at)

    def _note_end(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self._metrics.requests.labels(method=method, route=route, status=answer.status).inc()
        if not answer.is_stream:
            self._metrics.seconds.labels(method=method, route=route).observe(seconds)
        ids = {name: str((scope.get("path_params") or {}).get(name, "")) for name in IDS_IN_PATHS}
        facts: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": answer.status,
            "duration_ms": round(seconds * 1000, 1),
            "response_bytes": answer.sent_bytes,
            **{name: value for name, value in ids.items() if ID.fullmatch(value)},
        }
        if scope.get("client"):
            facts["client"] = scope["client"][0]
        if "user_id" in scope["state"]:
            facts["user_id"] = scope["state"]["user_id"]
        if answer.aborted:
            facts["aborted"] = True
        if route in PROBES:
            log.debug("request_done", **facts)
        else:
            log.info("request_done", **facts)


class _Answer:
    """The outcome of one answer."""

    def __init__(self, request_id: str) -> None:
        self.aborted = False
        self.is_stream = False
        self.sent_bytes = 0
        self._header = (REQUEST_ID_HEADER, request_id.encode())
        self._status: int | None = None
        self._announced_bytes: int | None = None
        self._complete = False

    @property
    def status(self) -> int:
        """As sent; CLIENT_LEFT if the client disconnected before, CRASHED if there was none."""
        return CRASHED if self._status is None else self._status

    def noted(self, message: Message) -> Message:
        """The message to send."""
        if message["type"] == "http.response.start":
            # An answer to a client that has disconnected is logged as such.
            self._status = CLIENT_LEFT if self.aborted else int(message["status"])
            headers = [*message.get("headers", ())]
            lengths = [value for name, value in headers if name.lower() == b"content-length"]
            self._announced_bytes = int(lengths[0]) if lengths else None
            return {**message, "headers": [*headers, self._header]}
        self.sent_bytes += len(message.get("body", b""))
        self._complete = self.sent_bytes == self._announced_bytes or not message.get("more_body", False)
        return message

    def client_left(self) -> None:
        if not self._complete:
            self.aborted = True
            if self._status is None:
                self._status = CLIENT_LEFT


def _is_stream_start(message: Message) -> bool:
    return message["type"] == "http.response.start" and any(
        name.lower() == b"content-type" and value.startswith(EVENT_STREAM)
        for name, value in message.get("headers", ())
    )


def given_id(scope: Scope) -> str | None:
    """The client's own request id, if it is valid in a log, a header and a row."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER:
            text = value.decode("latin-1")
            return text if SANE_ID.fullmatch(text) else None
    return None
