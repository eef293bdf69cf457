"""The API in a thread of the tests' own process."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from fastapi import FastAPI

from app.http.connections import ConnectionLimits
from app.platform.settings import Settings
from app.serving.api import ApiServer
from app.serving.listener import listen, local_url

START_SECONDS = 20
STOP_SECONDS = 20


class PromptServer(ApiServer):
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
def serving(app: FastAPI, *, limits: ConnectionLimits | None = None) -> Iterator[str]:
    """The address of a real HTTP server on loopback. At the end it waits for open requests, then ends."""
    with listen("127.0.0.1", 0) as listener:
        server = PromptServer(app, limits=limits or ConnectionLimits.from_settings(Settings()))
        thread = threading.Thread(target=server.serve_socket, args=(listener,), daemon=True)
        thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield local_url(listener)
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)
            assert not thread.is_alive(), "the server did not stop"
