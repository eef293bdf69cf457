"""A client that costs little: one request, sent again and again over as many connections as there are to be clients.

As a program it reads its orders from standard input and writes what it saw to standard output, each a line of JSON, so
that it has a process of its own and is started once. It understands answers that say their length, and no others.
"""

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import dataclass

from bench.cluster import percentile

HOST = "127.0.0.1"
LAST_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Times are in milliseconds, from the first byte of a request to the last of its answer."""

    p50_ms: float
    p99_ms: float
    answers: int
    seconds: float
    client_cpu_seconds: float
    statuses: dict[str, int]

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


class LoadClient:
    """The program in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *, port: int, request: bytes, clients: int, seconds: float) -> Seen:
        """`clients` at once, for so long. Fails unless every answer is 200."""
        order = {"port": port, "request": b64encode(request).decode(), "clients": clients, "seconds": seconds}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        seen = Seen(**json.loads(self._process.stdout.readline()))
        assert set(seen.statuses) == {"200"}, seen.statuses
        return seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class _Connection(asyncio.Protocol):
    """Asks until `ends_at`, one request after the other."""

    def __init__(self, request: bytes, ends_at: float, ended: asyncio.Future[None]) -> None:
        self.milliseconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self._request, self._ends_at, self._ended = request, ends_at, ended
        self._received = bytearray()
        self._wanted_bytes: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._wanted_bytes is None:
            head_bytes = self._received.find(b"\r\n\r\n") + 4
            if head_bytes < 4:
                return
            head = bytes(self._received[:head_bytes])
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._wanted_bytes = head_bytes + int(length)
            self._status = head[9:12].decode()
        if len(self._received) < self._wanted_bytes:
            return
        now = time.perf_counter()
        self.milliseconds.append(1000 * (now - self._asked_at))
        self.statuses[self._status] += 1
        self._received.clear()
        self._wanted_bytes = None
        if now < self._ends_at:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._ends_at or exc is not None:
            self.statuses["connection lost"] += 1
        if not self._ended.done():
            self._ended.set_result(None)


async def _load(*, port: int, request: bytes, clients: int, seconds: float) -> Seen:
    loop = asyncio.get_running_loop()
    cpu_before, started_at = time.process_time(), time.perf_counter()
    connections: list[_Connection] = []
    ends: list[asyncio.Future[None]] = []
    for _number in range(clients):
        ended: asyncio.Future[None] = loop.create_future()
        connection = _Connection(request, started_at + seconds, ended)
        await loop.create_connection(lambda connection=connection: connection, HOST, port)  # type: ignore[misc]
        connections.append(connection)
        ends.append(ended)
    await asyncio.wait_for(asyncio.gather(*ends), seconds + LAST_ANSWER_SECONDS)
    elapsed = time.perf_counter() - started_at
    milliseconds = [taken for connection in connections for taken in connection.milliseconds]
    return Seen(
        p50_ms=percentile(milliseconds, 0.5),
        p99_ms=percentile(milliseconds, 0.99),
        answers=len(milliseconds),
        seconds=elapsed,
        client_cpu_seconds=time.process_time() - cpu_before,
        statuses=dict(sum((connection.statuses for connection in connections), Counter[str]())),
    )


def main() -> None:
    while line := sys.stdin.readline():
        order = json.loads(line)
        seen = asyncio.run(_load(**{**order, "request": b64decode(order["request"])}))
        print(json.dumps(vars(seen)), flush=True)


if __name__ == "__main__":
    main()
