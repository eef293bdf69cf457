"""What do floods of requests cost another user of the same API process?

    python -m bench.floods [--only lists,chunks] [--connections 200] [--seconds 6]

The attacker is a process of its own with the lowest priority (`--nice 19`), so that it takes little of the processors
that a real one would bring along, and has an address of its own (127.0.0.2) unless `--same-peer`. A neighbour polls a
render on one kept connection, 20 ms after each answer: alone, with `--elsewhere` while the attacker floods another
server (what the lack of processors costs), and beside the attack. On a busy machine, as root:
`--nice -8 --priority -16`.
"""

import argparse
import asyncio
import os
import random
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.api_cost import constant_side, regen_side, request
from bench.cluster import percentile
from bench.laptop import Laptop
from bench.machine import heading, table
from bench.padded_video import make_clip
from bench.process_facts import cpu_seconds, resident_bytes

HOST, OTHER_HOST = "127.0.0.1", "127.0.0.2"
PAUSE_SECONDS = 0.02
PATIENCE_SECONDS = 100.0
RENDERS = 100
TINY_CHUNKS, SMALL_CHUNKS = b"1\r\nx\r\n" * 4000, b"80\r\n%b\r\n" % bytes(128) * 180
FORM = "multipart/form-data; boundary=a-boundary"
# Name: the path, whether the key is valid, and how the requests follow each other.
ATTACKS = {
    "lists": ("lists of 100 renders, the next after each answer", True, "turns"),
    "pipelined": ("the same, 50 sent at once on each connection", True, "pipelined"),
    "badkeys": ("polls with invalid keys, each another", False, "turns"),
    "reconnects": (
        "polls with invalid keys, a connection for each, that wait for no answer",
        False,
        "reconnects",
    ),
    "crumbs": ("endless heads, a byte at a time", False, "crumbs"),
    "chunks": ("endless uploads in chunks of one byte", True, "chunks"),
    "badchunks": ("the same with an invalid key", False, "chunks"),
    "rechunks": ("the same with a new connection after each answer", False, "rechunks"),
    "smallchunks": ("endless uploads in chunks of 128 bytes, which are not refused", True, "smallchunks"),
}


MANNERS_OF_CHUNKS = {"chunks": TINY_CHUNKS, "rechunks": TINY_CHUNKS, "smallchunks": SMALL_CHUNKS}


