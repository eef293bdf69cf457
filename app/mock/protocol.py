"""HTTP/1.1 as everywhere, whose connections an application may cut."""

from typing import Any

from starlette.types import Receive, Scope, Send

from app.http.protocol import ErrorShapeProtocol

# In a scope's extensions: what ends the connection. Its argument says whether what was sent goes out before.
CUT = "regen.cut"


class CuttableProtocol(ErrorShapeProtocol):
    """Give it to uvicorn as `http`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        application = self.app

        async def with_scissors(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[CUT] = self.cut
            await application(scope, receive, send)

        self.app = with_scissors

    def cut(self, *, flush: bool) -> None:
        if flush:
            self.transport.close()
        else:
            self.transport.abort()
