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
# For how long a process with more connections leaves one to another process.
YIELD_SECONDS = 0.01

log = structlog.get_logger(__name__)


class Acceptor:
    """Accepts connections while there is room for them: the others wait in the system's queue. asyncio's own
    server accepts all waiting ones before it serves one, and logs each failure for lack of open files.

    Of several processes that accept from one socket, those with more connections than another let that one go first: a
    client keeps its connection, and whichever process happened to be idle would have them all.

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
        try:
            while True:
                if not self._lines:
                    await self._connections.wait_for_room()
                    try:
                        client, address = await self._accept_one()
                    except ConnectionAbortedError:
                        continue
                    except OSError as error:
                        # No more open files or memory.
                        self._tell(error)
                        self._connections.close_longest_idle()
                        await asyncio.sleep(PAUSE_SECONDS)
                        continue
                    self._line_up(client, address)
                for client, address in self._accept_more(self._most_more()):
                    self._line_up(client, address)
                if self._connections.room > 0:
                    await asyncio.gather(*map(self._connect, self._first_of_each()))
                else:
                    await self._connections.wait_for_room()
        finally:
            self._listener.close()
            for client in itertools.chain(*self._lines.values()):
                client.close()

    async def _accept_one(self) -> tuple[socket.socket, Any]:
        if self._connections.lead is None:
            return await asyncio.get_running_loop().sock_accept(self._listener)
        while True:
            await self._until_one_waits()
            if self._connections.lead > 0:
                await asyncio.sleep(YIELD_SECONDS)
            with suppress(BlockingIOError):  # another process was faster
                client, address = self._listener.accept()
                client.setblocking(False)
                return client, address

    async def _until_one_waits(self) -> None:
        loop = asyncio.get_running_loop()
        waits = asyncio.Event()
        loop.add_reader(self._listener, waits.set)
        try:
            await waits.wait()
        finally:
            loop.remove_reader(self._listener)

    def _most_more(self) -> int:
        most = min(self._connections.room, MOST_AT_ONCE) - 1
        lead = self._connections.lead
        return most if lead is None else min(most, 1 - lead)

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
        self._note_lines()

    def _first_of_each(self) -> list[socket.socket]:
        firsts = [line.popleft() for line in itertools.islice(self._lines.values(), self._connections.room)]
        self._lines = {peer: line for peer, line in self._lines.items() if line}
        self._note_lines()
        return firsts

    def _note_lines(self) -> None:
        self._connections.note_lined_up(sum(map(len, self._lines.values())))

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
