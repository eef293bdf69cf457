"""What the contract tests run against. Another storage joins them as another parameter of `opened`."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from app.core.secrets import Secrets
from app.core.settings import Settings
from app.core.storage import open_storage
from app.core.storage.contract import Storage
from app.main import create_app


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A storage to be tested. `base_url` is where its URLs are served."""

    storage: Storage
    base_url: str


@contextmanager
def opened_local(tmp_path: Path) -> Iterator[Opened]:
    settings = Settings(data_dir=tmp_path / "data", broker_url="memory://")
    config = uvicorn.Config(create_app(settings), port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Opened(
            storage=open_storage(settings, Secrets.load(settings)),
            base_url=f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}",
        )
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(params=[opened_local], ids=["local"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture
def storage(opened: Opened) -> Storage:
    return opened.storage


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[bytes], Path]:
    """A fresh file with that content."""

    def make(content: bytes) -> Path:
        path = tmp_path / f"made-{os.urandom(8).hex()}"
        path.write_bytes(content)
        return path

    return make
