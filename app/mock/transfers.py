"""Slow, stalled and cut transfers."""

from collections.abc import Iterator
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from app.http.uvicorn_protocol import HttpProtocol
from app.mock.fault_rules import Transfer

PIECES_A_SECOND = 10
LARGEST_PIECE_BYTES = 64 * 1024


class Throttle:
    """Delays the bytes of one body."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._passed = 0
        self._is_stall_over = transfer.stall_after_bytes is None

    def pieces(self, body: bytes) -> Iterator[bytes]:
        """The body in pieces, each to be passed on with `wait` after it; a piece ends where the stall begins."""
        rate = self._transfer.bytes_per_second
        size = min(LARGEST_PIECE_BYTES, max(1, rate // PIECES_A_SECOND)) if rate else LARGEST_PIECE_BYTES
        at = 0
        while at < len(body):
            end = at + size
            if not self._is_stall_over:
                stall_at = at + (self._transfer.stall_after_bytes or 0) - self._passed
                end = min(end, stall_at) if stall_at > at else end
            yield body[at:end]
            at = end

    async def wait(self, size_bytes: int) -> None:
        """Waits as long as another `size_bytes` take."""
        self._passed += size_bytes
        if self._transfer.bytes_per_second:
            await anyio.sleep(size_bytes / self._transfer.bytes_per_second)
        if not self._is_stall_over and self._passed >= (self._transfer.stall_after_bytes or 0):
            self._is_stall_over = True
            await anyio.sleep(self._transfer.stall_seconds)


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
