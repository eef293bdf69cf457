"""What the contract tests run against. Another storage joins them as another parameter of `opened`."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import botocore.loaders
import pytest

from app.main import create_app
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.storage.contract import Storage
from app.platform.storage.s3 import S3Storage
from app.platform.storage.s3_connection import S3Connection, S3Options, connect
from tests.servers.s3 import S3Server
from tests.servers.serving import serving


@pytest.fixture(autouse=True, scope="session")
def descriptions_are_read_once() -> Iterator[None]:
    """Each boto3 session reads megabytes that describe S3 anew, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(botocore.loaders, "create_loader", cache(botocore.loaders.create_loader))
        yield


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A storage to be tested. `base_url` is where its URLs are served. See S3Server for what is not complete."""

    storage: Storage
    base_url: str
    is_complete: bool = True


@pytest.fixture
def serve() -> Callable[[Settings], AbstractContextManager[str]]:
    """The address of an API with the given settings."""
    return lambda settings: serving(create_app(settings))


@contextmanager
def opened_local(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    settings = Settings(data_dir=tmp_path / "data")
    with serving(create_app(settings)) as base_url:
        yield Opened(storage=open_storage(settings, Secrets.load(settings)), base_url=base_url)


@contextmanager
def opened_s3(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    server, connection = request.getfixturevalue("shared_bucket")
    # Under a prefix of the test's own. To connect anew would take longer than most tests.
    connection = replace(connection, prefix=f"{os.urandom(8).hex()}/")
    yield Opened(storage=S3Storage(connection), base_url="http://the-api", is_complete=server.is_complete)


@pytest.fixture(scope="session")
def shared_bucket(s3_server: S3Server) -> tuple[S3Server, S3Connection]:
    settings = Settings(**s3_server.settings(s3_server.create_bucket()))
    return s3_server, connect(settings)


@pytest.fixture(
    params=[
        pytest.param(opened_local, id="local"),
        pytest.param(opened_s3, id="s3", marks=pytest.mark.slow),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    with request.param(tmp_path, request) as opened:
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


@pytest.fixture
def open_bucket(s3_bucket):
    """Open the bucket; settings may be replaced."""

    def open_bucket(*, options: S3Options | None = None, **replaced) -> S3Storage:
        return S3Storage(connect(Settings(**{**s3_bucket.settings, **replaced}), options))

    return open_bucket
