"""A real server with its broker and worker, as processes, spoken to over HTTP."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.client import RegenClient
from tests.servers.forked import ForkedProcess

START_SECONDS = 60
MEDIA = Path(__file__).parents[1] / "media"


@dataclass(frozen=True, kw_only=True)
class Server(RegenClient):
    """A running `regen serve` and a client that holds its key."""

    process: ForkedProcess
    data_dir: Path

    def worker_pid(self) -> int:
        """The process id of the embedded worker, as the system tells it."""
        children = subprocess.run(
            ["ps", "-o", "pid=,comm=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()
        (worker,) = [line for line in children if " worker" in line]
        return int(worker.split()[0])


@contextmanager
def running_server(data_dir: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """`arguments`: further ones of `regen serve`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    ready_file = data_dir / "ready.json"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REGEN_")}
    environment |= {f"REGEN_{key.upper()}": value for key, value in settings.items()}
    log = data_dir / "server.log"
    log.touch()
    process = ForkedProcess(
        ["serve", "--port", "0", "--data-dir", str(data_dir), "--ready-file", str(ready_file), *arguments],
        log=log,
        environment=environment,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready_file.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        # The key is told on the first start only.
        headers = {"Authorization": f"Bearer {ready['key']}"} if "key" in ready else {}
        with httpx.Client(base_url=ready["url"], headers=headers, timeout=60) as client:
            yield Server(process=process, client=client, data_dir=data_dir)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            raise


@pytest.fixture(scope="module")
def stand_in_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Enlarges by nearest neighbour, in segments of half a second: everything but the networks at work."""
    with running_server(
        tmp_path_factory.mktemp("stand-in"),
        stand_in_network="true",
        segment_seconds="0.5",
        output_quality="high",
        outbound_allowed_networks="127.0.0.0/8",
    ) as server:
        yield server


@pytest.fixture
def start_server(tmp_path: Path) -> Callable[..., Any]:
    """Start a server of one's own with the given settings: `with start_server(lease_seconds="2") as server`."""

    def start(**settings: str) -> Any:
        return running_server(tmp_path / "data", **settings)

    return start
