"""HTTP/1.1 with connections that the application can cut."""

from typing import Any

from starlette.types import Receive, Scope, Send

from app.http.uvicorn_protocol import HttpProtocol

# The key, in a scope's extensions, of a function that ends the connection; `flush`: after sending what is buffered.
CUT = "regen.cut"


class CuttableProtocol(HttpProtocol):
    """Give it to uvicorn as `http`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        application = self.app

        async def with_cut(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[CUT] = self.cut
            await application(scope, receive, send)

        self.app = with_cut

    def cut(self, *, flush: bool) -> None:
        if flush:
            self.transport.close()
        else:
            self.transport.abort()
