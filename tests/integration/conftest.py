"""A migrated database, SQLite and PostgreSQL in turn, with one user and one file."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from app import migrations
from app.accounts import queries as account_queries
from app.files.tables import File
from app.http.resources import Resources, open_resources
from app.platform.database import Database
from app.platform.dispatcher import Dispatcher
from app.platform.media.info import VideoProperties
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.local import LocalStorage
from app.platform.storage.s3 import S3Storage
from app.platform.storage.s3_connection import S3Connection, connect
from app.renders.tables import Render
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment
from app.work.queries import ReadyUnits
from tests.integration.aged_rows import AgedRows
from tests.integration.rows import a_file, a_render
from tests.servers.process import free_port
from tests.servers.s3 import S3Server

OpenDispatcher = Callable[..., Any]
AnyDispatcher = TypeVar("AnyDispatcher", bound=Dispatcher[Any, Any])
FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory, shared_directory: Path) -> Path:
    """A SQLite file with every migration and no rows, to be copied."""
    shared = shared_directory / "migrated.db"
    if not shared.exists():
        path = tmp_path_factory.mktemp("migrated") / "regen.db"
        database = Database(f"sqlite:///{path}")
        migrations.upgrade(database)
        database.close()
        path.rename(shared)
    return shared


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, migrated_database: Path) -> str:
    """Where `database` is, at the newest migration: what a test finds out holds on both."""
    if request.param == "sqlite":
        shutil.copy(migrated_database, tmp_path / "regen.db")
        return f"sqlite:///{tmp_path / 'regen.db'}"
    url: str = request.getfixturevalue("migrated_postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Of an API process that may send to loopback, and wakes nobody."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        secret_key=SecretStr("a secret of these tests, which is none"),
        broker_url=f"redis://127.0.0.1:{free_port()}/0",
        outbound_allowed_networks=(ip_network("127.0.0.0/8"),),
    )


@pytest.fixture
def open_dispatcher(database: Database, settings: Settings) -> Iterator[OpenDispatcher]:
    """Makes a dispatcher with further settings, as an API process of its own has one. It is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def open_one(make: Callable[[Resources], AnyDispatcher], **more: Any) -> AnyDispatcher:
            dispatcher = make(stack.enter_context(open_resources(settings.model_copy(update=more))))
            stack.callback(dispatcher.stop)
            return dispatcher

        yield open_one


@pytest.fixture
def make_ledger(database: Database) -> Callable[..., WorkLedger]:
    def make(
        worker: str = "worker-1", *, lease_seconds: float = 30.0, max_attempts: int = 3, **options: Any
    ) -> WorkLedger:
        return WorkLedger(
            database=database,
            worker=worker,
            lease_seconds=lease_seconds,
            max_attempts=max_attempts,
            **options,
        )

    return make


@pytest.fixture
def file(database: Database) -> File:
    with database.write() as session:
        user = account_queries.add_user(session, user_id=new_id(), name="somebody")
        file = a_file(user.id)
        session.add(file)
    return file


@pytest.fixture
def add_render(database: Database, file: File) -> Callable[[], Render]:
    def add() -> Render:
        with database.write() as session:
            return a_render(session, session.merge(file))

    return add


@pytest.fixture
def prepare() -> Callable[..., ReadyUnits]:
    """Prepare the claimed render into that many segments of ten frames."""

    def run(ledger: WorkLedger, claim: object, *, segments: int) -> ReadyUnits:
        return ledger.prepared(
            claim,  # type: ignore[arg-type]
            plan="all of it",
            source=FACTS,
            output=FACTS,
            cost=1.0,
            warnings=[],
            segments=[PlannedSegment(frames=10, plan=f"number {number}") for number in range(segments)],
        )

    return run


@pytest.fixture(scope="session")
def s3_connection(s3_server: S3Server) -> S3Connection:
    return connect(Settings(**s3_server.settings(s3_server.create_bucket())))


@pytest.fixture
def storage(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Storage:
    """Local files beside SQLite, an S3 server beside PostgreSQL."""
    if database.is_sqlite:
        return LocalStorage(root=tmp_path / "storage", url_key=b"a key")
    connection: S3Connection = request.getfixturevalue("s3_connection")
    # Under a prefix of the test's own: to connect anew would take longer than most tests.
    return S3Storage(replace(connection, prefix=f"{os.urandom(8).hex()}/"))


@pytest.fixture
def place(database: Database, storage: Storage, file: File, tmp_path: Path) -> AgedRows:
    # The fixture's own file is of now, and stays out of the way.
    return AgedRows(database, storage, file.user_id, tmp_path)
