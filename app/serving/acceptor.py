"""Accepts the connections of a listening socket."""

import asyncio
import itertools
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import structlog

from app.http.connections import LOG_SECONDS, Connections, peer_of

PAUSE_SECONDS = 0.2
# Accepted between two rounds of the event loop.
MOST_AT_ONCE = 32

log = structlog.get_logger(__name__)


class Acceptor:
    """Accepts connections while there is room for them: the others wait in the system's queue. asyncio's own
    server accepts all waiting ones before it serves one, and logs each failure for lack of open files.

    Setting one up takes ten times as long as accepting it: in each round of the event loop every peer has one set up,
    and the others of a peer wait in line, as many as it may have connections.
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
        self._lines: dict[str, deque[socket.socket]] = {}
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
                if not self._lines:
                    await self._connections.wait_for_room()
                    try:
                        client, address = await loop.sock_accept(self._listener)
                    except ConnectionAbortedError:
                        continue
                    except OSError as error:
                        # No more open files or memory.
                        self._tell(error)
                        self._connections.close_longest_idle()
                        await asyncio.sleep(PAUSE_SECONDS)
                        continue
                    self._line_up(client, address)
                for client, address in self._accept_more(min(self._connections.room, MOST_AT_ONCE) - 1):
                    self._line_up(client, address)
                if self._connections.room > 0:
                    await asyncio.gather(*map(self._connect, self._first_of_each()))
                else:
                    await self._connections.wait_for_room()
        finally:
            self._listener.close()
            for client in itertools.chain(*self._lines.values()):
                client.close()

    def _accept_more(self, most: int) -> Iterator[tuple[socket.socket, Any]]:
        """Those that wait already."""
        with suppress(OSError):
            for _ in range(most):
                client, address = self._listener.accept()
                client.setblocking(False)
                yield client, address

    def _line_up(self, client: socket.socket, address: Any) -> None:
        line = self._lines.setdefault(peer_of(address[0]), deque())
        line.append(client)
        if len(line) > self._connections.limits.most_per_peer:
            line.popleft().close()

    def _first_of_each(self) -> list[socket.socket]:
        firsts = [line.popleft() for line in itertools.islice(self._lines.values(), self._connections.room)]
        self._lines = {peer: line for peer, line in self._lines.items() if line}
        return firsts

    async def _connect(self, client: socket.socket) -> None:
        try:
            with suppress(BlockingIOError):  # nothing has come yet
                client.recv(1, socket.MSG_PEEK)  # raises if the client has left
            await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, client)
        except OSError:
            client.close()

    def _tell(self, error: OSError) -> None:
        if time.monotonic() - self._told_at >= LOG_SECONDS:
            self._told_at = time.monotonic()
            log.warning("accept_failed", error=str(error))
