"""A server to test: the one that REGEN_TEST_URL and REGEN_TEST_KEY name, else one of our own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class RegenServer:
    url: str
    key: str


@pytest.fixture(scope="session")
def regen_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegenServer]:
    if "REGEN_TEST_URL" in os.environ:
        yield RegenServer(url=os.environ["REGEN_TEST_URL"].rstrip("/"), key=os.environ["REGEN_TEST_KEY"])
        return
    directory = tmp_path_factory.mktemp("regen-server")
    ready_file = directory / "ready.json"
    command = [
        *(sys.executable, "-m", "app.cli", "serve", "--port", "0"),
        *("--data-dir", str(directory / "data"), "--ready-file", str(ready_file)),
    ]
    # Settings of whoever runs the tests are not ours.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    environment |= {"PYTHONPATH": str(ROOT), "REGEN_STAND_IN_NETWORK": "true"}
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready_file.exists():
                assert process.poll() is None and time.monotonic() < deadline, (
                    f"the server did not start:\n{(directory / 'log').read_text()}"
                )
                time.sleep(0.05)
            ready = json.loads(ready_file.read_text())
            yield RegenServer(url=ready["url"], key=ready["key"])
        finally:
            process.terminate()


@pytest.fixture
def api(regen_server: RegenServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {regen_server.key}"}
    with httpx.Client(base_url=regen_server.url, headers=headers, timeout=120) as client:
        yield client
