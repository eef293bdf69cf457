"""HTTP/1.1 by uvicorn and h11, with the errors that it answers itself in the one error shape.

A request that is not HTTP, or whose headers are over-long, never reaches the application.
"""

from typing import Any

import h11
import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.http.errors import error_response
from app.http.request_log import REQUEST_ID_HEADER
from app.platform.secrets import new_id

BAD_REQUEST = "This is not a valid HTTP/1.1 request, or its headers are too long."

log = structlog.get_logger(__name__)


# In a scope's extensions: a function that ends the connection at once, whatever was not sent yet. Completing or leaving
# an answer waits for a client that takes nothing for as long as its system keeps the connection.
ABORT = "regen.abort"


class ErrorShapeProtocol(H11Protocol):
    """Give it to uvicorn as `http`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        application = self.app

        async def with_abort(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[ABORT] = self.transport.abort
            await application(scope, receive, send)

        self.app = with_abort

    def send_400_response(self, msg: str) -> None:
        request_id = new_id()
        log.info("request_unreadable", request_id=request_id, client=self.client[0] if self.client else None)
        content = bytes(error_response(400, [BAD_REQUEST]).body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
            (REQUEST_ID_HEADER, request_id.encode()),
        ]
        events = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
