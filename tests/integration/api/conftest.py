import contextlib
import logging
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from app.accounts import service as account_service
from app.files import accept_video
from app.files.service import SpooledUpload, inspect_upload
from app.main import create_app
from app.platform.database import Database
from app.platform.media.ffmpeg import FfmpegRunner, Programs
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import MediaInfo
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from tests.servers.broker import BrokerServer
from tests.servers.serving import serving

# Made once: the authorities that it reads take longer than most requests.
TLS = ssl.create_default_context()


# By the hash of the file's bytes.
_inspected: dict[tuple[str, MediaLimits, Programs], MediaInfo] = {}


@pytest.fixture(autouse=True)
def inspected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ffprobe tells of a video is kept for the next test that sends the same one: its two starts take as much
    processor time as all else of an upload. A refused file is examined anew.
    """

    def inspect(upload: SpooledUpload, *, runner: FfmpegRunner, limits: MediaLimits) -> MediaInfo:
        key = upload.sha256, limits, runner.programs
        if key not in _inspected:
            _inspected[key] = inspect_upload(upload, runner=runner, limits=limits)
        return _inspected[key]

    monkeypatch.setattr(accept_video, "inspect_upload", inspect)


@pytest.fixture
def settings(tmp_path: Path, broker_server: BrokerServer) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", broker_url=broker_server.url, broker_password=broker_server.password
    )


@pytest.fixture
def database(settings: Settings, migrated_database: Path) -> Iterator[Database]:
    settings.root.mkdir(parents=True, exist_ok=True)
    shutil.copy(migrated_database, settings.root / "regen.db")
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def make_key(database: Database, settings: Settings) -> Callable[[str], str]:
    """Makes a user of that name, and a key of theirs."""

    def make(user_name: str) -> str:
        with database.write() as session:
            account_service.create_user(session, name=user_name)
            return account_service.create_key(
                session, user_name=user_name, key_name="test", keys=Secrets.load(settings)
            ).key

    return make


@pytest.fixture
def key(make_key: Callable[[str], str]) -> str:
    return make_key("ann")


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def server(app: FastAPI) -> Iterator[str]:
    """The address of a real HTTP server in this process."""
    with serving(app) as url:
        yield url


@pytest.fixture
def stranger(server: str) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=server, timeout=60, verify=TLS) as client:
        yield client


@pytest.fixture
def client(stranger: httpx.Client, key: str) -> httpx.Client:
    """A client with ann's key."""
    stranger.headers["Authorization"] = f"Bearer {key}"
    return stranger


@pytest.fixture
def serve(database: Database) -> Iterator[Callable[..., httpx.Client]]:
    """Starts a server of its own with the given settings; gives a client of it."""
    with contextlib.ExitStack() as stack:

        def start(settings: Settings, *, key: str) -> httpx.Client:
            url = stack.enter_context(serving(create_app(settings)))
            headers = {"Authorization": f"Bearer {key}"}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60, verify=TLS))

        yield start


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    """What the API logs, whatever logging was set up before; the lines that every request has are left out."""
    configured = structlog.get_config()
    structlog.reset_defaults()
    # Loggers that were used already may have kept their set-up.
    for module in (
        "http.errors",
        "http.middleware",
        "renders.created_answer",
        "http.health_checks",
        "http.uvicorn_protocol",
        "renders.streams",
    ):
        monkeypatch.setattr(f"app.{module}.log", structlog.get_logger())
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    monkeypatch.setattr(
        "app.http.request_log.log", structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=silent)
    )
    try:
        with structlog.testing.capture_logs() as entries:
            yield entries
    finally:
        structlog.configure(**configured)


@pytest.fixture(scope="session")
def media() -> Path:
    """The directory of real clips."""
    return Path(__file__).parents[2] / "media"


@pytest.fixture(scope="session")
def clip(media: Path) -> Path:
    """240 x 136, 25 frames a second, 50 frames, with sound."""
    return media / "bunny-240x136-25fps.mp4"


@pytest.fixture
def ffmpeg(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file with ffmpeg; the last argument is its name."""

    def make(*arguments: str) -> Path:
        path = tmp_path / arguments[-1]
        subprocess.run(
            ["ffmpeg", "-v", "error", "-y", *arguments[:-1], str(path)], check=True, capture_output=True
        )
        return path

    return make


@pytest.fixture
def spool_files(settings: Settings) -> Callable[[], list[str]]:
    """The names of what lies in the spool directory."""
    return lambda: sorted(path.name for path in settings.spool_dir.iterdir())


@pytest.fixture
def stored_files(settings: Settings) -> Callable[[], list[str]]:
    """Where the stored objects lie below the storage directory."""
    return lambda: sorted(
        str(path.relative_to(settings.storage_dir))
        for path in settings.storage_dir.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
