"""The API in a thread of the tests' own process."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from app.http.protocol import ErrorShapeProtocol

START_SECONDS = 20
STOP_SECONDS = 20


class PromptServer(uvicorn.Server):
    """Ends as soon as it is told to. uvicorn's own looks ten times a second, and waits even if nobody is connected."""

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks // 10):
            ticks += 1
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
            await server.wait_closed()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of a real HTTP server on loopback. At the end it waits for open requests, then ends."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", access_log=False, http=ErrorShapeProtocol
    )
    server = PromptServer(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        assert not thread.is_alive(), "the server did not stop"
