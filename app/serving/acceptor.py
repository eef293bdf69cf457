"""Accepts the connections of a listening socket."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import structlog

from app.http.connections import LOG_SECONDS, Connections

PAUSE_SECONDS = 0.2
# Accepted between two rounds of the event loop.
MOST_AT_ONCE = 32

log = structlog.get_logger(__name__)


class Acceptor:
    """Accepts connections while there is room for them: the others wait in the system's queue. asyncio's own
    server accepts all waiting ones before it serves one, and logs each failure for lack of open files.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        connections: Connections,
    ) -> None:
        """Accepts from now on, in the running event loop. `listener` is closed by `close`."""
        self.sockets = (listener,)
        self._listener = listener
        self._make_protocol = make_protocol
        self._connections = connections
        self._told_at = -LOG_SECONDS
        listener.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        self._task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.wait([self._task])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._connections.wait_for_room()
                try:
                    first, _address = await loop.sock_accept(self._listener)
                except ConnectionAbortedError:
                    continue
                except OSError as error:
                    # No more open files or memory.
                    self._tell(error)
                    self._connections.close_longest_idle()
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                clients = [first, *self._accept_more(min(self._connections.room, MOST_AT_ONCE) - 1)]
                await asyncio.gather(*map(self._connect, clients))
        finally:
            self._listener.close()

    def _accept_more(self, most: int) -> Iterator[socket.socket]:
        """Those that wait already."""
        with suppress(OSError):
            for _ in range(most):
                client, _address = self._listener.accept()
                client.setblocking(False)
                yield client

    async def _connect(self, client: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, client)
        except OSError:
            client.close()

    def _tell(self, error: OSError) -> None:
        if time.monotonic() - self._told_at >= LOG_SECONDS:
            self._told_at = time.monotonic()
            log.warning("accept_failed", error=str(error))
