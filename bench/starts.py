"""How long starts take: the server, the mock, and a worker to its first frame; and what of it is loading libraries.

    .venv/bin/python -m bench.starts [--rounds 5]

Every start is a process of its own, timed from its spawning. The server and the mock are asked over HTTP until they
answer 200; a worker finds a render of one frame in the queue, and its log says what it did when. Prints tables.
"""

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from app.mock.options import KEY as MOCK_KEY
from bench.laptop import Laptop, clean_environment
from bench.machine import heading, table
from bench.padded_video import make_clip
from tests.servers.process import ServerProcess, free_port

POLL_SECONDS = 0.002
START_SECONDS = 60.0
WORK_SECONDS = 120.0

Times = dict[str, float]
"""Milliseconds, by what they were taken until."""

# What a start cannot be faster than, with these libraries.
LIBRARIES = {
    "Python alone": "pass",
    "Python, FastAPI, uvicorn, SQLAlchemy": "import fastapi, uvicorn, sqlalchemy.orm",
    "... and Alembic, Celery": "import fastapi, uvicorn, sqlalchemy.orm, alembic.command, celery",
    "Python, torch": "import torch",
}

# A worker's start without all that it waits for, step by step; what it prints is JSON.
PHASES = """
import time
times, last = {}, time.perf_counter()
def note(what):
    global last
    now = time.perf_counter()
    times[what] = 1000 * (now - last)
    last = now
import torch
note("import torch")
import worker.celery_app
note("import the rest")
from app.platform.settings import Settings
from worker.inference.frames import FrameFormat
from worker.loaded_upscaler import Networks, UpscalerKey
import json, numpy, sys
networks = Networks(Settings(data_dir=sys.argv[1], device="cpu"))
networks.check()
note("look for device and weights")
source = FrameFormat(width=64, height=48)
upscaler = networks.upscaler(
    UpscalerKey(engine_id=sys.argv[2], source=source, target=FrameFormat(width=256, height=192))
)
note("load the weights, make the upscaler")
random = numpy.random.default_rng(0)
for number in ("first", "second", "third"):
    # A frame that equals the one before it would not be computed again.
    upscaler.upscale([random.integers(0, 256, source.frame_bytes, numpy.uint8)])
    note(f"{number} frame of 64x48")
print(json.dumps(times))
"""
ENGINE = "regen-4x-lite"


def milliseconds_since(started_at: float) -> float:
    return 1000 * (time.perf_counter() - started_at)


