"""The connections of one server: their number, and for how long a client may keep one waiting."""

import asyncio
import ipaddress
import mmap
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import structlog

from app.platform.settings import Settings

# For everything except connections and their requests' files: database, broker, logs, ffmpeg's pipes.
RESERVED_FILES = 150
FILES_PER_CONNECTION = 2
LOG_SECONDS = 60.0
# Of a count, in the memory that API processes share.
NUMBER_BYTES = 4

log = structlog.get_logger(__name__)


class ConnectionCounts:
    """For the process of that number, from 0. The others' numbers may change at any time."""

    def __init__(self, path: Path, *, number: int) -> None:
        """`path` is of `make_counts`."""
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("i")
        self._number = number
        self.tell(0)

    def tell(self, count: int) -> None:
        self._numbers[self._number] = count

    @property
    def lead(self) -> int:
        """How many connections this process has more than the one of the others that has the fewest."""
        others = (count for number, count in enumerate(self._numbers) if number != self._number)
        return self._numbers[self._number] - min(others)


def make_counts(path: Path, processes: int) -> None:
    """Make the file for so many processes, 2 or more, which have no connections yet."""
    path.write_bytes(bytes(NUMBER_BYTES * processes))


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """`most` connections at once, `most_per_peer` of them from one address.

    A connection is closed after `keep_alive_seconds` without a new request, and when a request's head is not complete
    `head_seconds` after it could begin. A client that sends a body or takes an answer slower than `bytes_per_second`
    is waited for `patience_seconds` in all.
    """

    keep_alive_seconds: float
    head_seconds: float
    patience_seconds: float
    bytes_per_second: int
    most: int
    most_per_peer: int

    @classmethod
    def from_settings(cls, settings: Settings, *, open_files: int | None = None) -> Self:
        """Those of one API process. `open_files` is its limit of open files; None for any number."""
        most = settings.share(settings.max_connections)
        if open_files is not None:
            most = max(1, min(most, (open_files - RESERVED_FILES) // FILES_PER_CONNECTION))
        per_peer = settings.max_connections_per_peer
        return cls(
            keep_alive_seconds=settings.keep_alive_seconds,
            head_seconds=settings.request_head_seconds,
            patience_seconds=settings.transfer_patience_seconds,
            bytes_per_second=settings.min_transfer_bytes_per_second,
            most=most,
            most_per_peer=max(1, most // 2) if per_peer is None else settings.share(per_peer),
        )

    @property
    def wanted_files(self) -> int:
        """The limit of open files that allows `most` connections."""
        return self.most * FILES_PER_CONNECTION + RESERVED_FILES


class Connection(Protocol):
    """A connection as `Connections` sees it."""

    def close_idle(self) -> None:
        """End the connection, on which no request is in progress."""


class Connections:
    """The open connections of one server.

    Above a limit the connection that has been idle for longest is closed, whether it never had a request or
    is kept alive: a client with a request always finds room, even while others only occupy connections.
    """

    def __init__(self, limits: ConnectionLimits, *, counts: ConnectionCounts | None = None) -> None:
        """`counts`: of this and the other API processes of the server; None if there is one."""
        self.limits = limits
        self._counts = counts
        self._lined_up = 0
        self._peers: dict[Connection, str] = {}
        self._numbers: Counter[str] = Counter()
        # In the order in which they became idle.
        self._idle: dict[Connection, None] = {}
        self._change = asyncio.Event()
        self._told_at = -LOG_SECONDS

    @property
    def room(self) -> int:
        """How many more connections may be accepted, including those for which idle ones are closed."""
        return self.limits.most + 1 - len(self._peers) + len(self._idle)

    @property
    def lead(self) -> int | None:
        """How many connections more than another API process this one has; None if it is the only one."""
        return None if self._counts is None else self._counts.lead

    def note_lined_up(self, lined_up: int) -> None:
        """Note how many connections are accepted and not added yet."""
        self._lined_up = lined_up
        self._tell_counts()

    def _tell_counts(self) -> None:
        if self._counts is not None:
            self._counts.tell(len(self._peers) + self._lined_up)

    async def wait_for_room(self) -> None:
        """Wait until another connection may be accepted."""
        while len(self._peers) > self.limits.most:
            self._change.clear()
            await self._change.wait()

    def add(self, connection: Connection, *, host: str) -> None:
        """Add a new, idle connection from that address. Closes an idle one if there are too many."""
        peer = peer_of(host)
        self._peers[connection] = peer
        self._numbers[peer] += 1
        self._idle[connection] = None
        self._tell_counts()
        if self._numbers[peer] > self.limits.most_per_peer:
            self._close_idle(peer)
        elif len(self._peers) > self.limits.most:
            self.close_longest_idle(but=connection)

    def remove(self, connection: Connection) -> None:
        peer = self._peers.pop(connection)
        self._numbers[peer] -= 1
        if not self._numbers[peer]:
            del self._numbers[peer]
        self._idle.pop(connection, None)
        self._tell_counts()
        self._change.set()

    def note_request(self, connection: Connection) -> None:
        """Note that a request is in progress on the connection."""
        self._idle.pop(connection, None)

    def note_idle(self, connection: Connection) -> None:
        """Note that the connection's request has been answered, or that it waits for a request again."""
        self._idle.setdefault(connection, None)

    def close_longest_idle(self, *, but: Connection | None = None) -> None:
        """Close the connection that has been idle for longest, if there is one."""
        found = next((one for one in self._idle if one is not but), None)
        if found is not None:
            self._close(found)

    def _close_idle(self, peer: str) -> None:
        """The newest is idle, so there is one."""
        self._close(next(one for one in self._idle if self._peers[one] == peer))

    def _close(self, connection: Connection) -> None:
        if time.monotonic() - self._told_at >= LOG_SECONDS:
            self._told_at = time.monotonic()
            busiest, number = self._numbers.most_common(1)[0]
            log.warning(
                "connections_at_limit", open=len(self._peers), of_busiest_peer=number, busiest_peer=busiest
            )
        del self._idle[connection]
        connection.close_idle()


class Patience:
    """For how much longer the server waits for one request's client.

    Waiting uses the time up, and every byte that passes restores its own share of it, never beyond
    `patience_seconds`.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self.seconds_left = limits.patience_seconds

    def waited(self, seconds: float, *, passed_bytes: int) -> None:
        limits = self._limits
        earned = passed_bytes / limits.bytes_per_second if limits.bytes_per_second else float(passed_bytes)
        self.seconds_left = min(limits.patience_seconds, self.seconds_left - seconds + earned)


def peer_of(host: str) -> str:
    """The peer of an address: an IPv4 address, or the 64-bit network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
