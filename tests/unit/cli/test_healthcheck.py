"""`regen healthcheck` says in a sentence whether a server or a worker is well."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner, Result

from app.cli.application import application
from app.platform.liveness import FILE_NAME, FRESH_SECONDS, Liveness
from tests.servers.process import free_port
from worker.workspace import Workspace


def check(*arguments: str) -> Result:
    result = CliRunner().invoke(application, ["healthcheck", *arguments])
    assert len(result.output.splitlines()) == 1 and result.output.endswith(".\n"), result.output
    return result


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz?x=1" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_server_is_well_when_it_answers_200() -> None:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert check("--url", f"{url}/healthz?x=1").exit_code == 0
        assert check("--url", f"{url}/readyz").exit_code == 1
        server.shutdown()
    assert check("--url", f"http://127.0.0.1:{free_port()}/healthz").exit_code == 1


@pytest.fixture
def worker(tmp_path: Path) -> Callable[[], Result]:
    return lambda: check("--worker", "--data-dir", str(tmp_path))


def test_a_worker_is_well_while_it_touches_its_file(tmp_path: Path, worker: Callable[[], Result]) -> None:
    assert worker().exit_code == 1
    workspace, previews = (Workspace(tmp_path / "work", cache_bytes=0) for _ in range(2))
    try:
        Liveness(workspace.path).touch()
        assert worker().exit_code == 0
        long_ago = time.time() - FRESH_SECONDS - 1
        os.utime(workspace.path / FILE_NAME, (long_ago, long_ago))
        assert worker().exit_code == 1
    finally:
        workspace.close()
        previews.close()
    assert worker().exit_code == 1


@pytest.mark.parametrize("arguments", [["--url", "http://127.0.0.1:1/healthz"], ["--worker"]])
def test_the_command_imports_little(arguments: list[str], tmp_path: Path) -> None:
    """On a busy machine, imports alone took longer than a probe waits."""
    program = (
        "import atexit, sys; from app.cli import main; "
        "slow = {'app.platform.settings', 'sqlalchemy', 'app.cli.application'}; "
        "atexit.register(lambda: print(*slow & set(sys.modules))); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "healthcheck", *arguments],
        env={**os.environ, "REGEN_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    sentence, imported = done.stdout.splitlines()
    assert (done.returncode, done.stderr, imported) == (1, "", "")
    assert sentence.endswith(".")
