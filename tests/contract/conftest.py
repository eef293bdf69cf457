"""Servers to test: the one that REGEN_TEST_URL and REGEN_TEST_KEY name, else ours: the real one, and the mock."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.servers.forked import ForkedServerProcess

START_SECONDS = 60
GIVEN = "REGEN_TEST_URL" in os.environ


@dataclass(frozen=True, kw_only=True)
class RegenServer:
    url: str
    key: str


OURS = [pytest.param("serve", marks=pytest.mark.slow), "mock"]


@pytest.fixture(scope="module", params=["given"] if GIVEN else OURS)
def regen_server(request: pytest.FixtureRequest, start_regen: Callable[[str], RegenServer]) -> RegenServer:
    if GIVEN:
        return RegenServer(url=os.environ["REGEN_TEST_URL"].rstrip("/"), key=os.environ["REGEN_TEST_KEY"])
    return start_regen(request.param)


@pytest.fixture(scope="module")
def start_regen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RegenServer]]:
    """Starts a server of our own by its command, `serve` or `mock`. They end with the tests."""
    processes: list[ForkedServerProcess] = []

    def start(command: str) -> RegenServer:
        directory = tmp_path_factory.mktemp(f"regen-{command}")
        ready_file = directory / "ready.json"
        # Settings of whoever runs the tests are not ours.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
        environment["REGEN_STAND_IN_NETWORK"] = "true"
        data = directory / "data"
        process = ForkedServerProcess(
            [command, "--port", "0", "--data-dir", data, "--ready-file", ready_file],
            log=directory / "log",
            environment=environment,
        )
        processes.append(process)
        process.wait_until(ready_file.exists, seconds=START_SECONDS, what="the server is ready")
        ready = json.loads(ready_file.read_text())
        return RegenServer(url=ready["url"], key=ready["key"])

    try:
        yield start
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.stop()


@pytest.fixture
def api(regen_server: RegenServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {regen_server.key}"}
    with httpx.Client(base_url=regen_server.url, headers=headers, timeout=120) as client:
        yield client
