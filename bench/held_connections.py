"""Does a sane client notice thousands of idle connections and slow uploads, and what do they cost the server?

    python -m bench.held_connections --connections 2000 --uploads 50 --seconds 600

Connections are kept alive by a request a minute each; uploads send 1.5 KiB a second, which is just enough. All are from
this machine, to a server that admits them.
"""

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path

from app.serving.open_files import allow_open_files
from bench.cluster import percentile
from bench.laptop import Laptop
from bench.process_facts import resident_bytes

ASK_SECONDS = 60.0
POLL_SECONDS = 0.2
UPLOAD_BYTES_PER_SECOND = 1536
# Announced bytes are reserved on the disk for as long as an upload lasts.
UPLOAD_BYTES = 2**24
BOUNDARY = "neighbours"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.held_connections")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    allow_open_files(4 * (options.connections + options.uploads))
    with Laptop(max_connections="8000", max_connections_per_peer="8000", log_level="warning") as server:
        alone = asyncio.run(_hold(server, 0, 0, min(30.0, options.seconds)))
        beside = asyncio.run(_hold(server, options.connections, options.uploads, options.seconds))
        time.sleep(2)
        left = _open_files(server)
    print(
        "| | p50 | p99 | slowest | held | answers | memory | open files |\n|---|---|---|---|---|---|---|---|"
    )
    print(f"| alone | {alone} |\n| beside | {beside} |\n\nOpen files once they have left: {left}.")


async def _hold(server: Laptop, connections: int, uploads: int, seconds: float) -> str:
    """The cells of a row. Everything ends `seconds` after all are connected."""
    statuses: Counter[str] = Counter()
    tasks = []
    for number in range(connections):
        tasks.append(asyncio.create_task(_keep_alive(server, statuses)))
        if number % 50 == 0:
            await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(_upload(server, statuses)) for _ in range(uploads)]
    milliseconds: list[float] = []
    memory, held, files, ends_at = 0, 10**9, 0, time.monotonic() + seconds
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    while time.monotonic() < ends_at:
        started = time.perf_counter()
        statuses[await _ask(server, reader, writer, "/v1/renders")] += 1
        milliseconds.append(1000 * (time.perf_counter() - started))
        if len(milliseconds) % 25 == 0:
            memory = max(memory, resident_bytes(server.api.pid))
            files = max(files, _open_files(server))
            held = min(held, sum(not task.done() for task in tasks))
        await asyncio.sleep(POLL_SECONDS)
    writer.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    times = [percentile(milliseconds, 0.5), percentile(milliseconds, 0.99), max(milliseconds)]
    shown = [f"{one:.1f} ms" for one in times]
    told = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    return " | ".join([*shown, f"{held if tasks else 0}", told, f"{memory / 2**20:.0f} MiB", str(files)])


async def _keep_alive(server: Laptop, statuses: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        while True:
            statuses[await _ask(server, reader, writer, "/healthz")] += 1
            await asyncio.sleep(ASK_SECONDS)
    except (OSError, asyncio.IncompleteReadError) as error:
        statuses[f"connections ended ({type(error).__name__})"] += 1
    finally:
        writer.close()


async def _ask(server: Laptop, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> str:
    head = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.key}\r\n\r\n"
    )
    writer.write(head.encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = answer.partition("content-length: ")[2].split("\r\n")[0]
    await reader.readexactly(int(length))
    return answer.split()[1]


def _open_files(server: Laptop) -> int:
    return sum(1 for _ in Path(f"/proc/{server.api.pid}/fd").iterdir())


async def _upload(server: Laptop, statuses: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n{part}"
    )
    try:
        writer.write(head.encode())
        while not reader.at_eof():
            writer.write(bytes(UPLOAD_BYTES_PER_SECOND))
            await writer.drain()
            await asyncio.sleep(1)
    except OSError as error:
        statuses[f"uploads ended ({type(error).__name__})"] += 1
    finally:
        writer.close()


if __name__ == "__main__":
    main()
