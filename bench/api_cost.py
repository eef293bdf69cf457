"""What the API itself costs: polling a render, and handing in a video of 1 MB, with 50 clients and with one.

    .venv/bin/python -m bench.api_cost [--servers] [--api-processes 2] [--rounds 5] [--seconds 2]

Side by side, in turns: a server that sends prepared bytes (what the client costs), one route of FastAPI that answers
the same constant (what the framework costs), and `regen serve --no-worker` as on a laptop. With `--servers` also on
PostgreSQL, Redis and S3, with `--api-processes` also with so many. All on this machine, loopback, each a process of its
own. Prints a table.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from bench.cluster import Cluster
from bench.laptop import Laptop
from bench.load import LoadClient, Seen
from bench.machine import heading, table
from bench.padded_video import make_clip, pad
from bench.process_facts import CpuSeconds, arguments_of, children_of, cpu_seconds

UPLOAD_BYTES = 1_000_000
CLIENTS = (1, 50)
WARM_UP_SECONDS = 0.5
BOUNDARY = "a-boundary-that-is-in-no-video"
VERSIONS = ("fastapi", "starlette", "uvicorn", "h11", "sqlalchemy")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One server. `poll` and `upload` are whole requests."""

    name: str
    port: int
    pids: Sequence[int]
    poll: bytes
    upload: bytes


@dataclass(frozen=True, kw_only=True)
class Round:
    seen: Seen
    server: CpuSeconds


def request(method: str, path: str, *, key: str, body: bytes = b"", content_type: str = "") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {key}"]
    if body:
        head += [f"content-type: {content_type}", f"content-length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def upload_request(video: bytes, *, key: str) -> bytes:
    part = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="clip.mp4"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    )
    return request(
        "POST",
        "/v1/upscale",
        key=key,
        body=part.encode() + video + f"\r\n--{BOUNDARY}--\r\n".encode(),
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
    )


def regen_side(name: str, *, url: str, key: str, pids: Sequence[int], video: Path) -> tuple[Side, bytes]:
    """The side, with one render in its queue, and the answer to who polls it."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client, video.open("rb") as file:
        made = client.post("/v1/upscale", files={"file": ("clip.mp4", file)})
        assert made.status_code == httpx.codes.OK, made.text
        path = f"/v1/renders/{made.json()['render']['id']}"
        answer = client.get(path).content
    side = Side(
        name=name,
        port=httpx.URL(url).port or 80,
        pids=pids,
        poll=request("GET", path, key=key),
        upload=upload_request(video.read_bytes(), key=key),
    )
    return side, answer


def constant_side(name: str, kind: str, *, like: Side, answer: Path, stack: ExitStack) -> Side:
    """A server of `bench.constant_server` that is asked what `like` is asked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.constant_server", kind, answer], stdout=subprocess.PIPE, text=True
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    return Side(name=name, port=port, pids=[process.pid], poll=like.poll, upload=like.upload)


def measure(client: LoadClient, side: Side, *, request: bytes, clients: int, seconds: float) -> Round:
    before = [cpu_seconds(pid) for pid in side.pids]
    seen = client.run(port=side.port, request=request, clients=clients, seconds=seconds)
    used = [cpu_seconds(pid) - earlier for pid, earlier in zip(side.pids, before, strict=True)]
    return Round(seen=seen, server=sum(used, CpuSeconds(own=0, children=0)))


def row(side: Side, what: str, clients: int, rounds: list[Round], bare_per_second: float) -> list[str]:
    def middle(values: list[float]) -> float:
        return statistics.median(values)

    per_second = middle([one.seen.per_second for one in rounds])
    own = middle([1000 * one.server.own / one.seen.answers for one in rounds])
    children = middle([1000 * one.server.children / one.seen.answers for one in rounds])
    client = middle([1000 * one.seen.client_cpu_seconds / one.seen.answers for one in rounds])
    return [
        *(what, f"{clients}", side.name),
        f"{middle([one.seen.p50_ms for one in rounds]):.2f} ms",
        f"{middle([one.seen.p99_ms for one in rounds]):.2f} ms",
        *(f"{per_second:.0f}", f"{per_second / bare_per_second:.1%}"),
        *(f"{own:.2f} ms", f"{children:.0f} ms", f"{client:.2f} ms"),
    ]


def compare(
    client: LoadClient, sides: list[Side], *, what: str, clients: int, rounds: int, seconds: float
) -> list[list[str]]:
    """The rows of one question. Within each round every side has its turn; the second is the bare framework."""
    requests = {side.name: side.poll if what == "poll" else side.upload for side in sides}
    for side in sides:
        measure(client, side, request=requests[side.name], clients=clients, seconds=WARM_UP_SECONDS)
    found: dict[str, list[Round]] = {side.name: [] for side in sides}
    for _number in range(rounds):
        for side in sides:
            taken = measure(client, side, request=requests[side.name], clients=clients, seconds=seconds)
            found[side.name].append(taken)
    bare = statistics.median(one.seen.per_second for one in found[sides[1].name])
    rows = [row(side, what, clients, found[side.name], bare) for side in sides]
    for cells in rows:
        print(*cells, sep="  ", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="What the API itself costs.")
    parser.add_argument("--servers", action="store_true", help="also PostgreSQL, Redis and S3")
    parser.add_argument("--api-processes", type=int, help="also a server with so many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of each side")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    options = parser.parse_args()
    rows: list[list[str]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regen-clips-")))
        video = pad(make_clip(directory / "clip.mp4"), size_bytes=UPLOAD_BYTES)
        laptop = stack.enter_context(Laptop())
        regen, content = regen_side(
            "regen, SQLite + local", url=laptop.url, key=laptop.key, pids=[laptop.api.pid], video=video
        )
        answer = directory / "answer.json"
        answer.write_bytes(content)
        sides = [
            constant_side("prepared bytes", "bytes", like=regen, answer=answer, stack=stack),
            constant_side("bare FastAPI", "fastapi", like=regen, answer=answer, stack=stack),
            regen,
        ]
        if options.api_processes:
            several = stack.enter_context(Laptop(api_processes=str(options.api_processes)))
            name = f"regen, {options.api_processes} API processes"
            pids = [pid for pid in children_of(several.api.pid) if "api-process" in arguments_of(pid)]
            sides.append(regen_side(name, url=several.url, key=several.key, pids=pids, video=video)[0])
        if options.servers:
            cluster = stack.enter_context(Cluster(storage="s3"))
            servers, _content = regen_side(
                *("regen, PostgreSQL + Redis + S3",),
                **{"url": cluster.url, "key": cluster.key, "pids": [cluster.api.pid], "video": video},
            )
            sides.append(servers)
        client = LoadClient()
        stack.callback(client.close)
        # All polls first: what the uploads add to the queue would make them dearer.
        for what in ("poll", "upload"):
            for clients in options.clients:
                rows += compare(
                    client, sides, what=what, clients=clients, rounds=options.rounds, seconds=options.seconds
                )
    packages = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    print(f"{heading()} {packages}. Medians of {options.rounds} rounds of {options.seconds:g} s.\n")
    head = ["request", "clients", "server", "p50", "p99", "answers/s", "of bare FastAPI"]
    print(table([*head, "server's CPU each", "ffprobe's CPU each", "client's CPU each"], rows))


if __name__ == "__main__":
    main()
