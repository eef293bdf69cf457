"""Servers to test: the one that REGEN_TEST_URL and REGEN_TEST_KEY name, else ours: the real one, and the mock."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
GIVEN = "REGEN_TEST_URL" in os.environ


@dataclass(frozen=True, kw_only=True)
class RegenServer:
    url: str
    key: str


OURS = [pytest.param("serve", marks=pytest.mark.slow), "mock"]


@pytest.fixture(scope="session", params=["given"] if GIVEN else OURS)
def regen_server(request: pytest.FixtureRequest, start_regen: Callable[[str], RegenServer]) -> RegenServer:
    if GIVEN:
        return RegenServer(url=os.environ["REGEN_TEST_URL"].rstrip("/"), key=os.environ["REGEN_TEST_KEY"])
    return start_regen(request.param)


@pytest.fixture(scope="session")
def start_regen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RegenServer]]:
    """Starts a server of our own by its command, `serve` or `mock`. They end with the tests."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: str) -> RegenServer:
        directory = tmp_path_factory.mktemp(f"regen-{command}")
        ready_file = directory / "ready.json"
        # Settings of whoever runs the tests are not ours.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
        environment |= {"PYTHONPATH": str(ROOT), "REGEN_STAND_IN_NETWORK": "true"}
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "app.cli", command, "--port", "0"),
                    *("--data-dir", str(directory / "data"), "--ready-file", str(ready_file)),
                ],
                cwd=directory,
                env=environment,
                stdout=log,
                stderr=log,
            )
        processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not ready_file.exists():
            assert process.poll() is None and time.monotonic() < deadline, (
                f"the server did not start:\n{(directory / 'log').read_text()}"
            )
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        return RegenServer(url=ready["url"], key=ready["key"])

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


@pytest.fixture
def api(regen_server: RegenServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {regen_server.key}"}
    with httpx.Client(base_url=regen_server.url, headers=headers, timeout=120) as client:
        yield client