def median_times(rounds: Sequence[Times]) -> Times:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def answers(port: int, path: str, key: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def wait_for(process: ServerProcess, condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """As ServerProcess.wait_until, which looks too rarely to time anything."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.status is None, f"ended with {process.status}:\n{process.tail()}"
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def started(*arguments: str | Path, log: Path) -> Iterator[ServerProcess]:
    """`regen` with these arguments; ended on exit."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    process = ServerProcess(command, log=log, environment=clean_environment(log_format="json"))
    try:
        yield process
    finally:
        process.stop()


def start_server(arguments: Sequence[str | Path], *, directory: Path, key: str | None) -> tuple[Times, str]:
    """Times until it answers, and the key: the one it made, unless one is given."""
    port, ready_file = free_port(), directory / "ready.json"
    started_at = time.perf_counter()
    options = ("--port", str(port), "--ready-file", ready_file, "--data-dir", directory / "data")
    with started(*arguments, *options, log=directory / "server.log") as process:
        wait_for(process, lambda: answers(port, "/readyz", ""), seconds=START_SECONDS, what="it is ready")
        ready = milliseconds_since(started_at)
        if key is None:
            wait_for(process, ready_file.exists, seconds=START_SECONDS, what="there is a key")
            key = str(json.loads(ready_file.read_text())["key"])
        given = key
        wait_for(process, lambda: answers(port, "/v1/engines", given), seconds=START_SECONDS, what="200")
        return {"/readyz": ready, "/v1/engines": milliseconds_since(started_at)}, key


def server_rounds(rounds: int) -> dict[str, Times]:
    found: dict[str, list[Times]] = {}
    for _number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="regen-starts-") as name:
            directory = Path(name)
            serve = ("serve", "--no-worker")
            first, key = start_server(serve, directory=directory, key=None)
            found.setdefault("`regen serve`, its first start", []).append(first)
            again, _key = start_server(serve, directory=directory, key=key)
            found.setdefault("`regen serve`, later ones", []).append(again)
        with tempfile.TemporaryDirectory(prefix="regen-starts-") as name:
            mock, _key = start_server(("mock",), directory=Path(name), key=MOCK_KEY)
            found.setdefault("`regen mock`", []).append(mock)
    return {name: median_times(times) for name, times in found.items()}


def library_rounds(rounds: int) -> Times:
    found: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    for _number in range(rounds):
        for name, program in LIBRARIES.items():
            started_at = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            found[name].append(milliseconds_since(started_at))
    return {name: statistics.median(times) for name, times in found.items()}


def log_lines(process: ServerProcess) -> list[dict[str, Any]]:
    texts = process.log.read_text().splitlines(keepends=True)
    return [json.loads(text) for text in texts if text.startswith("{") and text.endswith("\n")]


def start_worker(laptop: Laptop, clip: Path, log: Path) -> Times:
    """Times from the spawning of a worker that finds one render of one frame."""
    headers = {"Authorization": f"Bearer {laptop.key}"}
    with httpx.Client(base_url=laptop.url, headers=headers) as client, clip.open("rb") as file:
        fields = {"engine": ENGINE}
        assert client.post("/v1/upscale", files={"file": file}, data=fields).status_code == httpx.codes.OK

    def done(process: ServerProcess) -> bool:
        return any(
            (line["event"], line.get("kind")) == ("work_done", "finish") for line in log_lines(process)
        )

    started_at = time.time()
    with started("worker", "--device", "cpu", "--data-dir", laptop.root / "data", log=log) as process:
        wait_for(process, lambda: done(process), seconds=WORK_SECONDS, what="the render is done")
        lines = log_lines(process)
    times = {}
    for what, event, kind in (
        ("ready for work", "worker_ready", None),
        ("video read", "work_done", "prepare"),
        ("first frame upscaled, encoded, stored", "work_done", "upscale"),
        ("render completed", "work_done", "finish"),
    ):
        line = next(line for line in lines if (line["event"], line.get("kind")) == (event, kind))
        times[what] = 1000 * (datetime.fromisoformat(line["timestamp"]).timestamp() - started_at)
    return times


def worker_rounds(rounds: int) -> tuple[Times, Times]:
    """Of whole workers, and of the steps inside."""
    whole, inside = [], []
    with tempfile.TemporaryDirectory(prefix="regen-starts-") as name, Laptop() as laptop:
        directory = Path(name)
        clip = make_clip(directory / "clip.mp4", frames=1)
        for number in range(rounds):
            whole.append(start_worker(laptop, clip, directory / f"worker-{number}.log"))
            command = [sys.executable, "-c", PHASES, str(laptop.root / "data"), ENGINE]
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=clean_environment(),
            )
            inside.append(json.loads(done.stdout.splitlines()[-1]))
    return median_times(whole), median_times(inside)


def shown(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="How long starts take.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    servers = server_rounds(rounds)
    libraries = library_rounds(rounds)
    whole, inside = worker_rounds(rounds)
    print(f"{heading()} Medians of {rounds}.\n")
    print(
        table(
            ["from spawning to the first 200 of", *next(iter(servers.values()))],
            [[name, *map(shown, times.values())] for name, times in servers.items()],
        )
    )
    print("\n" + table(["a process that loads", "until it has ended"], _lines(libraries)))
    print("\n" + table(["`regen worker`, from spawning to", ""], _lines(whole)))
    print("\n" + table([f"inside, `{ENGINE}` on the CPU", "takes"], _lines(inside)))


def _lines(times: Times) -> list[list[str]]:
    return [[name, shown(milliseconds)] for name, milliseconds in times.items()]


if __name__ == "__main__":
    main()