class Attacker:
    """So many connections in one thread. Counts the answers' statuses as far as it can see them."""

    def __init__(self, *, kind: str, port: int, key: str, connections: int, host: str) -> None:
        self._valid, self._manner = ATTACKS[kind][1:]
        self._port, self._key, self._host = port, key, host
        self._selector = selectors.DefaultSelector()
        self._number = connections
        self.seen: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        for _ in range(self._number):
            self._connect()
        print("begun", flush=True)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            for found, events in self._selector.select(1):
                client, left = found.fileobj, found.data
                assert isinstance(client, socket.socket)
                try:
                    self._serve(client, left, events)
                except BlockingIOError:
                    continue
                except OSError as error:
                    self.seen[type(error).__name__] += 1
                    self._again(client)

    def _connect(self) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        if self._manner == "crumbs":
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        client.bind((self._host, 0))
        client.connect_ex((HOST, self._port))
        self.seen["connections"] += 1
        self._selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, [self._first()])

    def _again(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        client.close()
        self._connect()

    def _first(self) -> bytes:
        key = self._key if self._valid else f"rg_{random.getrandbits(256):x}"
        if self._manner in MANNERS_OF_CHUNKS:
            head = request("POST", "/v1/files", key=key).removesuffix(b"\r\n")
            return head + f"content-type: {FORM}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        if self._manner == "crumbs":
            return b"GET / HTTP/1.1\r\nX: "
        path = "/v1/renders?limit=100" if self._valid else "/v1/renders/rnd_unknown"
        return request("GET", path, key=key) * (50 if self._manner == "pipelined" else 1)

    def _serve(self, client: socket.socket, left: list[bytes], events: int) -> None:
        if events & selectors.EVENT_READ and not self._read(client, left):
            self._again(client)
            return
        if events & selectors.EVENT_WRITE:
            if self._manner == "crumbs":
                client.send(left[0][:1] or b"x")
                left[0] = left[0][1:]
                return
            if not left[0] and self._manner == "pipelined":
                left[0] = self._first()
            sent = left[0] or MANNERS_OF_CHUNKS.get(self._manner, TINY_CHUNKS)
            left[0] = sent[client.send(sent) :]
            if self._manner == "reconnects":
                self._again(client)
            elif self._manner == "turns" and not left[0]:
                self._selector.modify(client, selectors.EVENT_READ, left)

    def _read(self, client: socket.socket, left: list[bytes]) -> bool:
        """Whether the connection has any more use."""
        received = client.recv(1 << 18)
        answers = received.count(b"HTTP/1.1 ")
        if answers:
            self.seen[received.partition(b"HTTP/1.1 ")[2][:3].decode(errors="replace")] += answers
            if self._manner == "turns":
                left[:] = [self._first()]
                self._selector.modify(client, selectors.EVENT_READ | selectors.EVENT_WRITE, left)
        return bool(received) and not (answers and self._manner == "rechunks")


@dataclass(frozen=True, kw_only=True)
class Polls:
    """What one neighbour saw, in milliseconds."""

    taken: list[float]
    statuses: Counter[str]

    def __str__(self) -> str:
        p50, p99 = (percentile(self.taken, part) for part in (0.5, 0.99))
        told = "".join(f", {count} {name}" for name, count in self.statuses.items() if name != "200")
        return f"{p50:.1f} / {p99:.1f} / {max(self.taken):.0f} ms{told}"


async def _poll(port: int, poll: bytes, seconds: float) -> Polls:
    taken: list[float] = []
    statuses: Counter[str] = Counter()
    reader, writer = await asyncio.open_connection(HOST, port)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        started = time.perf_counter()
        writer.write(poll)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
            statuses[head.split()[1]] += 1
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            statuses[type(error).__name__] += 1
            writer.close()
            reader, writer = await asyncio.open_connection(HOST, port)
        taken.append(1000 * (time.perf_counter() - started))
        await asyncio.sleep(PAUSE_SECONDS)
    writer.close()
    return Polls(taken=taken, statuses=statuses)


def prioritise(pid: int, nice: int) -> None:
    """Where Linux groups processes by session, a group's niceness decides, not the process's. Below 0 needs root."""
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{nice}\n")


def beside(attack: list[str], port: int, poll: bytes, seconds: float, nice: int) -> tuple[Polls, str]:
    """The neighbour's polls beside the attack, and what the attacker saw."""
    command = [sys.executable, "-m", "bench.floods", "--attack", *attack, "--seconds", str(seconds + 1.5)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as attacker:
        prioritise(attacker.pid, nice)
        assert attacker.stdout is not None
        attacker.stdout.readline()
        time.sleep(1)
        polls = asyncio.run(_poll(port, poll, seconds))
        return polls, attacker.stdout.read().strip()


def measure(
    chosen: list[str],
    *,
    connections: int,
    seconds: float,
    same_peer: bool,
    nice: int,
    priority: int,
    with_elsewhere: bool,
) -> list[list[str]]:
    rows = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regen-clips-")))
        clip = make_clip(directory / "clip.mp4")
        server = stack.enter_context(Laptop(log_level="warning"))
        eve, bob = server.make_key("eve"), server.make_key("bob")
        regen, answer = regen_side("regen", url=server.url, key=bob, pids=[server.api.pid], video=clip)
        (directory / "answer.json").write_bytes(answer)
        bare = constant_side("bare", "fastapi", like=regen, answer=directory / "answer.json", stack=stack)
        if priority:
            for pid in (server.api.pid, *bare.pids, os.getpid()):
                prioritise(pid, priority)
        with server.client(eve) as client:
            files = {"file": ("clip.mp4", clip.read_bytes())}
            file_id = client.post("/v1/files", files=files).raise_for_status().json()["file"]["id"]
            for _ in range(RENDERS):
                client.post("/v1/upscale", json={"file_id": file_id}).raise_for_status()
        asyncio.run(_poll(server.port, regen.poll, 1))
        host = HOST if same_peer else OTHER_HOST
        for kind in chosen:
            alone = asyncio.run(_poll(server.port, regen.poll, seconds))
            attack = [kind, "--connections", str(connections), "--key", eve, "--host", host]
            elsewhere: object = ""
            if with_elsewhere:
                elsewhere, _ = beside(
                    [*attack, "--port", str(bare.port)], server.port, regen.poll, seconds, nice
                )
            before = cpu_seconds(server.api.pid)
            polls, told = beside(
                [*attack, "--port", str(server.port)], server.port, regen.poll, seconds, nice
            )
            used = (cpu_seconds(server.api.pid) - before).own / (seconds + 2.5)
            ratio = percentile(polls.taken, 0.5) / percentile(alone.taken, 0.5)
            memory = f"{resident_bytes(server.api.pid) / 2**20:.0f} MiB"
            cells = [ATTACKS[kind][0], str(alone), str(elsewhere), str(polls), f"{ratio:.1f}", told]
            rows.append([*cells, f"{used:.0%}, {memory}"])
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
            asyncio.run(_poll(server.port, regen.poll, 2))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.floods")
    parser.add_argument("--only", default=",".join(ATTACKS))
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--same-peer", action="store_true")
    parser.add_argument("--elsewhere", action="store_true", help="also beside an attack on another server")
    parser.add_argument("--nice", type=int, default=19, help="of the attacker")
    parser.add_argument(
        "--priority", type=int, default=0, help="niceness of server and neighbour, on a busy machine"
    )
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--key", default="", help=argparse.SUPPRESS)
    parser.add_argument("--host", default=HOST, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        attacker = Attacker(
            kind=options.attack,
            port=options.port,
            key=options.key,
            connections=options.connections,
            host=options.host,
        )
        attacker.run(options.seconds)
        print(", ".join(f"{count} {name}" for name, count in sorted(attacker.seen.items())))
        return
    rows = measure(
        options.only.split(","),
        connections=options.connections,
        seconds=options.seconds,
        same_peer=options.same_peer,
        nice=options.nice,
        priority=options.priority,
        with_elsewhere=options.elsewhere,
    )
    print(f"{heading()} {options.connections} connections; p50 / p99 / slowest of a neighbour's poll.\n")
    head = [
        "attack",
        "alone",
        "elsewhere",
        "beside it",
        "p50, times",
        "attacker saw",
        "API: processor, memory",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
