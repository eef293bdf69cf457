"""Servers on one PostgreSQL, as on several machines."""

import os
import re

import httpx
import pytest

from tests.servers.forked import ForkedServerProcess
from tests.servers.process import free_port, wait_until

START_SECONDS = 60
KEY = re.compile(r"regen_[\w-]{43}")


@pytest.fixture
def start(tmp_path, postgres_url):
    """Starts a `regen serve` with a data directory of its own on the one database."""
    started = []

    def run(**settings):
        directory = tmp_path / f"machine-{len(started)}"
        directory.mkdir()
        server = ForkedServerProcess(
            [
                *("serve", "--port", "0", "--no-worker"),
                *("--data-dir", directory / "data", "--ready-file", directory / "ready"),
            ],
            log=directory / "log",
            environment={
                **os.environ,
                "REGEN_DATABASE_URL": postgres_url,
                "REGEN_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
                **settings,
            },
            forks_workers=False,
        )
        started.append(server)
        return server

    yield run
    for server in started:
        server.kill()


def url_of(server):
    ready_file = server.log.parent / "ready"
    server.wait_until(ready_file.exists, seconds=START_SECONDS, what="the server answers")
    return re.search(r"http://[\d.:]+", ready_file.read_text())[0]


def test_two_that_start_at_once_migrate_once_and_make_one_key_which_both_accept(start):
    servers = [start(REGEN_SECRET_KEY="a secret of these tests, which is none") for _ in range(2)]
    urls = [url_of(server) for server in servers]
    shown = [key for server in servers for key in set(KEY.findall(server.tail()))]
    assert len(shown) == 1
    for url in urls:
        headers = {"Authorization": f"Bearer {shown[0]}"}
        assert httpx.get(f"{url}/v1/engines", headers=headers).status_code == 200
    assert [server.stop() for server in servers] == [0, 0]


def test_without_a_secret_for_all_of_them_none_starts(start):
    server = start()
    wait_until(lambda: server.status is not None, seconds=START_SECONDS, what="the server gives up")
    assert server.status != 0
    assert "REGEN_SECRET_KEY must be set" in server.tail()
